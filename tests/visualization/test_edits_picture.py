"""Sheets of edits: where pictures lie, what their colours say."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFont

from atom_hf.errors import AtomError
from atom_hf.visualization.colors import NEGATIVE, POSITIVE
from atom_hf.visualization.edits_picture import Cell, difference_picture, edits_sheet, picture_of
from atom_hf.visualization.pictures import wrapped


def test_a_sheet_has_a_place_for_every_picture():
    red, blue = Image.new("RGB", (4, 4), (200, 0, 0)), Image.new("RGB", (4, 2), (0, 0, 200))
    rows = [[Cell(red), Cell(blue, "a blue one")], [Cell(blue, framed=True), Cell(red)]]
    sheet = np.asarray(Image.open(io.BytesIO(edits_sheet(["one", "two"], rows, side=40, note="of two"))).convert("RGB"))
    reds, blues = ((sheet == colour).all(2) for colour in ((200, 0, 0), (0, 0, 200)))
    assert reds.sum() == 2 * 40 * 40 and blues.sum() == 2 * 40 * 20
    first, last = np.argwhere(reds)[0], np.argwhere(reds)[-1]
    assert last[0] > first[0] + 60 and last[1] > first[1] + 60


def test_a_note_takes_as_many_lines_as_it_needs():
    row = [[Cell(Image.new("L", (2, 2)))]]
    heights = [
        Image.open(io.BytesIO(edits_sheet(["one"], row, side=84, note=note))).height
        for note in ("", "blue", "orange added, blue taken away, and the frame is its own class")
    ]
    lines = wrapped("orange added, blue taken away, and the frame is its own class", 14, 84)
    assert len(lines) > 3 and " ".join(lines).endswith("its own class")
    assert all(ImageFont.load_default(size=14).getlength(line) <= 84 for line in lines)
    assert heights[1] == heights[0] + 20 and heights[2] == heights[0] + 20 * len(lines)


def test_rows_of_another_length_are_refused():
    with pytest.raises(AtomError, match="give one row or more, each of 2 pictures"):
        edits_sheet(["one", "two"], [[Cell(Image.new("L", (2, 2)))]])
    with pytest.raises(AtomError, match="give one row or more"):
        edits_sheet(["one"], [])


def test_pixels_are_pictures():
    assert np.asarray(picture_of(np.array([[[0.0, 0.5], [1.0, 2.0]]]))).tolist() == [[0, 128], [255, 255]]
    colours = np.zeros((3, 2, 5))
    colours[1] = 1
    assert picture_of(colours).size == (5, 2) and picture_of(colours).getpixel((0, 0)) == (0, 255, 0)


def test_what_is_added_is_orange_and_what_is_taken_is_blue():
    before, after = np.array([[[0.0, 1.0, 0.5]]]), np.array([[[1.0, 0.0, 0.5]]])
    found = difference_picture(before, after)
    assert [found.getpixel((x, 0)) for x in range(3)] == [POSITIVE, NEGATIVE, (255, 255, 255)]
