"""Files that a user names: what they hold, and the line that says why they cannot be used."""

import errno
import json
import logging
import os
import re

import pytest
from safetensors import SafetensorError

from atom_hf import AtomError
from atom_hf.errors import WriteError
from atom_hf.utils import files
from atom_hf.utils.files import (
    PART,
    check_output_folder,
    check_page,
    complete,
    read_json,
    read_yaml,
    replacing,
    write_atomically,
    write_failure,
)
from atom_hf.utils.lock import HOST

FULL = OSError(errno.ENOSPC, "No space left on device")


def test_a_json_object_is_read(tmp_path):
    file = tmp_path / "state.json"
    file.write_text('{"name": "früh", "n": [1, 2.5, null]}', encoding="utf-8")
    assert read_json(file, 100, "state") == read_json(str(file), 100, "state") == {"name": "früh", "n": [1, 2.5, None]}


@pytest.mark.promise(
    "Bad input ends in one line that names the argument, with exit code 2, before training, and nothing is written."
)
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{", "Expecting property name"),
        (b"", "Expecting value"),
        (b"\xff{}", "'utf-8' codec can't decode"),
        (b"[" * 100_000, "maximum recursion depth"),
        (b"[1]", "it must be a JSON object, got list"),
        (b"null", "it must be a JSON object, got NoneType"),
    ],
    ids=["cut short", "empty", "not UTF-8", "too deep", "a list", "null"],
)
def test_another_content_is_rejected_in_one_line(tmp_path, content, says):
    file = tmp_path / "state.json"
    file.write_bytes(content)
    with pytest.raises(AtomError) as caught:
        read_json(file, 2**20, "atom state")
    text = str(caught.value)
    assert text.startswith(f"{file} is not a readable atom state: ") and says in text and "\n" not in text


def test_a_json_file_that_is_not_there_is_rejected(tmp_path):
    for file in (tmp_path / "nothing.json", tmp_path):
        with pytest.raises(AtomError, match="is not a readable atom state"):
            read_json(file, 100, "atom state")


@pytest.mark.promise(
    "Bad input ends in one line that names the argument, with exit code 2, before training, and nothing is written."
)
def test_a_json_file_may_be_no_larger_than_it_is_allowed(tmp_path):
    file = tmp_path / "state.json"
    file.write_text(json.dumps({"a": "x" * 10}))
    size = file.stat().st_size
    assert read_json(file, size, "atom state") == {"a": "x" * 10}
    with pytest.raises(AtomError, match=f"is larger than the {size - 1} bytes that an atom state may have"):
        read_json(file, size - 1, "atom state")


def test_a_yaml_file_is_read(tmp_path):
    file = tmp_path / "arms.yaml"
    file.write_text("früh: {atom: true}\nn: [1, 2.5]\n", encoding="utf-8")
    assert read_yaml(str(file), "--arms") == {"früh": {"atom": True}, "n": [1, 2.5]}


@pytest.mark.promise(
    "Bad input ends in one line that names the argument, with exit code 2, before training, and nothing is written."
)
@pytest.mark.parametrize("content", [b"{", b"\xff\xfe\x00", b"!!python/object/apply:os.getcwd []"])
def test_a_yaml_file_that_cannot_be_read_is_rejected_in_one_line(tmp_path, content):
    file = tmp_path / "arms.yaml"
    file.write_bytes(content)
    with pytest.raises(AtomError) as caught:
        read_yaml(str(file), "--arms")
    assert str(caught.value).startswith(f"--arms {str(file)!r} cannot be read: ") and "\n" not in str(caught.value)


