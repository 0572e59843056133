"""Scan a csv or tsv file as the csv module reads it, and note what decides how to read it."""

from __future__ import annotations

import csv
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Scan:
    """What a pass over a file, read with one separator and with or without quotes, finds."""

    separator: str
    quoted: bool
    blanks: bool
    """Whether a blank follows each separator of the first line."""
    header: list[str] = field(default_factory=list)
    fields: dict[int, int] = field(default_factory=dict)
    """The number of fields of the rows below the first: the line of the first row with as many."""
    repeated: set[int] = field(default_factory=set)
    """The columns in which the first line's value recurs, in rows that are not a copy of it."""
    words: set[int] = field(default_factory=set)
    """The columns with a value below the first line that is not a number."""
    trailing: bool = True
    """Whether all rows end in a separator."""
    numbered: bool = True
    """Whether all rows begin with an integer."""
    well_quoted: int = 0
    loose: int = 0
    """Rows on one line with a quote that opens a field and does not end it."""
    broken: int | None = None
    """The line of a quote that opens a field, and does not end it on the same line, nor well on another."""
    joined: list[int] = field(default_factory=list)
    """The lines of rows in which a quoted field holds line breaks and separators: perhaps rows that two lone quotes join."""

    @property
    def even(self) -> bool:
        """Whether all rows have as many fields as the header."""
        return set(self.fields) <= {len(self.header)}


def scan_file(path: Path, separator: str, first: str) -> Scan:
    """The scan with or without quotes, whichever loses nothing. Raises `csv.Error` if both do."""
    cells = next(csv.reader([first], delimiter=separator), [])
    blanks = len(cells) > 1 and all(cell.startswith(" ") for cell in cells[1:])
    try:
        scan = _scan(path, separator, True, blanks, strict=True)
    except csv.Error:  # some quote is not where it should be: which, and how many
        scan = _scan(path, separator, True, blanks)
    if not (scan.broken or scan.joined or scan.loose):
        return scan
    raw = _scan(path, separator, False, blanks)
    as_letters = raw.even and not any(cell.startswith('"') for cell in raw.header)
    if scan.broken:
        if as_letters:
            return raw
        raise csv.Error(
            f"a quote opens in line {scan.broken} and does not close where its field ends: double the quotes inside a quoted "
            "text, and remove lone ones"
        )
    if scan.joined and as_letters and (separator == "\t" or _look_like_rows(path, separator, blanks, scan.joined)):
        return raw
    return raw if scan.loose and as_letters and not scan.well_quoted else scan


def _scan(path: Path, separator: str, quoted: bool, blanks: bool, strict: bool = False) -> Scan:
    scan = Scan(separator, quoted, blanks)
    for line, raw, cells in _records(path, separator, quoted, blanks, strict):
        if quoted and not strict and any('"' in part for part in raw):
            _check_quotes(scan, line, raw, cells)
        if len(raw) > 1 and any("\n" in cell and separator in cell for cell in cells) and scan.broken != line:
            scan.joined += range(line, line + len(raw))
        if not scan.header:
            scan.header = cells
            continue
        scan.fields.setdefault(len(cells), line)
        scan.trailing = scan.trailing and not cells[-1].strip()
        scan.numbered = scan.numbered and cells[0].strip().isdecimal()
        if cells != scan.header or len(cells) == 1:
            pairs = enumerate(zip(cells, scan.header, strict=False))
            scan.repeated |= {i for i, (cell, name) in pairs if cell.strip() == name.strip() != ""}
        if len(scan.words) < len(scan.header):
            scan.words |= {i for i, cell in enumerate(cells) if i not in scan.words and not is_number(cell)}
    return scan


def _check_quotes(scan: Scan, line: int, raw: list[str], cells: list[str]) -> None:
    try:
        strict = csv.reader(raw, delimiter=scan.separator, skipinitialspace=scan.blanks, strict=True)
        well = next(strict) == cells and next(strict, None) is None
    except csv.Error:
        well = False
    if not well and len(raw) > 1:
        scan.broken = scan.broken or line
    elif not well:
        scan.loose += 1
    elif scan.header and any(re.search(rf'(^|{re.escape(scan.separator)})\s*"', part) for part in raw):
        scan.well_quoted += 1


def _look_like_rows(path: Path, separator: str, blanks: bool, lines: list[int]) -> bool:
    """Whether these lines, each read on its own, have in one column values without quotes that recur, as classes do."""
    wanted = set(lines)
    counts: Counter[tuple[int, str]] = Counter()
    inside = []
    for line, _, cells in _records(path, separator, False, blanks):
        here = [(i, cell.strip()) for i, cell in enumerate(cells) if len(cell) <= 50]
        counts.update(here)
        if line in wanted:
            inside.append(here)
    columns = [{i for i, cell in here if cell and '"' not in cell and counts[i, cell] > 1} for here in inside]
    return bool(set.intersection(*columns))


def _records(
    path: Path, separator: str, quoted: bool, blanks: bool, strict: bool = False
) -> Iterator[tuple[int, list[str], list[str]]]:
    """(first line's number, lines, fields) of each record that is not blank."""
    # What is not UTF-8 is left for the reader itself to reject.
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        taken: list[str] = []

        def lines() -> Iterator[str]:
            for line in file:
                taken.append(line)
                yield line

        quoting = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
        number = 1
        options = {"delimiter": separator, "quoting": quoting, "skipinitialspace": blanks, "strict": strict}
        for cells in csv.reader(lines(), **options):
            if cells and (len(cells) > 1 or cells[0].strip()):
                yield number, list(taken), cells
            number += len(taken)
            taken.clear()


@contextmanager
def long_fields() -> Iterator[None]:
    """A field may be as long as a document: the limit of csv is of the whole process, and restored."""
    before = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def is_number(cell: str) -> bool:
    try:
        float(cell or "0")
    except ValueError:
        return False
    return True
