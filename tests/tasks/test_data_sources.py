"""Data sets as the sources of a task."""

import numpy as np
import pandas as pd
import pytest
import torch

from atom_hf import AtomError
from atom_hf.data.load import load_data
from atom_hf.tasks import read_task
from atom_hf.tasks.data_sources import DataBinding, data_binding, load_columns
from helpers.models import make_tokenizer

pytestmark = pytest.mark.usefixtures("own_cache", "digits_once")


def source(types, name="D"):
    kinds = "type image = pixels(1, 8, 8), label = class(10), point = vector(64), pair = vector(2)\n"
    more = "type small = pixels(3, 4, 4), text = tokens(800), level = scalar, few = class(2)\n"
    wires = types.split(", ")
    names = ", ".join("_" if i else "x" for i in range(len(wires)))
    spec = read_task(
        f"{kinds}{more}data D : {types}\nlearner f : {wires[0]} -> point\nfor {names} in D:\n    a: f(x) == f(x)\n"
    )
    return spec.sources[name]


def test_digits_are_pixels_and_labels():
    train, evaluation = load_columns(source("image, label"), DataBinding("digits", max_train_samples=50))
    data = load_data("digits", max_train_samples=50)
    assert len(train[0]) == len(train[1]) == 50 and len(evaluation[0]) == 797
    for row in (0, 7, 49):
        pixels = np.asarray(data.train[row]["image"], dtype=np.float32) / 255
        assert (
            torch.equal(train[0].row(row), torch.as_tensor(pixels)[None])
            and train[1].row(row) == data.train[row]["label"]
        )


def test_an_image_is_a_point_too_and_takes_another_size():
    (points,), _ = load_columns(source("point"), DataBinding("digits", max_train_samples=5))
    (images,), _ = load_columns(source("image"), DataBinding("digits", max_train_samples=5))
    assert torch.equal(points.row(3), images.row(3).flatten())
    (small,), _ = load_columns(source("small"), DataBinding("digits", max_train_samples=5))
    assert small.row(3).shape == (3, 4, 4) and torch.equal(small.row(3)[0], small.row(3)[2])


@pytest.fixture
def table(tmp_path):
    rng = np.random.default_rng(0)
    rows = {
        "x": rng.normal(size=40),
        "y": rng.normal(size=40),
        "kind": rng.integers(2, size=40),
        "text": ["the sea is calm"] * 40,
    }
    pd.DataFrame(rows).to_csv(tmp_path / "table.csv", index=False)
    return str(tmp_path / "table.csv"), rows


def test_columns_of_numbers_are_vectors_and_scalars(table):
    path, rows = table
    binding = DataBinding(path, columns=(("x", "y"), "kind", "x"), eval_fraction=0.25)
    train, evaluation = load_columns(source("pair, few, level"), binding)
    assert [len(part[0]) for part in (train, evaluation)] == [30, 10]
    found = torch.cat([train[0].values, evaluation[0].values])
    order = [np.argmin(np.abs(rows["x"] - float(x))) for x in found[:, 0]]
    assert sorted(order) == list(range(40)) and np.allclose(found[:, 1], rows["y"][order])
    kinds = torch.cat([train[1].values, evaluation[1].values])
    assert kinds.tolist() == rows["kind"][order].tolist()
    assert torch.equal(torch.cat([train[2].values, evaluation[2].values]), found[:, 0])


def test_texts_are_encoded(table):
    (texts,), _ = load_columns(source("text"), DataBinding(table[0], columns=("text",)), make_tokenizer())
    assert texts.row(0).tolist() == make_tokenizer()("the sea is calm")["input_ids"]


@pytest.mark.parametrize(
    ("types", "options", "says"),
    [
        ("image, label", {"dataset": "nosuch.csv"}, "data D: --dataset 'nosuch.csv': there is no such file or folder"),
        ("image, few", {}, r"data D: D.2 \(few\): the data has 10 classes, and class\(2\) has 2"),
        ("text", {}, r"data D: 'digits' has image, label and nothing for text; name its columns"),
        ("image, image", {}, "data D: it has several columns of pixels; name the data set's columns"),
        ("pair", {}, r"data D: D.1 \(pair\): pictures of 64 pixels are no vector\(2\); give their size"),
        ("image", {"columns": ("image", "label")}, "data D: columns names 2, and D has 1"),
        ("image", {"columns": ("picture",)}, "data D: 'digits' has no column picture; it has image, label"),
        ("pair", {"columns": (("label", "image"),)}, r"D.1 \(pair\): label, image must hold numbers"),
        (
            "pair",
            {"columns": (("label",),)},
            r"1 columns of numbers are no vector\(2\); give 2 for a vector of as many",
        ),
        ("pair", {"columns": ("label",)}, r"column 'label' holds neither pictures nor lists of 2 numbers"),
        ("label", {"columns": ("image",)}, r"D.1 \(label\): column 'image' holds pictures, and class\(10\) is none"),
        ("text", {"columns": ("label",)}, "D.1 .text.: no box that takes it is a model with a tokenizer; bind one"),
    ],
)
def test_data_that_does_not_fit_is_refused(types, options, says):
    with pytest.raises(AtomError, match=says):
        load_columns(source(types), DataBinding(**{"dataset": "digits", **options}))


def test_a_tokenizer_of_more_pieces_is_refused(table):
    with pytest.raises(AtomError, match=r"the tokenizer has \d+ pieces, and tokens\(800\) has 800"):
        tokenizer = make_tokenizer()
        many = type(tokenizer)(vocab={f"w{i}": i for i in range(900)} | {"[UNK]": 900, "[PAD]": 901})
        load_columns(source("text"), DataBinding(table[0], columns=("text",)), many)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (3, "data D: give the name or path of a data set, or 'dataset: ...' and options, got 3"),
        ({"columns": ["x"]}, "data D: give the name or path of a data set"),
        ({"dataset": "digits", "rows": 3}, "data D: no such option: rows; there are dataset, columns"),
        (
            {"dataset": "digits", "max_train_samples": "many"},
            "data D: max_train_samples must be a whole number, got 'many'",
        ),
        ({"dataset": "digits", "columns": "x"}, "data D: columns must be a list, got 'x'"),
        ({"dataset": "digits", "columns": [3]}, "data D: columns are names, or lists of names of numbers, got .3."),
    ],
)
def test_a_binding_that_cannot_be_is_refused(given, says):
    with pytest.raises(AtomError, match=says):
        data_binding("D", given)


def test_a_binding_is_a_name_or_a_mapping():
    assert data_binding("D", "digits") == DataBinding("digits")
    given = {"dataset": "digits", "columns": ["a", ["b", "c"]], "eval_fraction": 0.5}
    assert data_binding("D", given) == DataBinding("digits", ("a", ("b", "c")), eval_fraction=0.5)
