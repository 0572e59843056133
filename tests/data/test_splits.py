"""Which rows are trained on, and which are evaluated on."""

import logging
from collections import Counter

import datasets
import numpy as np
import pytest

from atom_hf.data.load import load_data
from atom_hf.data.splits import stratified_rows
from helpers.tables import error_of, labels, on_hub, texts, write

pytestmark = pytest.mark.usefixtures("own_cache")


def test_stratified_rows():
    classes = np.repeat([0, 1, 2, 3], [700, 200, 99, 1])
    rows = stratified_rows(classes, 100, 0)
    assert [*np.bincount(classes[rows])] == [70, 20, 9, 1] and len({*rows}) == 100
    assert (rows == stratified_rows(classes, 100, 0)).all() and (rows != stratified_rows(classes, 100, 1)).any()
    assert [*np.bincount(classes[stratified_rows(classes, 4, 0)])] == [1, 1, 1, 1]
    assert len(stratified_rows(classes, 2, 0)) == 2 and len(stratified_rows(classes, 1000, 0)) == 1000


def test_samples_are_drawn(tmp_path, caplog):
    data = load_data("verse", max_train_samples=64, max_eval_samples=10, sample_seed=3)
    assert Counter(labels(data.train)) == {0: 32, 1: 32} and Counter(labels(data.eval)) == {0: 5, 1: 5}
    again = load_data("verse", max_train_samples=64, sample_seed=3)
    assert texts(again.train) == texts(data.train)
    assert texts(load_data("verse", max_train_samples=64, sample_seed=4).train) != texts(data.train)
    (tmp_path / "a.txt").write_text("\n".join(f"line {i}" for i in range(100)))
    with caplog.at_level(logging.INFO, "atom_hf"):
        data = load_data(str(tmp_path / "a.txt"), max_train_samples=10, max_eval_samples=1000)
    assert (len(data.train), len(data.eval)) == (10, 20)
    assert "--max_eval_samples is 1000 and there are 20 rows: all are used" in caplog.text


def test_rows_are_held_out_even_where_there_is_a_split_to_evaluate_on():
    """What settings are chosen by must not be what judges them."""
    whole = load_data("digits")
    data = load_data("digits", hold_out=True, eval_fraction=0.3, sample_seed=2)
    assert (len(data.train), len(data.eval)) == (700, 300)

    def images(rows):
        return Counter(np.asarray(image).tobytes() for image in rows["image"])

    assert images(data.train) + images(data.eval) == images(whole.train)
    assert images(load_data("digits", hold_out=True, eval_fraction=0.3, sample_seed=2).eval) == images(data.eval)
    few = load_data("digits", hold_out=True, eval_fraction=0.3, sample_seed=2, max_train_samples=20)
    assert images(few.eval) == images(data.eval) and not images(few.train) - images(data.train)
    for other in ({"eval_split": "test"}, {"eval_dataset": "digits"}):
        assert error_of("digits", hold_out=True, **other).startswith("--hold_out evaluates on training rows; leave out")


def parts_of(monkeypatch, counts):
    texts = {split: [f"{split} {i}" for i in range(count)] for split, count in counts.items()}
    kinds = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    columns = {split: {"text": rows, "label": [i % 2 for i in range(len(rows))]} for split, rows in texts.items()}
    on_hub(monkeypatch, {split: (rows, kinds) for split, rows in columns.items()})
    return texts


def test_splits_are_joined_by_a_plus(monkeypatch):
    lines = parts_of(monkeypatch, {"train": 8, "validation": 4, "test": 6})
    data = load_data("someone/poems", eval_split="validation+test")
    assert texts(data.train) == lines["train"] and texts(data.eval) == lines["validation"] + lines["test"]
    data = load_data("someone/poems", eval_dataset="someone/poems", eval_split="test+validation")
    assert texts(data.eval) == lines["test"] + lines["validation"]
    message = error_of("someone/poems", eval_split="validation+dev")
    assert message.startswith("--eval_split 'validation+dev': 'someone/poems' has no such split; give one of train,")


@pytest.mark.promise("Data are read as they are meant, and what was left out or assumed is said.")
def test_a_split_that_is_trained_on_is_not_what_is_evaluated_on(monkeypatch):
    lines = parts_of(monkeypatch, {"train": 8, "validation": 4, "test": 6})
    data = load_data("someone/poems", train_split="train+validation")
    assert texts(data.train) == lines["train"] + lines["validation"] and texts(data.eval) == lines["test"]


@pytest.mark.promise("Data are read as they are meant, and what was left out or assumed is said.")
def test_held_out_rows_leave_every_class_to_train_on(tmp_path):
    rows = {"text": [f"t{i}" for i in range(21)], "label": ["a"] * 10 + ["b"] * 10 + ["rare"]}
    data = load_data(write(tmp_path / "d.csv", rows), eval_fraction=0.5)
    assert set(labels(data.train)) == {0, 1, 2} and not {*texts(data.train)} & {*texts(data.eval)}
    assert len(data.train) + len(data.eval) == 21
