"""Importance on the pixels of a result, against loops over single pixels."""

import numpy as np
import pytest
from PIL import Image

from atom_hf.importance.results import ImageImportance, SampleAtom


def pixels_by_hand(result):
    width, height = result.image.size
    left, top, right, bottom = result.box or (0, 0, width, height)
    rows, columns = result.importance.shape
    found = np.full((height, width), np.nan, np.float32)
    for y in range(height):
        for x in range(width):
            for row in range(rows):
                for column in range(columns):
                    above = top + row * (bottom - top) / rows
                    before = left + column * (right - left) / columns
                    tall, wide = (bottom - top) / rows, (right - left) / columns
                    if above <= y + 0.5 < above + tall and before <= x + 0.5 < before + wide:
                        found[y, x] = result.importance[row, column]
    return found


@pytest.mark.parametrize(
    "box", [None, (0, 0, 12, 8), (2, 0, 10, 8), (2.25, 1.4, 9.7, 6.6), (-3, -1, 15, 9), (0, 0, 11, 7)]
)
def test_each_pixel_has_the_importance_of_the_patch_that_its_centre_lies_in(box):
    grid = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    grid[1, 2] = np.nan
    result = ImageImportance(Image.new("RGB", (12, 8)), grid, box=box)
    pixels = result.on_pixels()
    assert pixels.shape == (8, 12) and pixels.dtype == np.float32
    np.testing.assert_array_equal(pixels, pixels_by_hand(result))


def test_more_patches_than_pixels():
    grid = np.arange(64, dtype=np.float32).reshape(8, 8) / 64
    result = ImageImportance(Image.new("L", (3, 5)), grid)
    np.testing.assert_array_equal(result.on_pixels(), pixels_by_hand(result))


def test_net_charge():
    assert SampleAtom(0.5, 0.2, np.zeros(3, np.float32), 1.0).net_charge == pytest.approx(0.3)
