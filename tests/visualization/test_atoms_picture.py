"""The atoms as a PNG: marks where the drawing has them, in the colour of their class."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from atom_hf.errors import AtomError
from atom_hf.visualization import charts
from atom_hf.visualization.atoms_map import map_atoms
from atom_hf.visualization.atoms_picture import FINE, write_atoms
from atom_hf.visualization.colors import CLASSES
from atom_hf.visualization.samples import SHAPES
from helpers.importances import HOSTILE, atom, random_atoms, sample_set, text


def pixels_of(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"), int)


def test_marks_stand_where_the_drawing_has_them(tmp_path):
    results = [text("a", [0.5], atom=one, label=f"class {i}") for i, one in enumerate(random_atoms(SHAPES, width=3))]
    pixels = pixels_of(write_atoms(tmp_path / "new" / "atoms.png", results))
    drawn = charts.drawing(map_atoms([result.atom for result in results]))
    for x, y, _, i in drawn.spots:
        middle = pixels[round(y * FINE / 2), round(x * FINE / 2)]
        assert np.abs(middle - CLASSES[i]).max() < 30


def test_a_wrong_sample_is_ringed(tmp_path):
    # So far apart that nothing else is drawn around a mark.
    results = [text("a", [0.5], label="a", predicted="a", atom=atom(0.5, 0.1, [10 * i, i % 2], 0.0)) for i in range(4)]
    (x, y, _, _) = charts.drawing(map_atoms([result.atom for result in results])).spots[0]
    around = []
    for label in ("a", "b"):
        results[0] = replace(results[0], label=label)
        pixels = pixels_of(write_atoms(tmp_path / "atoms.png", results))
        around.append(pixels[round((y - 8.2) * FINE / 2), round(x * FINE / 2)].sum())
    assert around[0] > 700 and around[1] < 300


def test_sets_of_every_kind(tmp_path):
    samples = sample_set(4)
    both = samples["images"] + samples["texts"]
    assert pixels_of(write_atoms(tmp_path / "atoms.png", both)).shape[1] == charts.MAP * FINE // 2
    many = [text("a", [0.5], atom=one, label=f"{HOSTILE} {i}") for i, one in enumerate(random_atoms(200, width=4))]
    write_atoms(tmp_path / "atoms.png", many, softening=0.1)
    coincident = [text("a", [0.5], atom=atom(0.5, 0.1, [1, 1], 0.0))] * 2
    write_atoms(tmp_path / "atoms.png", coincident)


def test_error_messages(tmp_path):
    with pytest.raises(AtomError, match="two atoms"):
        write_atoms(tmp_path / "atoms.png", [text("a", [0.5])])
    with pytest.raises(AtomError, match="importance up to 7"):
        write_atoms(tmp_path / "atoms.png", [text("a", [7])])
    assert not list(tmp_path.iterdir())
