"""Results kept line by line in a JSON Lines file, so that what was interrupted goes on where it stopped."""

import hashlib
import json
from pathlib import Path
from typing import Any

from ..errors import AtomError

RESULTS_NAME = "results.jsonl"


def hashed(settings: dict[str, Any]) -> str:
    """Sixteen hexadecimal digits that stand for the settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The results that were written whole: a last line that was cut short as it was written is a run to be done again.

    Raises `AtomError` for another line that is no result.
    """
    lines = []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(True) if path.exists() else [], 1):
        if not text.endswith("\n") or not text.strip():
            continue
        try:
            lines.append(json.loads(text))
        except ValueError as error:
            raise AtomError(f"{path}, line {number}, is no result: remove it, and its run is done again") from error
    return lines


def start_lines(path: Path, head: dict[str, Any] | None = None) -> None:
    """Makes a results file that lines can be appended to; of one that exists it drops a last line that was cut short."""
    texts = path.read_text(encoding="utf-8").splitlines(True) if path.exists() else []
    whole = [text for text in texts if text.endswith("\n")]
    first = [json.dumps(head) + "\n"] if head else []
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(whole if len(whole) > len(first) else first), encoding="utf-8")


def append_line(path: Path, line: dict[str, Any]) -> None:
    """Adds one result."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
