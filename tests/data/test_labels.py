"""Classes: of every kind, and those of the evaluation data."""

import json

import datasets
import pytest

from atom_hf.data.load import load_data
from helpers.tables import error_of, labels, write, write_images

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.mark.promise("Data are read as they are meant, and what was left out or assumed is said.")
@pytest.mark.parametrize(
    ("values", "names"),
    [([2, -1, 0, -1], ["-1", "0", "2"]), ([True, False] * 2, ["False", "True"]), (list("baba"), ["a", "b"])],
)
def test_labels_of_every_kind(tmp_path, values, names):
    path = write(tmp_path / "d.parquet", {"text": list("abcd"), "label": values})
    data = load_data(path, eval_dataset=path)
    assert data.labels == data.train.features["label"].names == names
    assert [names[label] for label in labels(data.train)] == [str(value) for value in values]


@pytest.mark.promise("Data are read as they are meant, and what was left out or assumed is said.")
def test_classes_of_evaluation_data_are_matched_by_name(tmp_path, monkeypatch):
    def part(names, ids):
        rows = datasets.Dataset.from_dict({"text": list("abcd"), "label": ids})
        return rows.cast_column("label", datasets.ClassLabel(names=names))

    part(["no", "yes", "maybe"], [0, 1, 0, 1]).to_parquet(tmp_path / "a.parquet")
    part(["yes", "no"], [0, 1, 1, 0]).to_parquet(tmp_path / "b.parquet")
    data = load_data(str(tmp_path / "a.parquet"), eval_dataset=str(tmp_path / "b.parquet"))
    assert data.labels == ["no", "yes", "maybe"] and labels(data.eval) == [1, 0, 0, 1]


@pytest.mark.promise("Data that cannot be read, or could mean several things, are rejected in one line.")
@pytest.mark.parametrize(
    ("values", "what"),
    [
        ([0.5, 1.5, 0.5, 1.5], "--label_column 'label' holds float64 (regression is not supported); give one of int"),
        ([[0], [1], [0], [1]], "--label_column 'label' holds lists; give one of integers or strings"),
        (["a", None, "b", None], "2 of 4 rows have no label in 'label'; fill or remove them"),
        ([0, 0, 0, 0], "--label_column 'label' has one class only, '0'; give data with two or more"),
    ],
)
def test_labels_that_are_no_classes(tmp_path, values, what):
    path = tmp_path / "d.jsonl"
    lines = [json.dumps({"text": f"text {i}", "label": value}) for i, value in enumerate(values)]
    path.write_text("\n".join(lines))
    assert what in error_of(str(path))


@pytest.mark.promise("Data that cannot be read, or could mean several things, are rejected in one line.")
def test_one_class_of_images(tmp_path):
    assert "has one class only, 'cat'" in error_of(write_images(tmp_path, {"cat": 4}))


@pytest.mark.promise("Data that cannot be read, or could mean several things, are rejected in one line.")
def test_identifiers_are_no_classes(tmp_path):
    rows = {"text": [f"t{i}" for i in range(51)], "key": range(51)}
    path = write(tmp_path / "d.csv", rows)
    assert "--label_column 'key' has as many classes as rows (51)" in error_of(path, label_column="key")
