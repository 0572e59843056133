"""Rows with their classes: pixels of bytes, and parts that keep the classes in proportion."""

import numpy as np
import pytest
import torch

from atom_hf import AtomError
from atom_hf.tasks.manipulation.rows import LabelledRows
from helpers.manipulators import DIGITS, digit_rows


def test_bytes_are_pixels_from_0_to_1():
    rows = LabelledRows(torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1), torch.arange(3))
    assert rows.floats.flatten().tolist() == pytest.approx([0, 0.2, 1])
    assert str(rows.kind) == "pixels(1, 1, 1)" and digit_rows()[0].kind == DIGITS


def test_a_split_keeps_the_classes_in_proportion_and_every_row_once():
    rows = LabelledRows(torch.arange(100.0)[:, None], torch.arange(100) % 4)
    first, others = rows.split(0.25, seed=1)
    assert sorted(np.concatenate([first, others]).tolist()) == list(range(100))
    assert abs(rows.take(first).labels.bincount() - 6.25).max() < 1
    assert rows.draw(8).labels.bincount().tolist() == [2, 2, 2, 2] and rows.draw(1000) is rows
    assert torch.equal(rows.of_class(3)[:, 0], torch.arange(3.0, 100, 4))


@pytest.mark.parametrize(
    ("values", "labels", "says"),
    [
        (torch.zeros(3, 4), torch.zeros(2), r"give pixels \[N, c, h, w\] or vectors \[N, n\], and labels \[N\]"),
        (torch.zeros(3, 4, 4), torch.zeros(3), r"got \[3, 4, 4\]"),
        (torch.tensor([[0.0], [float("nan")]]), torch.zeros(2), "there are values that are not finite numbers"),
    ],
)
def test_other_rows_are_refused(values, labels, says):
    with pytest.raises(AtomError, match=says):
        LabelledRows(values, labels)
