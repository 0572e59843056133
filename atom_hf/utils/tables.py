"""Format tables for a terminal and for Markdown, and fill the generated parts of a document."""

import math
import re
from pathlib import Path

from .files import write_atomically


def format_table(header: list[str], rows: list[list[str]]) -> str:
    """A table with aligned columns: the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(row: list[str]) -> str:
        return "  ".join(
            cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )

    return "\n".join([line(header), "  ".join("-" * w for w in widths), *map(line, rows)])


def format_number(value: float) -> str:
    """Four significant digits or decimals; ints unchanged."""
    if isinstance(value, int) or not math.isfinite(value):
        return str(value)
    return f"{value:.4f}" if 0.001 <= abs(value) < 10 else f"{value:.4g}"


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, ["---"] * len(header), *rows]) + "\n"


def fill_block(document: Path, name: str, text: str) -> None:
    """Replace the generated part of a Markdown document: what stands between two comments.

        <!-- NAME: the command that generates it -->
        <!-- end of NAME -->

    Raises:
        ValueError: the document does not hold exactly one such pair of comments.
    """
    before = document.read_text(encoding="utf-8")
    opening, end = rf"<!-- {re.escape(name)}: [^\n]* -->", f"<!-- end of {name} -->"
    parts = re.split(rf"({opening})\n.*?({re.escape(end)})", before, flags=re.DOTALL)
    if len(parts) != 4:
        raise ValueError(f"{document}: give one '<!-- {name}: COMMAND -->' and, after it, one '{end}'")
    head, mark, _, tail = parts
    write_atomically(document, f"{head}{mark}\n\n{text.strip()}\n\n{end}{tail}")
