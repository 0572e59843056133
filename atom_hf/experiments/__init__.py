"""Paired runs over seeds and settings, and their statistics."""
