"""Relations between samples: what the picture shows, and what it rejects."""

import numpy as np
import pytest
from PIL import Image

from atom_hf.errors import AtomError
from atom_hf.visualization.relations_picture import Panel, write_relations

LABELS = [str(i % 4) for i in range(40)]
CLASSES = ["odd" if i % 2 else "even" for i in range(40)]


def features_of(spread):
    """Each label at a corner, those of one class `spread` apart from each other and 1 from the other class."""
    corners = np.array([[0, 0], [1, 0], [0, spread], [1, spread]], dtype=float)
    return corners[[int(label) for label in LABELS]] + np.random.default_rng(0).normal(0, 0.01, (40, 2))


def shape(path):
    with Image.open(path) as image:
        return image.size


def dark(path, column):
    """The share of dark pixels in the square of distances of one panel of two."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("L"), dtype=float)
    height, width = pixels.shape
    square = pixels[int(height * 0.12) : int(height * 0.38), int(width * (0.08 + 0.44 * column)) :]
    return (square[:, : int(width * 0.3)] < 45).mean()


def test_a_model_that_tells_labels_apart_has_fewer_dark_squares(tmp_path):
    panels = [Panel("plain", features_of(0.0)), Panel("atom", features_of(1.0))]
    path = write_relations(tmp_path / "relations.png", panels, CLASSES, LABELS, caption="Trained to tell even from odd")
    # Of one label and of one class a half of the pairs, of one label a quarter.
    assert dark(path, 0) > 1.5 * dark(path, 1) > 0.15
    again = write_relations(tmp_path / "again.png", panels, CLASSES, LABELS, caption="Trained to tell even from odd")
    assert path.read_bytes() == again.read_bytes()


def test_many_samples_labels_and_features_of_one_column(tmp_path):
    labels = [f"label {i % 60}" for i in range(1200)]
    path = write_relations(tmp_path / "many.png", [Panel("one", np.arange(1200.0)[:, None])], labels, labels)
    assert min(shape(path)) > 300
    path = write_relations(tmp_path / "same.png", [Panel("one", np.zeros((5, 3)))], ["a"] * 5, ["b"] * 5)
    assert min(shape(path)) > 300


@pytest.mark.parametrize(
    ("panels", "labels", "message"),
    [
        ([], ["a", "b"], "one panel"),
        ([Panel("one", np.zeros((1, 3)))], ["a"], "two samples"),
        ([Panel("one", np.zeros((3, 3)))], ["a", "b"], "must have 2 rows"),
        ([Panel("one", np.full((2, 3), np.nan))], ["a", "b"], "'one' are not finite"),
    ],
)
def test_rejects(tmp_path, panels, labels, message):
    with pytest.raises(AtomError, match=message):
        write_relations(tmp_path / "x.png", panels, labels, labels)
