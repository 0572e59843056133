"""Trainer with the atom loss."""
