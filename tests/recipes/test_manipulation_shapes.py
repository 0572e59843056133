"""Drawn shapes and what edits keep of their factors, against definitions written out."""

import importlib
import sys

import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score

from helpers.paths import ROOT

FOLDER = ROOT / "recipes" / "manipulation"


@pytest.fixture(scope="module")
def modules():
    """The modules of the study; they find each other as scripts of one folder do."""
    names = ("drawn_shapes", "shapes", "embeddings")
    sys.path.insert(0, str(FOLDER))
    yield {name: importlib.import_module(name) for name in names}
    sys.path.remove(str(FOLDER))
    for name in names:
        sys.modules.pop(name)


def inside(shape, x, y, half, places):
    """Whether the points of a grid are in a shape."""
    across, down = abs(places[None] - x), places[:, None] - y
    if shape == "square":
        return (across <= half) & (abs(down) <= half)
    if shape == "disc":
        return across**2 + down**2 <= half**2
    # From the tip, at the middle of the upper side, to the whole of the lower one.
    share = (down + half) / (2 * half)
    return (share <= 1) & (across <= share * half)


def test_shapes_cover_the_pixels_that_they_lie_on(modules):
    drawn, fine = modules["drawn_shapes"], 16
    shapes, factors = drawn.draw_factors(30, 3)
    images, side = drawn.render(shapes, factors), drawn.SIDE
    assert images.shape == (30, 1, side, side) and images.dtype == np.float32
    places = (np.arange(side * fine) + 0.5) / (side * fine)
    for image, shape, (x, y, half, shade) in zip(images[:, 0], shapes, factors, strict=True):
        points = inside(drawn.NAMES[shape], x, y, half, places)
        covered = points.reshape(side, fine, side, fine).mean((1, 3))
        # At a corner, the distance to the edges tells the covered share of a pixel only roughly.
        difference = abs(image / shade - covered)
        assert difference.max() < 0.35 and difference.mean() < 0.01


def test_a_shape_is_moved_and_shaded_by_its_factors(modules):
    drawn = modules["drawn_shapes"]
    for shape in range(len(drawn.NAMES)):
        one, moved, dark = drawn.render(
            np.full(3, shape), np.array([[0.5, 0.5, 0.2, 0.8], [0.55, 0.4, 0.2, 0.8], [0.5, 0.5, 0.2, 0.4]])
        )
        np.testing.assert_allclose(np.roll(one, (-2, 1), (1, 2)), moved, atol=1e-5)
        np.testing.assert_allclose(one / 2, dark, atol=1e-6)


def test_factors_do_not_tell_the_shape(modules):
    drawn = modules["drawn_shapes"]
    shapes, factors = drawn.draw_factors(6000, 1)
    assert np.bincount(shapes).tolist() == [2000, 2000, 2000]
    assert (factors >= drawn.LOW).all() and (factors <= drawn.HIGH).all()
    for shape in range(3):
        np.testing.assert_allclose(factors[shapes == shape].mean(0), (drawn.LOW + drawn.HIGH) / 2, atol=0.015)
    again = drawn.draw_factors(6000, 1)
    np.testing.assert_array_equal(again[0], shapes)
    np.testing.assert_array_equal(again[1], factors)
    assert (drawn.draw_factors(6000, 2)[1] != factors).any()


def test_the_parts_of_a_seed_are_drawn_apart(modules):
    first = [modules["shapes"].Shapes(0, part) for part in ("train", "judge", "test")]
    assert [len(one.rows) for one in first] == list(modules["shapes"].ROWS.values())
    assert all(not torch.equal(first[0].factors[:400], one.factors[:400]) for one in first[1:])
    assert not torch.equal(first[0].factors, modules["shapes"].Shapes(1, "train").factors)


def test_what_is_kept_is_r2_and_size_may_be_a_function(modules):
    kept, generator = modules["shapes"].kept_factors, torch.Generator().manual_seed(0)
    before, noise = torch.rand(60, 4, generator=generator), torch.randn(60, 4, generator=generator)
    pairs = torch.arange(60) % 2
    assert list(kept(before, before, pairs).values()) == pytest.approx([1.0] * 5)
    found = kept(before, before + 0.1 * noise, pairs)
    wanted = r2_score(before.numpy(), (before + 0.1 * noise).numpy(), multioutput="raw_values")
    assert [found[name] for name in modules["drawn_shapes"].FACTORS] == pytest.approx(wanted.tolist(), rel=1e-4)
    # A square becomes a larger disc and a disc a smaller square: another size, but a function of what it was.
    resized = before.clone()
    resized[pairs == 0, 2] = 1.5 * before[pairs == 0, 2]
    resized[pairs == 1, 2] = before[pairs == 1, 2] / 1.5 - 0.3
    found = kept(before, resized, pairs)
    assert found["size_as_function"] == pytest.approx(1, abs=1e-5) and found["size"] < 0.5
    forgotten = before.clone()
    forgotten[:, 2] = 0.5
    found = kept(before, forgotten, pairs)
    assert found["size_as_function"] == 0 and found["size"] <= 0


def test_the_reader_of_factors_learns_them(modules, monkeypatch, tmp_path):
    shapes = modules["shapes"]
    monkeypatch.setattr(shapes, "READER_STEPS", 60)
    monkeypatch.setitem(shapes.ROWS, "judge", 600)
    args = shapes.ManipulatorArguments(str(tmp_path), report_to="none", use_cpu=True, disable_tqdm=True)
    judging = shapes.Shapes(0, "judge")
    reader, low, high = shapes.factor_reader(judging, args), *map(torch.tensor, (shapes.LOW, shapes.HIGH))
    monkeypatch.setitem(shapes.ROWS, "test", 100)
    test = shapes.Shapes(0, "test")
    read = reader(test.rows.values)
    assert read.shape == (100, 4)
    r2 = r2_score(test.factors.numpy(), read.numpy(), multioutput="raw_values")
    assert (r2[:2] > 0.5).all() and ((read > low - 0.3) & (read < high + 0.3)).all()
