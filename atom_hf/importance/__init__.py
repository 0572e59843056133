"""Importance of words and image patches from a model with heads."""
