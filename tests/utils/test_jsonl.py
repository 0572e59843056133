"""Results line by line: what a run that was interrupted leaves, and how the next goes on."""

import json

import pytest

from atom_hf import AtomError
from atom_hf.utils.jsonl import append_line, hashed, read_lines, start_lines

HEAD, FIRST, SECOND = {"settings": "0"}, {"seed": 0, "loss": 0.1 + 0.2}, {"seed": 1, "name": "früh\u2028spät"}


def test_lines_are_read_as_they_were_written(tmp_path):
    file = tmp_path / "new" / "folder" / "results.jsonl"
    assert read_lines(file) == []
    start_lines(file, HEAD)
    for line in (FIRST, SECOND):
        append_line(file, line)
    assert read_lines(file) == [HEAD, FIRST, SECOND]
    assert [json.loads(text) for text in file.read_text(encoding="utf-8").splitlines()] == [HEAD, FIRST, SECOND]


def test_a_file_without_a_head_starts_empty(tmp_path):
    start_lines(tmp_path / "results.jsonl")
    assert (tmp_path / "results.jsonl").read_text() == "" and read_lines(tmp_path / "results.jsonl") == []


def test_lines_that_are_there_stay(tmp_path):
    file = tmp_path / "results.jsonl"
    start_lines(file, HEAD)
    append_line(file, FIRST)
    start_lines(file, {"settings": "others"})
    assert read_lines(file) == [HEAD, FIRST]


def test_a_head_without_results_is_replaced(tmp_path):
    file = tmp_path / "results.jsonl"
    start_lines(file, HEAD)
    start_lines(file, {"settings": "others"})
    assert read_lines(file) == [{"settings": "others"}]


@pytest.mark.promise("Interrupted comparisons and studies resume after the last finished run.")
@pytest.mark.parametrize("cut", ['{"seed": 1, "lo', '{"seed": 1}'])
def test_a_last_line_that_was_cut_short_is_done_again(tmp_path, cut):
    file = tmp_path / "results.jsonl"
    start_lines(file, HEAD)
    append_line(file, FIRST)
    with file.open("a") as stream:
        stream.write(cut)
    assert read_lines(file) == [HEAD, FIRST]
    start_lines(file, HEAD)
    append_line(file, SECOND)
    assert read_lines(file) == [HEAD, FIRST, SECOND]


@pytest.mark.promise("Results of other settings are never taken for those of a run.")
def test_a_line_that_is_no_result_is_rejected_by_its_number(tmp_path):
    file = tmp_path / "results.jsonl"
    file.write_text('{"seed": 0}\n\nbroken\n{"seed": 1}\n')
    with pytest.raises(AtomError, match=r"results\.jsonl, line 3, is not a result: remove it"):
        read_lines(file)


def test_settings_have_the_same_hash_in_any_order_and_another_if_they_differ(tmp_path):
    settings = {"a": 1, "b": {"c": [1.5, None]}, "path": tmp_path}
    found = hashed(settings)
    assert len(found) == 16 and set(found) <= set("0123456789abcdef")
    assert found == hashed(dict(reversed(settings.items()))) != hashed({**settings, "a": 2})
    # What is kept beside committed results.
    assert hashed({"given": {"seed": 1}, "atom": None}) == "c27114d4f44978ef"


def full(*_, **__):
    raise OSError(28, "No space left on device")


def test_a_result_that_cannot_be_written_leaves_those_before_it(tmp_path, monkeypatch):
    file = tmp_path / "results.jsonl"
    start_lines(file, HEAD)
    append_line(file, FIRST)
    before = file.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(
            AtomError, match=r"results\.jsonl: the last result could not be written: No space left .*make room"
        ):
            append_line(file, SECOND)
    assert file.read_bytes() == before
    append_line(file, SECOND)
    assert read_lines(file) == [HEAD, FIRST, SECOND]


@pytest.mark.parametrize("moment", ["os.fsync", "os.replace"])
def test_starting_again_on_a_full_disk_loses_no_result(tmp_path, monkeypatch, moment):
    file = tmp_path / "results.jsonl"
    start_lines(file, HEAD)
    append_line(file, FIRST)
    with file.open("a") as stream:
        stream.write('{"seed": 1, "lo')
    monkeypatch.setattr(moment, full)
    with pytest.raises(AtomError, match="could not be written: No space left on device"):
        start_lines(file, HEAD)
    assert read_lines(file) == [HEAD, FIRST] and [path.name for path in tmp_path.iterdir()] == ["results.jsonl"]
