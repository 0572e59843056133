"""The architecture that docs/architecture.md describes is that of the package, and its rules hold."""

import ast
import re
import subprocess
import sys
import tomllib

import pytest

import atom_hf
from atom_hf.cli.main import COMMANDS
from helpers.paths import ROOT, environment

PACKAGE = ROOT / "atom_hf"
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PACKAGES = sorted(folder.parent.name for folder in PACKAGE.glob("*/__init__.py"))
MODULES = sorted(PACKAGE.rglob("*.py"))
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]

MOST_LINES = 300


def test_the_page_has_a_row_for_every_package_and_no_other():
    rows = re.findall(r"^\| `(\w+)/` \|", PAGE, re.MULTILINE)
    assert sorted(rows) == sorted([*PACKAGES, "assets"])


def test_every_file_that_the_page_names_is_there():
    names = set(re.findall(r"[\w./]+\.(?:py|md|toml|yaml)\b", PAGE))
    names = {name for name in names if not re.search("NAME|PACKAGE|MODULE", name)}
    folders = PACKAGE, ROOT, ROOT / "docs"
    missing = sorted(name for name in names if not any((folder / name).is_file() for folder in folders))
    assert len(names) > 50 and not missing


def test_the_page_shows_the_layers_of_the_contract():
    (contract,) = (contract for contract in CONTRACTS if contract["type"] == "layers")
    shown = dict(re.findall(r'\b(layer\d+)\["([^"]+)"\]', PAGE))
    assert [shown[f"layer{number}"] for number in range(1, len(shown) + 1)] == contract["layers"]
    arrows = re.findall(r'\b(layer\d+)(?:\["[^"]+"\])? --> (layer\d+)', PAGE)
    assert arrows == [(f"layer{number}", f"layer{number + 1}") for number in range(1, len(shown))]
    assert set(PACKAGES) <= set(re.findall(r"\w+", " ".join(contract["layers"])))


def test_the_page_lists_the_public_interface():
    after = PAGE.partition("**Public interface.**")[2].partition("\n\n")[2]
    listed = after.partition("\n\n")[0].split()
    assert listed == sorted(atom_hf.__all__) and len(listed) == 13


def test_every_command_is_kept_apart_from_the_others():
    (contract,) = (contract for contract in CONTRACTS if contract["type"] == "independence")
    assert contract["modules"] == sorted(f"atom_hf.cli.{name.replace('-', '_')}" for name in COMMANDS)


def test_imports_keep_the_contracts():
    lint = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
    done = subprocess.run(
        [sys.executable, "-c", lint], cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"lint-imports:\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_has_its_tests(package):
    assert list((ROOT / "tests" / package).glob("test_*.py")), f"tests/{package}/ has no tests"


def test_no_module_is_long():
    lengths = {path.relative_to(PACKAGE).as_posix(): path.read_text("utf-8").count("\n") for path in MODULES}
    longer = {name: lines for name, lines in lengths.items() if lines > MOST_LINES}
    assert not longer, f"more than {MOST_LINES} lines: {longer}"


def test_names_with_an_underscore_stay_in_their_file():
    found = []
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("atom_hf")):
                private = [a.name for a in node.names if a.name.startswith("_") and not a.name.endswith("__")]
                found += [f"{path.relative_to(ROOT)}: {name} of {'.' * node.level}{node.module}" for name in private]
    assert not found, "\n".join(found)