BILLION = "a: &a [1, 2, 3, 4, 5, 6, 7, 8, 9]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)
MERGED = "a: &a {k: 1}\n" + "".join(
    f"{name}: &{name} {{<<: [{', '.join([f'*{before}'] * 9)}]}}\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)
TOO_MUCH = {
    "aliases of aliases": (BILLION, "or expands to more than 100000 values"),
    "merged aliases": (MERGED, "or expands to more than 100000 values"),
    "an alias that holds itself": ("a: &a [*a]", "an alias holds itself"),
    "a chain of aliases that does": ("a: &a {b: &b {c: *a}}", "an alias holds itself"),
    "nested in flow": ("[" * 600 + "]" * 600, "nested too deeply"),
    "nested in blocks": ("".join(f"{' ' * i}a:\n" for i in range(100)), "nested more than 64 deep"),
    "too large": ("a: " + "x" * 2**20, "is larger than the 1048576 bytes that it may have"),
    "a date that is none": ("a: 2001-99-99", "month must be in 1..12"),
    "a number too long": ("a: " + "9" * 5000, "4300"),
}


@pytest.mark.parametrize(("content", "says"), TOO_MUCH.values(), ids=TOO_MUCH)
def test_a_yaml_file_that_asks_for_too_much_is_rejected_in_one_line(tmp_path, content, says):
    file = tmp_path / "arms.yaml"
    file.write_text(content)
    with pytest.raises(AtomError) as caught:
        read_yaml(str(file), "--arms")
    text = str(caught.value)
    assert text.startswith(f"--arms {str(file)!r} ") and says in text and "\n" not in text and len(text) < 400


def test_aliases_and_merged_settings_are_read(tmp_path):
    file = tmp_path / "arms.yaml"
    file.write_text("base: &base {a: 1, b: [1, 2]}\nmore: {<<: *base, c: *base}\nagain: *base\n")
    base = {"a": 1, "b": [1, 2]}
    assert read_yaml(str(file), "--arms") == {"base": base, "more": {**base, "c": base}, "again": base}
    file.write_text("")
    assert read_yaml(str(file), "--arms") is None


def test_a_yaml_file_that_is_not_there_is_rejected(tmp_path):
    for path in (tmp_path / "nothing.yaml", tmp_path):
        with pytest.raises(AtomError, match=r"study '.*' cannot be read: "):
            read_yaml(str(path), "study")


@pytest.mark.promise("Output that cannot be written is rejected before the work begins.")
def test_a_page_that_cannot_be_written_is_rejected_first(tmp_path):
    (tmp_path / "file").write_text("")
    check_page(str(tmp_path / "new" / "page.html"))
    for page in (tmp_path, tmp_path / "file" / "page.html"):
        with pytest.raises(AtomError, match="--page"):
            check_page(str(page))
        with pytest.raises(AtomError, match="--output"):
            check_page(str(page), "--output")


@pytest.mark.promise("Output that cannot be written is rejected before the work begins.")
def test_a_file_where_a_folder_would_be_made_is_rejected(tmp_path):
    (tmp_path / "taken").touch()
    with pytest.raises(AtomError, match=r"^--output_dir '.*taken' is a file; give a folder$"):
        check_output_folder(tmp_path / "taken")
    with pytest.raises(AtomError, match=r"^--into '.*taken'"):
        check_output_folder(str(tmp_path / "taken"), "--into")


def test_a_folder_may_be_there_or_not(tmp_path):
    check_output_folder(tmp_path)
    check_output_folder(tmp_path / "new" / "one")


@pytest.mark.parametrize("inside", ["inner", "inner/most"])
def test_a_folder_within_a_file_is_rejected(tmp_path, inside):
    (tmp_path / "taken").touch()
    with pytest.raises(
        AtomError, match=r"^--output_dir '.*' cannot be made: '.*taken' is a file; give another folder$"
    ):
        check_output_folder(tmp_path / "taken" / inside)


@pytest.mark.parametrize("inside", ["", "new", "new/one"])
def test_a_folder_that_cannot_be_written_to_is_rejected(tmp_path, monkeypatch, inside):
    # Asked of the system, since to root a folder's permissions are nothing, and a read-only file system is.
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(
        AtomError, match=r"^--output_dir '.*' cannot be written to: .* may not be written to; give another"
    ):
        check_output_folder(tmp_path / inside)
    with pytest.raises(
        AtomError, match=r"^--page '.*' cannot be written: .* may not be written to; give .* another file$"
    ):
        check_page(str(tmp_path / inside / "page.html"))


# Writing


def content(folder):
    """The files below a folder, by path, with what they hold."""
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def cut_short(error):
    def write(file):
        file.write_text("ha")
        raise error

    return write


@pytest.mark.parametrize("before", [None, "old"])
@pytest.mark.parametrize("error", [FULL, SafetensorError("I/O error: File too large (os error 27)")])
def test_a_file_that_cannot_be_written_is_as_it_was(tmp_path, before, error):
    file = tmp_path / "results.md"
    if before:
        file.write_text(before)
    with pytest.raises(WriteError, match=r"results\.md could not be written: (No space left|File too large)"):
        write_atomically(file, cut_short(error))
    assert content(tmp_path) == ({"results.md": "old"} if before else {})


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError()])
def test_what_is_wrong_otherwise_is_raised_as_it_is(tmp_path, error):
    (tmp_path / "file").write_text("old")
    with pytest.raises(type(error)):
        write_atomically(tmp_path / "file", cut_short(error))
    with pytest.raises(type(error)), replacing(tmp_path) as part:
        (part / "file").write_text("new")
        raise error
    assert content(tmp_path) == {"file": "old"}


