"""The studies of channels: the sprites that they render, and pages that are what their results give."""

import importlib
import json
import sys

import numpy as np
import pytest
import torch

from atom_hf.fragments import Channel
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


def test_the_four_whose_mean_is_closest_to_that_of_all(modules):
    select = modules["select_runs"]
    probabilities = np.random.default_rng(0).dirichlet(np.ones(3), size=(6, 20))
    aim = probabilities.mean(0)

    def divergence(runs):
        mean = sum(probabilities[run] for run in runs) / len(runs)
        return sum(q * np.log(q / p) for q, p in zip(aim.flat, mean.flat, strict=True))

    expected = []
    for _ in range(select.CHOSEN):
        expected.append(min(set(range(6)) - set(expected), key=lambda run: divergence([*expected, run])))
    assert select.closest_to_all(probabilities) == expected


def page_of(name, modules):
    """What a study's page is by its committed results."""
    if name == "select":
        lines = modules["select_runs"].RESULTS.read_text(encoding="utf-8").splitlines()
        return modules["select_runs"].report([json.loads(line) for line in lines])
    if name == "own_models":
        return modules["own_models_report"].report(modules["own_models_report"].read_results())
    return modules["vaes"].report(name, json.loads((FOLDER / name / "results.json").read_text(encoding="utf-8")))


def test_pages_are_those_of_their_results(modules):
    pages = {page.parent.name: page.read_text(encoding="utf-8") for page in sorted(FOLDER.glob("*/README.md"))}
    assert {"sprites", "digits", "fashion"} <= set(pages)
    for name, text in pages.items():
        assert text == page_of(name, modules), f"{name}: run its script with --report_only"


def test_every_beta_of_vaes_is_in_the_results(modules):
    for name in ("sprites", "digits", "fashion"):
        result = json.loads((FOLDER / name / "results.json").read_text(encoding="utf-8"))
        betas = list(modules["train_vaes"].BETAS[name])
        assert [row["strength"] for row in result["by beta"]] == betas == sorted(map(float, result["hotspots"]))


def test_the_report_of_selected_runs_compares_with_random_ones(modules):
    select = modules["select_runs"]
    gains = dict(zip(select.WAYS, (0.02, 0.015, 0.0, 0.01, 0.03, -0.02, -0.05), strict=True))
    lines = [
        {way: 0.7 + 0.01 * repeat + gain * (1 + 0.1 * (-1) ** repeat) for way, gain in gains.items()}
        for repeat in range(8)
    ]
    table = [line.split(" | ") for line in select.table(lines).splitlines() if line.startswith("| ")]
    by_way = {cells[0].removeprefix("| "): cells for cells in table}
    assert by_way[select.WAYS["select_runs"]][1].startswith("0.7550 [0.7")
    assert by_way[select.WAYS["select_runs"]][2].startswith("+0.0200 [+0.01")
    assert by_way[select.WAYS["random"]][2] == ""


def test_own_models_are_compared_over_seeds(modules, tmp_path, monkeypatch):
    """Channels whose answer is known: fine-tunes with the flag are the plain ones, and their importance is the labels."""
    own = modules["own_models_report"]
    monkeypatch.setattr(own, "SAMPLES", 80)
    draw = torch.Generator().manual_seed(0)
    found, ids = {}, [str(place) for place in range(own.SAMPLES)]
    labels = torch.as_tensor(own.classes_of("digits", own.SAMPLES))
    tells = torch.stack([labels < 5, labels >= 5], 1).double()
    for seed in range(3):
        values = torch.randn(2, own.SAMPLES, 3, generator=draw, dtype=torch.float64)
        layers = [Channel.deterministic(one, bits=own.BITS, ids=ids) for one in values]
        classes = Channel.soft(torch.eye(10, dtype=torch.float64)[labels], ids=ids)
        for arm in own.ARMS:
            found[arm, seed] = {"layers": layers, "classes": [classes]}
            if arm != "plain":
                told = {
                    "importance": [Channel.soft(tells, ids=ids)],
                    "token importance": [Channel.soft(tells, ids=ids)],
                }
                found[arm, seed] |= told
    chance = Channel.soft(tells[torch.randperm(own.SAMPLES, generator=draw)], ids=ids)
    before = {"layers": found["plain", 0]["layers"], "importance": [chance], "token importance": [chance]}
    result = own.analyse("digits", before, found, 3)
    assert result["held"]["plain 1"]["accuracy"] == 1 and result["held"]["atom 1"] == result["held"]["plain 1"]
    assert result["pairs"]["layer -2"]["atom same seed"] == pytest.approx([1, 1, 1])
    assert max(map(abs, result["pairs"]["layer -2"]["plain within"])) < 0.2
    trained, untrained = (
        result["importance"]["importance"]["atom"],
        result["importance"]["importance"]["untrained heads"],
    )
    assert trained[0]["adjusted"] > 0.5 > 0.05 > abs(untrained[0]["adjusted"])
    page = own.report([result])
    assert "+0 [+0, +0]" in page and "digits: 3 seeds" in page
    own.draw_layers([result], tmp_path / "drawn.png")
    assert (tmp_path / "drawn.png").read_bytes()[:4] == b"\x89PNG"


def test_fine_tunes_take_the_default_form_of_the_flag(modules, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert "atom_form" not in str(modules["fine_tunes"].ARMS)
    found = modules["fine_tunes"].trained("digits", 0, atom=True, max_train_samples=8, num_train_epochs=1)
    atoms = found.trainer.model.atom_config
    assert (atoms.form, atoms.weight) == ("separation", 0.5)
