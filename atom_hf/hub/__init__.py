"""The Hugging Face Hub: reading and pushing repositories, error messages, model cards."""
