"""Pictures of channels: the same each time, with what they must show, at the edges too."""

import numpy as np
import pytest
from PIL import Image

from atom_hf.visualization.channels_picture import (
    write_fusion,
    write_reachability,
    write_regularization,
    write_similarity,
)
from atom_hf.visualization.colors import CLASSES

RNG = np.random.default_rng(0)


def colors(path):
    with Image.open(path) as image:
        return {color: count for count, color in image.convert("RGB").getcolors(2**24)}


def ensemble(count):
    nmi = RNG.uniform(0, 1.2, (count, count))
    reachability = np.r_[np.inf, RNG.uniform(0.1, 1, count - 1)]
    hotspots = np.r_[np.zeros(count // 2, int), np.full(count - count // 2, -1)]
    return (nmi + nmi.T) / 2, reachability, hotspots, [f"run {n} latent" for n in range(count)]


@pytest.mark.parametrize("count", [2, 12, 60])
def test_similarity_shows_hotspots_and_labels(count, tmp_path):
    given = ensemble(count)
    plain = write_similarity(tmp_path / "a.png", *given)
    again = write_similarity(tmp_path / "b.png", *given)
    assert plain.read_bytes() == again.read_bytes()
    assert colors(plain)[CLASSES[0]] > 20  # the bars of the first hotspot
    labelled = write_similarity(tmp_path / "c.png", *given, to_labels=RNG.uniform(0, 1, count))
    assert colors(labelled)[CLASSES[0]] > colors(plain)[CLASSES[0]]


@pytest.mark.parametrize("hotspots", [[-1, -1, -1], [0, 0, 1]])
def test_reachability_of_all_kinds(hotspots, tmp_path):
    for reachability in ([np.inf, np.inf, np.inf], [np.inf, 0.0, 0.0], [np.inf, 0.2, 0.4]):
        path = write_reachability(tmp_path / "r.png", np.array(reachability), np.array(hotspots), list("abc"))
        assert (CLASSES[0] in colors(path)) == (0 in hotspots)


def test_a_regularization_without_hotspots_says_so(tmp_path):
    base = {"runs": 2, "channels": 4, "informative": 4}
    some = {**base, "strength": 1.0, "hotspots": 2, "size": 3.0, "bits": 1.5, "nearest": 0.8, "nearest_error": 0.1}
    none = {**base, "strength": 4.0, "hotspots": 0, "size": None, "bits": None, "nearest": None, "nearest_error": None}
    path = write_regularization(tmp_path / "r.png", "beta", [some, none])
    assert CLASSES[0] in colors(path)
    assert write_regularization(tmp_path / "n.png", "beta", [none]).stat().st_size > 5_000


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_a_fusion_in_any_number_of_dimensions(dimensions, tmp_path):
    mean = RNG.normal(size=(20, dimensions))
    bars = {"fusion": (0.9, 1.5), "best single": (0.5, 1.1)}
    rest = (np.full_like(mean, 0.2), np.linspace(0, 1, 30), bars)
    path = write_fusion(tmp_path / "f.png", mean, *rest, RNG.integers(0, 3, 20), ["a", "b"], "vi")
    assert {CLASSES[0], CLASSES[1]} <= set(colors(path))
    assert write_fusion(tmp_path / "g.png", mean, *rest, None).is_file()
