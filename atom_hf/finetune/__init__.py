"""One fine-tuning run from its command-line arguments."""
