"""Writes README.md from `results.jsonl`."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from check import FAILED, NOT_BUILT, PASSED, PLAIN_FAILS, TASKS

HERE = Path(__file__).parent
RESULTS = HERE / "results.jsonl"


def read_results() -> list[dict[str, Any]]:
    """The rows of `results.jsonl`; none if there is no such file."""
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]


def write_report() -> str:
    """Writes the table. Returns its summary."""
    rows = read_results()
    summary = "\n".join(
        f"{task}: {dict(Counter(row['outcome'] for row in rows if row['task'] == task))}" for task in TASKS
    )
    return summary + f"\nall: {dict(Counter(row['outcome'] for row in rows))}"
