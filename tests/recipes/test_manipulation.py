"""The studies of manipulators: what is enumerated, what is exact, and that each page is that of its results."""

import importlib
import math
import re
import sys

import pytest
import torch

from atom_hf.utils.jsonl import read_lines
from helpers.paths import ROOT

FOLDER = ROOT / "recipes" / "manipulation"


@pytest.fixture
def load(monkeypatch):
    """A study as a module, by its name."""
    monkeypatch.syspath_prepend(str(FOLDER))
    loaded = []

    def module(name):
        loaded.append(name)
        return importlib.import_module(name)

    yield module
    for name in loaded:
        sys.modules.pop(name, None)


def test_every_lens_is_counted(load):
    lenses = load("lenses")
    for get, put in lenses.lenses(4, 2):
        assert all(get[put[s][v]] == v and put[s][get[s]] == s for s in range(4) for v in range(2))
    counts, sizes = lenses.count(4, 2)
    assert (counts["lens"], counts["undo"], counts["putput"], counts["undo alone"], sizes) == (120, 12, 12, 0, {(2, 2)})
    # By hand: 6 ways to read, of whose 4 edits each has one of two states; Undo leaves 2 of the 16, those that are a bijection.
    assert counts["lens"] == 6 * 2**4 + 8 * 3 and counts["undo"] == 6 * 2
    assert lenses.count(3, 2)[0]["undo"] == 0 and lenses.count(3, 3)[0]["undo alone"] == 0


def test_the_page_of_lenses_has_what_the_design_says():
    rows = [
        line.split("|")[1:-1]
        for line in (FOLDER / "lenses.md").read_text(encoding="utf-8").splitlines()
        if line[:3] == "| 6"
    ]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["6", "2", "22,320", "120", "120", "0", "3, 3"],
        ["6", "3", "525,600", "720", "360", "360", "2, 2, 2"],
    ]


def test_the_posterior_is_exact(load):
    gaussians = load("gaussians")
    points = torch.randn(20, 2)
    for point, found in zip(points.tolist(), gaussians.Posterior()(points).softmax(1).tolist(), strict=True):
        densities = [math.exp(-(math.dist(point, mean) ** 2) / 2) for mean in gaussians.MEANS.tolist()]
        assert found == pytest.approx([density / sum(densities) for density in densities], abs=1e-5)
    rows = gaussians.draw(4000, 0)
    assert (rows.of_class(0).mean(0) - gaussians.MEANS[0]).abs().max() < 0.1


def test_an_exact_editor_of_gaussians_is_measured_as_one(load):
    gaussians = load("gaussians")

    def mirrored(points, target):
        """Reflects a row whose class is not the one that is written, which keeps all laws and the law in distribution."""
        own = gaussians.Posterior()(points).argmax(1)
        turned = (own != target.argmax(1)).float()[:, None]
        return points * (1 - turned) + points * turned * torch.tensor([-1.0, 1.0])

    found = gaussians.measure(mirrored, 1)
    assert found["identity"] == 0 and found["undo"] == 0 and found["putget"] == 1
    assert abs(found["energy"]) < 0.02 and found["spread"] == pytest.approx(1, abs=0.1)
    assert found["log_odds"] == pytest.approx(found["log_odds_of_data"], abs=0.2)


PAGES = [path.stem for path in sorted((FOLDER / "results").glob("*.jsonl"))]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_that_of_its_results(load, name):
    rows = read_lines(FOLDER / "results" / f"{name}.jsonl")
    page = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    if name in ("digits", "fashion"):
        assert page == load("images").report(name, rows)
    else:
        assert page == load(name).report(rows)
    assert f"]({name}.png)" in page and (FOLDER / f"{name}.png").is_file()


def test_every_study_is_in_the_index():
    index = (FOLDER / "README.md").read_text(encoding="utf-8")
    studies = {path.stem for path in FOLDER.glob("*.md")} - {"README"}
    assert studies == set(re.findall(r"\]\((\w+)\.md\)", index))
    for name in studies - {"digits", "fashion"}:
        assert f"python recipes/manipulation/{name}.py" in index
