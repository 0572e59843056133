"""The page of promises is what the tests' markers make."""

import importlib.util
import re
from pathlib import Path

import pytest

from helpers.paths import ROOT

MADE = """
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.promise("Files are safe.")]


def helper():
    pass


@pytest.mark.parametrize("n", [1, 2])
def test_a_full_disk_leaves_the_old_file(n):
    pass


@pytest.mark.promise("Nobody | is lost.", "a number of things")
def test_by_number():
    pass


@pytest.mark.promise("Nobody | is lost.", "a number of things")
def test_by_another_number():
    pass
"""
ONE = 'import pytest\n\npytestmark = pytest.mark.promise("Files are safe.")\n\n\ndef test_a_kill():\n    pass\n'


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("recipes_robustness", ROOT / "recipes" / "robustness.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows(page):
    return [line for line in page.splitlines() if line.startswith("| ")][2:]


def test_the_page_is_what_the_tests_promise(recipe):
    assert recipe.PAGE.read_text(encoding="utf-8") == recipe.page(), "python recipes/robustness.py writes it anew"


def test_every_file_with_a_marker_is_on_the_page(recipe):
    marked = re.compile(r"^\s*(@|pytestmark = .*|)pytest\.mark\.promise\(", re.MULTILINE)
    files = [path for path in (ROOT / "tests").rglob("test_*.py") if marked.search(path.read_text(encoding="utf-8"))]
    named = {path.relative_to(ROOT).as_posix() for path in files if path != Path(__file__)}
    assert named == {file for _, file, *_ in recipe.promises(ROOT / "tests")} and len(named) > 25


def test_rows_are_by_promise_and_name_their_tests(recipe, tmp_path):
    folder = tmp_path / "tests" / "data"
    folder.mkdir(parents=True)
    (folder / "test_made.py").write_text(MADE)
    (folder / "test_other.py").write_text(ONE)
    (folder / "test_without.py").write_text("def test_nothing():\n    pass\n")
    assert rows(recipe.page(tmp_path / "tests")) == [
        "| Files are safe. | a full disk leaves the old file ([test_made.py](../tests/data/test_made.py))"
        "<br>a kill ([test_other.py](../tests/data/test_other.py)) |",
        "| Nobody \\| is lost. | a number of things ([test_made.py](../tests/data/test_made.py)) |",
    ]


@pytest.mark.parametrize(
    "given", ["promise", "promise()", 'promise(f"{1}")', "promise(1)", 'promise("a", "b", "c")', 'promise(text="a")']
)
def test_a_marker_that_cannot_be_read_is_named(recipe, tmp_path, given):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_made.py").write_text(f"@pytest.mark.{given}\ndef test_one():\n    pass\n")
    with pytest.raises(ValueError, match=r"tests/test_made.py:1: promise takes one or two strings"):
        recipe.page(tmp_path / "tests")
