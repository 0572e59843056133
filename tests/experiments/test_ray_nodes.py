"""Whether two machines have the same of what results depend on."""

import importlib.metadata
import shutil
import subprocess
import sys

from atom_hf.experiments.ray_nodes import differing, installed
from helpers.paths import ROOT, environment

LOOK = "from atom_hf.experiments.ray_nodes import installed; print(installed()['atom-hf'])"


def test_versions_are_those_of_the_packages():
    found = installed()
    assert list(found) == ["atom-hf", "torch", "transformers", "datasets", "scikit-learn"]
    assert found["torch"] == importlib.metadata.version("torch").split("+")[0]
    assert differing(found, dict(found)) is None


def test_what_differs_is_said():
    here, there = {"atom-hf": "1 (code a)", "torch": "2"}, {"atom-hf": "1 (code b)", "torch": "2"}
    assert differing(here, there) == "atom-hf is 1 (code b) there and 1 (code a) here"
    assert differing(here, {"atom-hf": "1 (code a)"}) == "torch is None there and 2 here"


def test_other_code_of_the_same_version_differs(tmp_path):
    """As on a machine whose checkout is an older one."""
    shutil.copytree(ROOT / "atom_hf", tmp_path / "atom_hf", ignore=shutil.ignore_patterns("assets", "__pycache__"))

    def look():
        variables = {**environment(), "PYTHONPATH": str(tmp_path)}
        done = subprocess.run([sys.executable, "-c", LOOK], cwd=tmp_path, env=variables, capture_output=True, text=True)
        return done.stdout.strip()

    assert look() == installed()["atom-hf"]
    with (tmp_path / "atom_hf" / "atoms" / "loss.py").open("a") as file:
        file.write("# changed\n")
    assert look() not in ("", installed()["atom-hf"])
