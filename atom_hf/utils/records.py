"""A JSON Lines or csv file of records, written part by part, which an interrupted command goes on with.

While it is being written, a small file beside it (`FILE.progress`) says what it is made of. A file without one is finished, or
somebody else's, and is never written to.
"""

import csv
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import AtomError, WriteError
from .files import check_page, read_json, write_atomically
from .lock import is_held

FORMATS = (".jsonl", ".csv")

STANDARD_OUTPUT = "-"

_PROGRESS_BYTES = 2**20


class RecordFile:
    """Records of one command in one file.

    Args:
        path: its name ends in .jsonl or .csv; "-" is standard output, as JSON Lines.
        settings: what the records depend on, by the name that an error gives it.
        flag: the argument that gave the path, for error messages.

    Raises:
        AtomError: a path that cannot be written, or a file that was not begun with these settings.
    """

    def __init__(self, path: str, settings: dict[str, Any], flag: str = "--output"):
        self.path, self.shown, self.columns = Path(path), f"{flag} {path!r}", list[str]()
        self.settings, self.is_stream = settings, path == STANDARD_OUTPUT
        self.is_csv = self.path.suffix.lower() == ".csv"
        self.progress = self.path.with_name(self.path.name + ".progress")
        if self.is_stream:
            return
        if self.path.suffix.lower() not in FORMATS:
            raise AtomError(f"{self.shown}: give a name that ends in {' or '.join(FORMATS)}, or - for standard output")
        check_page(path, flag)
        if self.path.exists() and not self.progress.exists():
            raise AtomError(f"{self.shown} exists, and was not left unfinished; give another name, or remove it")
        if self.progress.exists():
            before = read_json(self.progress, _PROGRESS_BYTES, "record of an unfinished file")
            for name, value in settings.items():
                if before.get(name) != json.loads(json.dumps(value)):
                    raise AtomError(
                        f"{self.shown} was begun with another {name}; give another name, or remove it and {self.progress}"
                    )

    def write(
        self,
        columns: Sequence[str],
        parts: Callable[[int], Iterable[list[dict[str, Any]]]],
        seen: Callable[[dict[str, Any]], Any],
    ) -> int:
        """Writes the records that are not there yet.

        Args:
            columns: the keys of the records; the first is "row", their number from 0 on. In a csv file a value that is a list
                or dict is JSON.
            parts: the lists of records from a number on, in order.
            seen: called with each record: first those that are there, as they are read from the file.

        Returns:
            how many records there are.

        Raises:
            WriteError: a full disk; the records that have been written stay.
            AtomError: another process writes to the file, or something else than records is in it.
        """
        self.columns = list(columns)
        if self.is_stream:
            return self._to_stream(parts, seen)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as file:  # made, but not emptied
            if is_held(file):
                raise AtomError(f"{self.shown} is being written to by another process: wait for it to end")
            write_atomically(self.progress, json.dumps(self.settings))
            count = self._resume(file, seen)
            if self.is_csv and not file.tell():
                self._append(file, _csv_line(self.columns))
            for part in parts(count):
                self._append(file, "".join(map(self._line, part)))
                for record in part:
                    seen(record)
                count += len(part)
        self.progress.unlink(missing_ok=True)
        return count

    def _to_stream(self, parts: Callable[[int], Iterable[list[dict[str, Any]]]], seen: Callable[[dict], Any]) -> int:
        count = 0
        for part in parts(0):
            # In ASCII: standard output is filtered (`utils.terminal`), and a program is to read what was in the file.
            sys.stdout.write("".join(json.dumps(record, allow_nan=False) + "\n" for record in part))
            sys.stdout.flush()
            if getattr(sys.stdout, "gone", False):  # `| head`
                break
            for record in part:
                seen(record)
            count += len(part)
        return count

    def _line(self, record: dict[str, Any]) -> str:
        if not self.is_csv:
            return json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
        values = (record.get(name) for name in self.columns)
        return _csv_line([json.dumps(v, ensure_ascii=False) if isinstance(v, list | dict) else v for v in values])

    def _append(self, file: BinaryIO, text: str) -> None:
        end = file.tell()
        try:
            file.write(text.encode())
            file.flush()
        except OSError as error:
            with suppress(OSError):
                os.truncate(self.path, end)
            raise WriteError(
                f"{self.shown} could not be written: {error.strerror}; make room, and the same command goes on after the "
                "last whole line",
                error.strerror,
            ) from error

    def _resume(self, file: BinaryIO, seen: Callable[[dict], Any]) -> int:
        """Cuts off a record that was not written to its end. Returns how many whole ones there are."""
        count = end = file.seek(0)
        for record, place in self._whole(file):
            # Numbered from 0: a header has no number.
            if record is not None:
                if str(record.get("row")) != str(count):
                    raise AtomError(
                        f"{self.shown}: record {count} is not one that this command wrote; give another name, or remove it "
                        f"and {self.progress}"
                    )
                seen(record)
                count += 1
            end = place
        file.truncate(end)
        file.seek(end)
        return count

    def _whole(self, file: BinaryIO) -> Iterator[tuple[dict[str, Any] | None, int]]:
        """The whole records (None: the header), and where each ends."""
        if not self.is_csv:
            while (line := file.readline()).endswith(b"\n"):
                try:
                    record = json.loads(line)
                except ValueError:
                    record = {}
                yield record if isinstance(record, dict) else {}, file.tell()
            return
        # A field may hold line ends, so that the end of a line is that of a record only where the reader says so.
        lines = iter(lambda: file.readline().decode("utf-8", "replace"), "")
        last = [""]

        def noted() -> Iterator[str]:
            for line in lines:
                last[0] = line
                yield line

        try:
            for number, cells in enumerate(csv.reader(noted(), strict=True)):
                if not last[0].endswith("\n"):
                    return
                yield dict(zip(self.columns, cells, strict=False)) if number else None, file.tell()
        except csv.Error:  # a quote that was not closed: the last record was cut off
            return


def _csv_line(values: Sequence[Any]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue()
