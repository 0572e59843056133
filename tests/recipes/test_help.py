"""The files of help that the command line prints: each is what its command would print itself."""

import importlib.util

import pytest

from atom_hf.cli.main import COMMANDS
from helpers.paths import ROOT

FOLDER = ROOT / "atom_hf" / "cli" / "help"


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("recipes_help", ROOT / "recipes" / "help.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_command_has_its_file_and_no_other_has():
    assert sorted(path.stem for path in FOLDER.iterdir()) == sorted(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_file_is_what_the_command_prints(name, recipe):
    committed = (FOLDER / f"{name}.txt").read_text(encoding="utf-8")
    assert recipe.help_of(name) == committed, "python recipes/help.py writes it anew"
