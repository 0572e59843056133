"""Sheets of edited texts: what is marked, and where lines break."""

import io

import numpy as np
import pytest
from PIL import Image

from atom_hf.errors import AtomError
from atom_hf.visualization.colors import NEGATIVE, POSITIVE
from atom_hf.visualization.text_edits_picture import TextLine, text_edits_sheet


def pixels(lines, **options):
    return np.asarray(Image.open(io.BytesIO(text_edits_sheet(lines, **options))).convert("RGB"))


def test_words_that_are_gone_and_new_have_marks_of_their_own():
    before = TextLine("calm", ["a", "lovely", "day"], {1})
    after = TextLine("to rough", ["a", "seized", "day"], {1}, is_edit=True)
    sheet = pixels([before, after], note="A note.")
    gone, new = ((sheet == colour).all(2) for colour in (NEGATIVE, POSITIVE))
    assert gone.any() and new.any() and np.argwhere(new)[0][0] > np.argwhere(gone)[-1][0]
    plain = pixels([TextLine("calm", before.words)])
    assert not (plain == NEGATIVE).all(2).any() and not (plain == POSITIVE).all(2).any()


def test_a_long_text_is_wrapped():
    short, long = (pixels([TextLine("calm", ["word"] * count)], width=400) for count in (3, 30))
    assert long.shape[0] > short.shape[0] + 60 and long.shape[1] == 400
    with pytest.raises(AtomError, match="give one text or more"):
        text_edits_sheet([])