def test_a_file_is_written_to_a_folder_that_is_made_and_a_link_stays_one(tmp_path):
    assert write_atomically(tmp_path / "a" / "b.txt", "früh") == tmp_path / "a" / "b.txt"
    (tmp_path / "link").symlink_to("a/b.txt")
    write_atomically(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "a" / "b.txt").read_text() == "new"
    write_atomically("/dev/null", "gone")
    assert not os.path.isfile("/dev/null")


def test_permissions_are_those_of_any_new_file_and_stay(tmp_path):
    def private(file):  # as safetensors does
        file.unlink()
        os.close(os.open(file, os.O_CREAT | os.O_WRONLY, 0o600))

    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "weights.safetensors", private)
        (tmp_path / "README.md").touch(0o600)
        with replacing(tmp_path) as part:
            private_part = part / "model.safetensors"
            private_part.touch()
            private(private_part)
            (part / "README.md").write_text("new")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"weights.safetensors": 0o640, "model.safetensors": 0o640, "README.md": 0o600}


OLD = {"config.json": "old", "heads": "old", "mine.txt": "mine", "model-00001-of-00002": "old"}
NEW = {"config.json": "new", "heads": "new", "pooling/config.json": "new", "model-00001-of-00001": "new"}
STALE = re.compile(r"model.*")


def fill(folder, texts):
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def save(folder, **options):
    with replacing(folder, ("heads", "config.json"), STALE) as part:
        fill(part, NEW)
        (part / "empty").mkdir()
        assert content(folder) == {**OLD, **{f"{part.name}/{name}": text for name, text in NEW.items()}}


def test_files_take_the_places_of_others_together(tmp_path, monkeypatch):
    fill(tmp_path, OLD)
    moved, real = [], os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (moved.append(b.relative_to(tmp_path).as_posix()), real(a, b)))
    save(tmp_path)
    assert content(tmp_path) == {"mine.txt": "mine", **NEW} and (tmp_path / "empty").is_dir()
    assert len(moved) == 1 + len(NEW) and moved[0].endswith("/.done") and moved[-2:] == ["heads", "config.json"]


def test_what_is_not_written_again_stays_and_weights_only_go_for_weights(tmp_path):
    fill(tmp_path, OLD)
    with replacing(tmp_path, stale=STALE) as part:
        fill(part, {"heads": "new"})
    assert content(tmp_path) == {**OLD, "heads": "new"}


