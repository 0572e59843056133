"""What the documents say of faithfulness is what was measured."""

import importlib.util
import re
import sys

import numpy as np
import pytest

from atom_hf.faithfulness.report import MEASURES, read_blocks, report
from atom_hf.utils.jsonl import RESULTS_NAME
from helpers.paths import ROOT

HERE = ROOT / "recipes" / "faithfulness"
RECIPES = ("digits", "cifar10", "verse", "sst2", "poem", "cola")
FOLDERS = sorted(path.parent.name for path in HERE.glob(f"*/{RESULTS_NAME}") if (path.parent / "report.md").is_file())


@pytest.fixture(scope="module")
def written():
    spec = importlib.util.spec_from_file_location("faithfulness_report", HERE / "faithfulness_report.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readmes_hold_the_tables_of_the_results(written):
    first, table, text = written.texts(RECIPES)
    assert first in (ROOT / "README.md").read_text(encoding="utf-8")
    assert table in (ROOT / "docs" / "faithfulness.md").read_text(encoding="utf-8")
    assert text == (HERE / "README.md").read_text(encoding="utf-8")
    assert set(written.TITLES) == set(RECIPES)


def test_what_is_counted_is_counted_by_hand(written):
    """Better, worse or neither: by the mean of the differences of each sample and its t interval."""
    from scipy import stats

    found, marks = written.read_results(RECIPES), {"▲": 0, "▼": 0, "": 0}
    for blocks in found.values():
        ours, theirs = (blocks["model", name].samples for name in ("importance", "integrated_gradients"))
        for measure in written.COMPARED:
            samples = {}
            for model, lines in ours.items():
                for number, line in lines.items():
                    difference = line[measure] - theirs[model][number][measure]
                    samples.setdefault(number, []).append(difference if MEASURES[measure][1] else -difference)
            means = np.array([np.mean(row) for row in samples.values() if len(row) == len(ours)])
            low, high = stats.ttest_1samp(means, 0).confidence_interval()
            marks["▲" if low > 0 else "▼" if high < 0 else ""] += 1
    assert written.counts(found) == marks and sum(marks.values()) == 5 * len(found)
    # The headline tells of texts and images apart.
    told = [
        tuple(map(int, one))
        for one in re.findall(r"better in (\d+), worse in (\d+) and neither in (\d+)", written.headline(found))
    ]
    assert tuple(map(sum, zip(*told, strict=True))) == tuple(marks.values())
    images = [blocks for (name, _), blocks in found.items() if name in ("digits", "cifar10")]
    assert sum(told[-1]) == 5 * len(images)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_report_is_that_of_its_results(name):
    head, blocks = read_blocks(HERE / name)
    assert report(head, blocks) == (HERE / name / "report.md").read_text(encoding="utf-8")
    assert (HERE / name / "faithfulness.png").is_file()
    assert name.removesuffix("-shapley") in RECIPES


def test_the_page_of_the_forms_is_that_of_the_results(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    others = {name: sys.modules.pop(name) for name in ("run", "faithfulness_report", "forms") if name in sys.modules}
    import forms

    try:
        page = forms.FOLDERS[forms.FORM] / "README.md"
        assert forms.HEAD + forms.tables() == page.read_text(encoding="utf-8")
        assert set(forms.RECIPES) == set(forms.TITLES) <= set(RECIPES)
    finally:
        for name in ("run", "faithfulness_report", "forms"):
            del sys.modules[name]
        sys.modules.update(others)
