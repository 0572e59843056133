"""Reading the importance of words and patches from a model with heads."""
