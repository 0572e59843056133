"""The data of the separation study: labels by hand, and parts that share no row."""

import importlib.util

import numpy as np
import pytest

from atom_hf.data.load import load_data
from helpers.paths import ROOT

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def separation():
    spec = importlib.util.spec_from_file_location("separation", ROOT / "recipes" / "study" / "separation.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def naive_ink_and_slant(image):
    """The regression of a pixel's column on its row, each pixel weighted by its brightness."""
    pixels = [(i, j, value / 255) for i, row in enumerate(image.tolist()) for j, value in enumerate(row)]
    ink = sum(value for _, _, value in pixels)
    y, x = (sum(pixel[k] * pixel[2] for pixel in pixels) / ink for k in (0, 1))
    both = sum(value * (i - y) * (j - x) for i, j, value in pixels)
    return ink, both / sum(value * (i - y) ** 2 for i, _, value in pixels)


def test_ink_and_slant(separation):
    images = np.random.default_rng(0).integers(0, 256, (5, 6, 7)).astype(np.uint8)
    found = np.stack(separation.ink_and_slant(images), axis=1)
    np.testing.assert_allclose(found, [naive_ink_and_slant(image) for image in images])
    # A stroke that goes one column to the left per row downwards.
    stroke = 255 * np.eye(6, dtype=np.uint8)[:, ::-1][None]
    assert [value.item() for value in separation.ink_and_slant(stroke)] == pytest.approx([6, -1])


def test_classes_are_those_of_the_reference(separation):
    reference = np.arange(9)
    assert separation.quantile_classes(reference, reference, 3).tolist() == [0] * 3 + [1] * 3 + [2] * 3
    assert separation.quantile_classes(np.array([-5, 4, 99]), reference, 3).tolist() == [0, 1, 2]


def test_parts_share_no_row_and_test_rows_are_of_the_test_split(separation):
    found = separation.split_rows(6000, 3000)
    train, probe, test = (set(found[part][1].tolist()) for part in ("train", "probe", "test"))
    assert (len(train), len(probe), len(test)) == (5000, 1000, 2000) and not train & probe
    assert {part: split for part, (split, _) in found.items()} == {"train": "train", "probe": "train", "test": "test"}
    assert max(train | probe) < 6000 and max(test) < 3000


def test_tables_of_images_are_read_with_either_label(separation, tmp_path, monkeypatch):
    monkeypatch.setattr(separation, "PROBE", 30)
    rng = np.random.default_rng(1)
    arrays = {"x_train": rng.integers(1, 256, (90, 8, 8)).astype(np.uint8), "y_train": np.arange(90) % 10}
    arrays |= {"x_test": rng.integers(1, 256, (40, 8, 8)).astype(np.uint8), "y_test": np.arange(40) % 10}
    np.savez(tmp_path / "some.npz", **arrays)
    separation.write("mnist", separation.mnist(separation.load_source(str(tmp_path / "some.npz"), None, "x")), tmp_path)
    train, test = (str(tmp_path / f"mnist_{part}.parquet") for part in ("train", "test"))
    parity, digit = (load_data(train, eval_dataset=test, label_column=name) for name in ("parity", "digit"))
    assert (len(parity.train), len(parity.eval), parity.labels) == (60, 40, ["0", "1"])
    assert parity.train["label"][:] == [value % 2 for value in digit.train["label"][:]]
    written = load_data(train, eval_dataset=test, label_column="writing")
    # Terciles of ink: a third of the rows each.
    assert [sum(value // 3 == k for value in map(int, written.train["label"][:])) for k in range(3)] == [20] * 3
    assert np.array_equal(np.asarray(parity.eval["image"][0]), arrays["x_test"][0])


def test_wrong_labels_are_in_train_alone(separation):
    tables = {part: {"parity": np.arange(100) % 2} for part in ("train", "probe", "test")}
    found = separation.with_wrong_labels(tables, "parity")
    for percent in (20, 40):
        wrong = {part: (table[f"parity_{percent}"] != table["parity"]).sum() for part, table in found.items()}
        assert wrong == {"train": percent, "probe": 0, "test": 0}
    # What is wrong at 20 % is wrong at 40 % too.
    train = found["train"]
    assert ((train["parity_20"] != train["parity"]) <= (train["parity_40"] != train["parity"])).all()


def test_development_rows_are_those_of_train_in_three_parts(separation):
    rows = list(range(50))
    found = separation.development({"text": rows, "label": [row % 3 for row in rows]})
    assert {part: len(table["text"]) for part, table in found.items()} == {"probe": 5, "test": 5, "train": 40}
    assert sorted(row for table in found.values() for row in table["text"]) == rows
    assert all(label == row % 3 for table in found.values() for row, label in zip(*table.values(), strict=True))
