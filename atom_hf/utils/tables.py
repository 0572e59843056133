"""Tables as a terminal shows them, and the YAML files that flags name."""

import math
from pathlib import Path
from typing import Any

import yaml

from .errors import AtomError


def format_table(header: list[str], rows: list[list[str]]) -> str:
    """Columns aligned, the first to the left and the others to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(row: list[str]) -> str:
        return "  ".join(
            cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )

    return "\n".join([line(header), "  ".join("-" * w for w in widths), *map(line, rows)])


def format_number(value: float) -> str:
    """Four significant digits; whole numbers as they are."""
    if isinstance(value, int) or not math.isfinite(value):
        return str(value)
    return f"{value:.4f}" if 0.001 <= abs(value) < 10 else f"{value:.4g}"


def read_yaml(path: str, given: str) -> Any:
    """What a YAML file holds. Raises `AtomError`, naming the argument that gave it."""
    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise AtomError(f"{given} {path!r} cannot be read: {' '.join(str(error).split())}") from error
