"""Results in a JSON Lines file, one line each, so that an interrupted command resumes where it stopped."""

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import AtomError, WriteError
from .files import write_atomically

RESULTS_NAME = "results.jsonl"


def hashed(settings: dict[str, Any]) -> str:
    """A hash of the settings: sixteen hexadecimal digits."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The complete results: a last line that was cut off while being written is dropped, and its run is to be repeated.

    Raises `AtomError` for any other line that is not JSON.
    """
    lines = []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(True) if path.exists() else [], 1):
        if not text.endswith("\n") or not text.strip():
            continue
        try:
            lines.append(json.loads(text))
        except ValueError as error:
            raise AtomError(f"{path}, line {number}, is not a result: remove it, and its run is repeated") from error
    return lines


def start_lines(path: Path, head: dict[str, Any] | None = None) -> None:
    """Create a results file, with `head` as its first line; in an existing one, drop a last line that was cut off."""
    texts = path.read_text(encoding="utf-8").splitlines(True) if path.exists() else []
    whole = [text for text in texts if text.endswith("\n")]
    first = [json.dumps(head) + "\n"] if head else []
    write_atomically(path, "".join(whole if len(whole) > len(first) else first))


def append_line(path: Path, line: dict[str, Any]) -> None:
    """Append one result. If it cannot be written whole, nothing of it is, and a `WriteError` says so."""
    before = path.stat().st_size if path.exists() else 0
    try:
        with path.open("ab") as file:
            file.write((json.dumps(line) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        with suppress(OSError):
            os.truncate(path, before)
        raise WriteError(
            f"{path}: the last result could not be written: {error.strerror}; make room, and the same command resumes after "
            "the one before it",
            error.strerror,
        ) from error
