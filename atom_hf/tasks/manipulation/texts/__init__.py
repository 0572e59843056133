"""Texts edited: the words that a classifier leans on are hidden, and others are filled in."""
