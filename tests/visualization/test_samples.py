"""The table of all samples: its columns, its cells, and what they are sorted by."""

from dataclasses import replace

import numpy as np
import pytest

from atom_hf.visualization.samples import sample_columns, sample_name
from helpers.importances import NAN, atom, picture, sample_set, text


def test_columns_hold_the_values_of_the_results():
    results = sample_set(6)
    results = results["images"] + results["texts"]
    columns = {column.title: column for column in sample_columns(results)}
    assert list(columns) == [
        "sample", "true", "predicted", "confidence", "net charge", "radius", "mean |importance|", "tokens",
    ]  # fmt: skip
    for row, result in enumerate(results):
        values = result.importance if hasattr(result, "image") else [word.importance for word in result.words]
        numbers = {
            "confidence": result.confidence,
            "net charge": result.atom.positive - result.atom.negative,
            "radius": result.atom.radius,
            "mean |importance|": float(np.abs(values).mean()),
            "tokens": np.size(values),
        }
        for title, number in numbers.items():
            assert columns[title].numeric and float(columns[title].cells[row][1]) == pytest.approx(number, rel=1e-8)
        assert columns["true"].cells[row] == (result.label,) * 2


def test_columns_that_nothing_is_known_of_are_left_out_and_gaps_are_marked():
    results = [text("a b", [0.5, NAN]), text("c", [NAN], atom=atom(0.2, 0.1, [0], 1.5))]
    columns = {column.title: column.cells for column in sample_columns(results)}
    assert list(columns) == ["sample", "net charge", "radius", "mean |importance|", "tokens"]
    assert columns["radius"] == [("", ""), ("1.50", "1.5")] and columns["net charge"][1][0] == "+0.10"
    assert columns["mean |importance|"] == [("0.50", "0.5"), ("", "")] and columns["tokens"][1] == ("0", "0")


def test_names():
    assert sample_name(text("a\n  b", [0, 0]), 3) == "a b" and sample_name(text("", []), 3) == "text 3"
    assert sample_name(replace(text("a", [0]), pair="b"), 1) == "a / b"
    assert len(sample_name(text("word " * 99, [0] * 99), 1)) < 64
    assert sample_name(picture([[0]]), 7) == "picture 7" and sample_name(picture([[0]], name="x.png"), 7) == "x.png"
