"""Find out how to read a csv or tsv file, from the whole file: its separator, its quotes, and whether it has a header.

A file in the usual form is read as usual. For any other file, either the options that read it correctly are found and
reported in one line, or it is rejected: pandas would silently shift columns, join rows, or take a row for the header.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ..errors import AtomError
from ..utils.terminal import get_logger
from .columns import USUAL_NAMES
from .delimited_scan import Scan, is_number, long_fields, scan_file

logger = get_logger(__name__)

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}

NUMBERED = r"column\d+"
"""What the columns of a file without a header are called: column1, column2, ..."""


def table_options(files: list[Path], separator: str, columns: Collection[str], given: str) -> dict[str, Any]:
    """The options of pandas.read_csv, apart from the separator that the file name implies, that read these files correctly.

    Args:
        files: those of one split.
        separator: the usual one of files with such names.
        columns: the names of columns that the arguments give.
        given: the argument that names the files, for messages.

    Raises:
        csv.Error: a file that no options read correctly.
        AtomError: files that need different options; a first line that may be a row or a name.
        OSError: a file that cannot be opened.
    """
    found = {file: _of_file(file, separator, columns, given) for file in files}
    (first, (options, notes)), *others = found.items()
    for file, (other, _) in others:
        if other != options:
            raise AtomError(
                f"{given}: {first.name} and {file.name} differ in their separator, quotes or header; save them in the same "
                "format"
            )
    for note in notes:
        logger.info("%s: %s", given, note)
    return options


def _of_file(path: Path, usual: str, columns: Collection[str], given: str) -> tuple[dict[str, Any], list[str]]:
    """The options for one file, and what to say of them."""
    try:
        with long_fields():
            scan = _judge(path, usual, columns)
    except csv.Error as error:
        raise csv.Error(f"{path.name}: {error}") from None
    options: dict[str, Any] = {}
    notes = []
    if scan.separator != usual:
        options["sep"] = scan.separator
        notes.append(f"{path.name} is read as separated by {SEPARATORS[scan.separator]}")
    if scan.blanks:
        options["skipinitialspace"] = True
        notes.append(f"blanks after the separators of {path.name} are left out")
    if not scan.quoted:
        options["quoting"] = csv.QUOTE_NONE
        notes.append(f"{path.name} has lone quotes: all quotes are read as letters")
    elif scan.loose:
        notes.append(f"{scan.loose} rows of {path.name} have text after a closing quote: these quotes are lost")
    if scan.fields and not scan.even and min(scan.fields) > len(scan.header):
        if scan.trailing:
            options["index_col"] = False
            notes.append(f"the rows of {path.name} end in a separator, which is left out")
        else:
            notes.append(
                f"the rows of {path.name} have one field more than the header: the first is read as row numbers"
            )
    if not _has_header(scan, columns, path, given):
        names = [f"column{number}" for number in range(1, len(scan.header) + 1)]
        options |= {"header": None, "column_names": names}
        notes.append(
            f"{path.name} has no header, as its first line reads like a row: its columns are {', '.join(names)}"
        )
    return options, notes


def _judge(path: Path, usual: str, columns: Collection[str]) -> Scan:
    """The scan with the separator and quotes that fit the file. Raises `csv.Error` if none do."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        first = next((line for line in file if line.strip()), "")
    if re.fullmatch(r"sep=.\s*", first):
        raise csv.Error(f"its first line {first.strip()!r} is for Excel only: remove it")
    try:
        scan, why = scan_file(path, usual, first), None
    except csv.Error as error:
        scan, why = None, error
    if scan is not None and len(scan.header) > 1 and max(scan.fields, default=0) <= len(scan.header):
        return scan
    # The header has one column, or rows have more fields than it: another separator may fit all rows.
    for other in SEPARATORS:
        if other == usual or other not in first:
            continue
        try:
            found = scan_file(path, other, first)
        except csv.Error:
            continue
        if len(found.header) < 2:
            continue
        if found.even:
            return found
        if len(scan.header if scan else []) < 2 and _names(found.header) & {*USUAL_NAMES, *map(_plain, columns)}:
            count, line = next((n, line) for n, line in found.fields.items() if n != len(found.header))
            why = csv.Error(
                f"separated by {SEPARATORS[other]}: its header has {len(found.header)} fields and line {line} has {count} "
                "(quote a text that holds the separator)"
            )
    if why is not None:
        raise why
    return _check_longer(scan)


def _check_longer(scan: Scan) -> Scan:
    """The scan, if pandas reads its rows of more fields than the header rightly, or rejects them itself."""
    longer = {count: line for count, line in scan.fields.items() if count > len(scan.header)}
    alike = set(scan.fields) == {len(scan.header) + 1}
    if longer and not (alike and (scan.trailing or scan.numbered)):
        count, line = next(iter(longer.items()))
        raise csv.Error(
            f"its header has {len(scan.header)} fields and line {line} has {count} (quote a text that holds the separator)"
        )
    return scan


def _has_header(scan: Scan, columns: Collection[str], path: Path, given: str) -> bool:
    """Whether the first line holds names. Raises `AtomError` where it may be either."""
    names = _names(scan.header)
    if names & set(map(_plain, columns)):
        return True
    if columns and all(re.fullmatch(NUMBERED, column) for column in columns):
        return False
    known = {i for i, cell in enumerate(scan.header) if _plain(cell) in USUAL_NAMES}
    if known - scan.repeated or (known and len(scan.header) == 1):
        return True
    if scan.repeated:
        return False
    numbers = {i for i, cell in enumerate(scan.header) if is_number(cell) and cell.strip()}
    if numbers - scan.words and scan.fields and scan.header != [str(i) for i in range(len(scan.header))]:
        return False
    if len(scan.header) == 1 and (len(scan.header[0].split()) > 3 or len(scan.header[0]) > 60):
        raise AtomError(
            f"--text_column: the first line of {path.name} in {given} may be a row or the name of its column "
            f"({scan.header[0][:40]!r}); give --text_column column1 if it is a row, else write a short name there, such as text"
        )
    return True


def _names(header: list[str]) -> set[str]:
    return {_plain(cell) for cell in header}


def _plain(name: str) -> str:
    return name.strip().lower()
