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


def objects(path, values):
    path.write_text("\n".join(json.dumps({"text": f"text {i}", "label": value}) for i, value in enumerate(values)))
    return str(path)


@pytest.mark.parametrize(
    ("values", "names", "kinds"),
    [
        ([0, "other", 1, "other"], ["0", "1", "other"], "integers and strings"),
        ([10, "b", 2, "b"], ["10", "2", "b"], "integers and strings"),
        ([True, "maybe", False, "maybe"], ["False", "True", "maybe"], "true and false and strings"),
    ],
)
def test_labels_of_several_kinds_are_classes_of_their_texts(tmp_path, values, names, kinds, caplog):
    with caplog.at_level("INFO", "atom_hf"):
        data = load_data(objects(tmp_path / "d.jsonl", values * 2))
    assert data.labels == names
    assert f"labels in 'label' are {kinds}: each is the class of its text" in caplog.text


@pytest.mark.parametrize(
    ("values", "kinds"),
    [([["a"], "a"], "lists and strings"), ([{"a": 1}, "a"], "objects"), ([0.5, "a"], "floats and strings")],
)
def test_labels_of_several_kinds_that_are_no_classes(tmp_path, values, kinds):
    message = error_of(objects(tmp_path / "d.jsonl", values * 4))
    assert message.startswith("--label_column 'label' holds ") and kinds in message


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("blank", [" ", "\t", "\u00a0"])
def test_blanks_around_labels_make_no_class(tmp_path, suffix, blank, caplog):
    rows = {"text": [f"text {i}" for i in range(8)], "label": ["pos", f"neg{blank}", f"{blank}pos", "neg"] * 2}
    with caplog.at_level("INFO", "atom_hf"):
        data = load_data(write(tmp_path / f"d{suffix}", rows))
    assert data.labels == ["neg", "pos"]
    assert "blanks around 4 labels in 'label' are left out" in caplog.text


def test_blanks_around_labels_of_the_evaluation_data(tmp_path):
    rows = {"text": list("abcd"), "label": ["x", "y"] * 2}
    other = write(tmp_path / "e.csv", {**rows, "label": ["x ", "y "] * 2})
    assert labels(load_data(write(tmp_path / "d.csv", rows), eval_dataset=other).eval) == [0, 1, 0, 1]


def test_a_blank_label_is_none(tmp_path):
    path = objects(tmp_path / "d.jsonl", ["a", "b", " ", ""])
    assert "2 of 4 rows have no label in 'label'; fill or remove them" in error_of(path)


@pytest.mark.parametrize("same", [("Pos", "pos"), ("caf\u00e9", "cafe\u0301"), ("A", "\uff21")])
def test_classes_that_differ_in_spelling_only_are_said(tmp_path, same, caplog):
    rows = {"text": [f"text {i}" for i in range(8)], "label": [*same] * 4}
    assert len(load_data(write(tmp_path / "d.jsonl", rows)).labels) == 2
    assert "differ only in spelling, and count as different classes" in caplog.text


def test_as_many_classes_as_texts_are_said(tmp_path, caplog):
    rows = {"text": [f"text {i}" for i in range(40)], "label": [f"answer {max(i, 5)}" for i in range(40)]}
    load_data(write(tmp_path / "d.csv", rows))
    assert "--label_column 'label' has 35 classes in 40 rows: is it a column of classes?" in caplog.text
