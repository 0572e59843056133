"""Paths in the repository, and the environment by which processes that tests start find them."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"


def environment(**variables):
    """The environment of a process that imports the helpers and the package that is tested."""
    search = [str(TESTS), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(search), **variables}
