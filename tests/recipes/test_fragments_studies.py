"""The studies of channels: the sprites that they render, and pages that are what their results give."""

import importlib
import sys

import numpy as np
import pytest

from helpers.paths import ROOT

FOLDER = ROOT / "recipes" / "fragments"
NAMES = ("sprites", "fine_tunes", "train_vaes", "vaes", "select_runs", "own_models_report", "own_models")


@pytest.fixture(scope="module")
def modules():
    """The modules of the recipe; they find each other as scripts of one folder do."""
    sys.path.insert(0, str(FOLDER))
    yield {name: importlib.import_module(name) for name in NAMES}
    sys.path.remove(str(FOLDER))
    for name in NAMES:
        sys.modules.pop(name)


def test_sprites_cover_the_pixels_that_they_lie_on(modules):
    sprites, fine = modules["sprites"], 40
    factors = sprites.draw_factors(5, seed=3)
    assert (factors >= sprites.LOW).all() and (factors <= sprites.HIGH).all()
    side = sprites.SIDE * fine
    places = (np.arange(side) + 0.5) / side
    for image, (x, y, half) in zip(sprites.render(factors), factors, strict=True):
        inside = (abs(places[:, None] - y) < half) & (abs(places[None] - x) < half)
        counted = inside.reshape(sprites.SIDE, fine, sprites.SIDE, fine).mean((1, 3))
        np.testing.assert_allclose(image[0], counted, atol=2 / fine)
    np.testing.assert_array_equal(factors, sprites.draw_factors(5, seed=3))


def test_the_data_of_digits_are_the_built_in_ones(modules):
    data = modules["train_vaes"].make_data("digits", None)
    assert data["x_train"].shape == (1000, 8, 8) and data["x_test"].shape == (797, 8, 8)
    assert data["x_train"].dtype == np.uint8 and set(data["y_test"]) == set(range(10))


def test_an_ensemble_is_measured_on_images_that_chose_nothing(modules):
    select = modules["select_runs"]
    rng = np.random.default_rng(0)
    labels = rng.integers(10, size=797)
    logits = (
        rng.normal(size=(select.MODELS, 797, 10))
        + 2 * np.eye(10)[labels] * np.linspace(0, 2, select.MODELS)[:, None, None]
    )
    probabilities = np.exp(logits) / np.exp(logits).sum(2, keepdims=True)
    found = select.measure(probabilities, labels, seed=1)
    order = np.random.default_rng(1).permutation(797)[select.CHOOSING :]
    right = probabilities[:, order].mean(0).argmax(1) == labels[order]
    assert found["all"] == pytest.approx(right.mean())
    assert found["accuracy"] >= found["random"] > found["single"] > 0.1
