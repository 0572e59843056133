"""What the documents say of faithfulness is what was measured."""

import importlib.util

import pytest

from atom_hf.faithfulness.report import read_blocks, report
from helpers.paths import ROOT

HERE = ROOT / "recipes" / "faithfulness"
RECIPES = ("poem", "cola", "digits", "cifar10")


@pytest.fixture(scope="module")
def written():
    spec = importlib.util.spec_from_file_location("faithfulness_report", HERE / "faithfulness_report.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readmes_hold_the_tables_of_the_results(written):
    found = written.read_results(RECIPES)
    assert {name for name, _ in found} == set(RECIPES) and len(found) == 2 * len(RECIPES)
    table, text = written.texts(found)
    assert written.headline(found) in (ROOT / "README.md").read_text(encoding="utf-8")
    assert table in (ROOT / "docs" / "faithfulness.md").read_text(encoding="utf-8")
    assert text == (HERE / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", RECIPES)
def test_a_report_is_that_of_its_results_with_three_seeds(name):
    head, blocks = read_blocks(HERE / name)
    assert report(head, blocks) == (HERE / name / "report.md").read_text(encoding="utf-8")
    assert (HERE / name / "faithfulness.png").is_file()
    assert {len(block.samples) for block in blocks.values()} == {3}