@pytest.mark.parametrize("at", range(1 + len(NEW)))
def test_a_save_that_is_broken_off_while_files_are_renamed_is_completed(tmp_path, monkeypatch, caplog, at):
    fill(tmp_path, OLD)
    with monkeypatch.context() as patch:
        done, real = [], os.replace

        def replace(a, b):
            if len(done) == at:
                raise KeyboardInterrupt
            done.append(real(a, b))

        patch.setattr(os, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path)
    with caplog.at_level(logging.WARNING, "atom_hf"):
        complete(tmp_path)
        complete(tmp_path)
    # The first to be renamed is the list of them, without which nothing has been saved.
    assert content(tmp_path) == ({"mine.txt": "mine", **NEW} if at else OLD)
    assert caplog.text.count("a save was interrupted when all had been written; it has been completed") == min(at, 1)


def test_what_a_killed_save_left_half_written_is_removed_and_a_running_one_is_left(tmp_path):
    fill(tmp_path, {f"{PART}{HOST}.{pid}-x/model": "ha" for pid in (2**22 + 5, os.getppid())})
    fill(tmp_path, {f"{PART}elsewhere.{pid}-x/model": "ha" for pid in (7, 8)} | {"model": "old"})
    os.utime(tmp_path / f"{PART}elsewhere.8-x", (0, 0))
    complete(tmp_path)
    left = {f"{PART}{HOST}.{os.getppid()}-x/model", f"{PART}elsewhere.7-x/model", "model"}
    assert content(tmp_path).keys() == left


@pytest.mark.parametrize("name", ["../out", "/tmp/atom-hf-out", "link/out", "a/../../out", 7, ""])
@pytest.mark.parametrize("key", ["files", "removed", "folders"])
def test_a_foreign_list_of_saved_files_reaches_nothing_outside(tmp_path, caplog, name, key):
    folder, part = tmp_path / "model", tmp_path / "model" / f"{PART}x"
    fill(tmp_path, {"out": "mine", "elsewhere/out": "mine"})
    fill(part, {"out": "theirs", ".done": json.dumps({key: [name]})})
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (part / "link").mkdir()
    (part / "link" / "out").write_text("theirs")
    with caplog.at_level(logging.WARNING, "atom_hf"):
        complete(folder)
    assert (tmp_path / "out").read_text() == (tmp_path / "elsewhere" / "out").read_text() == "mine"
    assert "names files outside its folder" in caplog.text


@pytest.mark.parametrize("content", ["", "{", "[]", '{"files": 3}', '{"files": {"a": 1}}'])
def test_a_list_of_saved_files_that_is_none_is_said(tmp_path, caplog, content):
    fill(tmp_path, {f"{PART}x/.done": content, "model": "old"})
    with caplog.at_level(logging.WARNING, "atom_hf"):
        complete(tmp_path)
    assert "cannot be completed" in caplog.text and (tmp_path / "model").read_text() == "old"


def chained(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (FULL, "No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied"), "Permission denied"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), "No space left on device"),
        (Exception("Disk quota exceeded (os error 122)"), os.strerror(122)),
        (
            RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0"),
            "a file could not be written",
        ),
        (chained(ValueError("something else"), FULL), "No space left on device"),
        (WriteError("somewhere: full", "full"), "full"),
        (chained(ValueError("no such module"), FileNotFoundError(errno.ENOENT, "No such file")), None),
        (ValueError("size mismatch"), None),
        (KeyboardInterrupt(), None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_why_a_file_could_not_be_written_is_found_in_the_errors_of_any_library(error, why):
    found = write_failure(error)
    assert found is None if why is None else found.startswith(why)


def test_a_disk_that_is_full_while_flushing_leaves_what_was_there(tmp_path, monkeypatch):
    fill(tmp_path, OLD)

    def fsync(_):
        raise FULL

    monkeypatch.setattr(files.os, "fsync", fsync)
    with pytest.raises(
        WriteError, match=r"could not be written to: No space left on device; what was there is unchanged$"
    ):
        save(tmp_path)
    assert content(tmp_path) == OLD
