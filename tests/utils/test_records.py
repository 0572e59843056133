"""Files of records: written, cut off anywhere, gone on with, and never written over."""

import csv
import json
import subprocess
import sys

import pytest

from atom_hf import AtomError
from atom_hf.errors import WriteError
from atom_hf.utils.records import RecordFile
from helpers.paths import environment

COLUMNS = ["row", "text", "value", "parts"]
TEXTS = ["plain", 'with "quotes", commas', "two\nlines", "", "früh \u202e 海", " \r\n ", "last"]
RECORDS = [
    {"row": i, "text": text, "value": None if i == 2 else i / 3, "parts": [text, {"a": i}]}
    for i, text in enumerate(TEXTS)
]
SETTINGS = {"model": ["a", None], "file": [["b.csv", [1, 2.5]]]}


def parts(start):
    """The records from a number on, two at a time."""
    for first in range(start, len(RECORDS), 2):
        yield RECORDS[first : first + 2]


def read(path):
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    kinds = {"row": int, "text": str, "value": lambda cell: float(cell) if cell else None, "parts": json.loads}
    return [{name: kinds[name](cell) for name, cell in row.items()} for row in rows]


@pytest.fixture(params=["out.jsonl", "out.CSV"])
def path(request, tmp_path):
    return tmp_path / "made" / request.param


def write(path, seen=None):
    return RecordFile(str(path), SETTINGS).write(COLUMNS, parts, (seen if seen is not None else []).append)


def test_what_is_written_is_what_was_given(path):
    seen = []
    assert write(path, seen) == len(RECORDS) and seen == RECORDS
    if path.suffix == ".jsonl":
        assert read(path) == RECORDS
    else:
        with path.open(encoding="utf-8", newline="") as file:
            assert [row["text"] for row in csv.DictReader(file)] == TEXTS
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    with pytest.raises(AtomError, match="exists, and was not left unfinished"):
        RecordFile(str(path), SETTINGS)


@pytest.mark.promise("An interrupted `predict` goes on after the last whole record, and ends with the same file.")
def test_cut_off_anywhere_it_goes_on_to_the_same_file(path):
    write(path)
    whole = path.read_bytes()
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        path.with_name(path.name + ".progress").write_text(json.dumps(SETTINGS))
        seen = []
        assert write(path, seen) == len(RECORDS)
        assert path.read_bytes() == whole, length
        assert [str(record["row"]) for record in seen] == [str(i) for i in range(len(RECORDS))]


def test_an_interruption_leaves_the_whole_records_and_what_they_are_made_of(path):
    def interrupted(start):
        yield from list(parts(start))[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        RecordFile(str(path), SETTINGS).write(COLUMNS, interrupted, lambda record: None)
    assert {each.name for each in path.parent.iterdir()} == {path.name, path.name + ".progress"}
    for name, value in (("model", ["other", None]), ("file", [["b.csv", [1, 3.5]]])):
        with pytest.raises(AtomError, match=f"was begun with another {name};") as error:
            RecordFile(str(path), {**SETTINGS, name: value})
        assert "\n" not in str(error.value)
    asked = []
    RecordFile(str(path), SETTINGS).write(COLUMNS, lambda start: asked.append(start) or parts(start), lambda _: None)
    assert asked == [4] and len(read(path)) == len(RECORDS)


def test_a_file_of_other_things_is_not_gone_on_with(tmp_path):
    path = tmp_path / "out.jsonl"
    for content in ('{"row": 3}\n', "[1, 2]\n", "no json\n", '{"a": 1}\n'):
        path.write_text(content)
        (tmp_path / "out.jsonl.progress").write_text(json.dumps(SETTINGS))
        with pytest.raises(AtomError, match="record 0 is not one that this command wrote"):
            write(path)
        assert path.read_text() == content


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("out.txt", "ends in .jsonl or .csv, or - for"),
        ("out", "ends in .jsonl"),
        ("out.csv", "give the path of a file"),
    ],
)
def test_paths_that_are_rejected(tmp_path, name, says):
    (tmp_path / "out.csv").mkdir()
    with pytest.raises(AtomError, match=says):
        RecordFile(str(tmp_path / name), SETTINGS)


def test_one_process_at_a_time(tmp_path):
    path = tmp_path / "out.jsonl"
    code = f"""
from atom_hf import AtomError
from atom_hf.utils.records import RecordFile
try:
    RecordFile({str(path)!r}, {SETTINGS!r}).write(["row"], lambda start: [], print)
except AtomError as error:
    print(error)
"""

    def slow(start):
        found = subprocess.run(
            [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
        )
        yield [{"row": 0, "says": found.stdout}]

    RecordFile(str(path), SETTINGS).write(["row"], slow, lambda record: None)
    assert "is being written to by another process" in json.loads(path.read_text())["says"]


def test_a_full_disk_costs_no_whole_record(tmp_path, monkeypatch):
    path = tmp_path / "out.jsonl"
    file = RecordFile(str(path), SETTINGS)
    real = file._append

    class Full:
        def __init__(self, opened):
            self.opened = opened

        def tell(self):
            return self.opened.tell()

        def write(self, data):
            self.opened.write(data[:5])

        def flush(self):
            self.opened.flush()
            raise OSError(28, "No space left on device")

    calls = []

    def append(opened, text):
        calls.append(text)
        real(Full(opened) if len(calls) == 2 else opened, text)

    monkeypatch.setattr(file, "_append", append)
    with pytest.raises(WriteError, match="No space left on device; make room, and the same command goes on"):
        file.write(COLUMNS, parts, lambda record: None)
    assert read(path) == RECORDS[:2]
    assert write(path) == len(RECORDS) and read(path) == RECORDS


def test_standard_output_is_ascii_and_leaves_no_file(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert RecordFile("-", SETTINGS).write(COLUMNS, parts, lambda record: None) == len(RECORDS)
    out = capsys.readouterr().out
    assert out.isascii() and [json.loads(line) for line in out.splitlines()] == RECORDS
    assert not list(tmp_path.iterdir())
