"""Atoms on a Transformers model: attach, run, save, load."""
