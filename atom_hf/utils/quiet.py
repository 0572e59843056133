"""Silence logs and progress bars of libraries."""

import logging
from contextlib import contextmanager

import datasets
import transformers


@contextmanager
def quiet():
    """Context manager: no logs below warnings and no progress bars but one's own; restores them."""
    ours, theirs = logging.getLogger("atom_hf"), transformers.utils.logging
    levels = ours.level, theirs.get_verbosity()
    ours.setLevel(logging.WARNING)
    theirs.set_verbosity_error()
    theirs.disable_progress_bar()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        ours.setLevel(levels[0])
        theirs.set_verbosity(levels[1])
        theirs.enable_progress_bar()
        datasets.enable_progress_bars()
