"""The studies of channels: the sprites that they render, and pages that are what their results give."""

import importlib
import json
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


@pytest.mark.parametrize("data", ["sprites", "digits"])
def test_the_page_of_vaes_is_that_of_their_results(modules, data):
    folder = FOLDER / data
    result = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert page == modules["vaes"].report(data, result), f"run vaes.py {data} --report_only"
    assert [row["strength"] for row in result["by beta"]] == list(modules["train_vaes"].BETAS[data])
    assert sorted(map(float, result["hotspots"])) == sorted(modules["train_vaes"].BETAS[data])


def test_the_page_of_selected_runs_is_that_of_their_results(modules):
    select = modules["select_runs"]
    lines = [json.loads(line) for line in select.RESULTS.read_text(encoding="utf-8").splitlines()]
    page = (select.HERE / "README.md").read_text(encoding="utf-8")
    assert page == select.report(lines), "run select_runs.py --report_only"
    assert [line["repeat"] for line in lines] == list(range(len(lines)))


def test_the_page_of_own_models_is_that_of_their_results(modules, tmp_path):
    own = modules["own_models_report"]
    results = own.read_results()
    assert (own.HERE / "README.md").read_text(encoding="utf-8") == own.report(results), (
        "run own_models.py --report_only"
    )
    for result in results:
        assert set(result["layers"]) == set(own.ARMS) and result["seeds"] == own.SEEDS[result["data"]]
    own.draw_layers(results, tmp_path / "drawn.png")
    assert (tmp_path / "drawn.png").read_bytes()[:4] == b"\x89PNG"


def test_fine_tunes_take_the_default_form_of_the_flag(modules, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert "atom_form" not in str(modules["fine_tunes"].ARMS)
    found = modules["fine_tunes"].trained("digits", 0, atom=True, max_train_samples=8, num_train_epochs=1)
    atoms = found.trainer.model.atom_config
    assert (atoms.form, atoms.weight) == ("separation", 0.5)
