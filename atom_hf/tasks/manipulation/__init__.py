"""Manipulators: a classifier becomes an editor, by equations between the two."""
