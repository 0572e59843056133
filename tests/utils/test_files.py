"""Files that a user names: what they hold, and the line that says why they cannot be used."""

import json

import pytest

from atom_hf import AtomError
from atom_hf.utils.files import check_output_folder, check_page, read_json, read_yaml


def test_a_json_object_is_read(tmp_path):
    file = tmp_path / "state.json"
    file.write_text('{"name": "früh", "n": [1, 2.5, null]}', encoding="utf-8")
    assert read_json(file, 100, "state") == read_json(str(file), 100, "state") == {"name": "früh", "n": [1, 2.5, None]}


@pytest.mark.promise(
    "Bad input ends in one line that names the argument, with status 2, before training, and nothing is written."
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
    "Bad input ends in one line that names the argument, with status 2, before training, and nothing is written."
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
    "Bad input ends in one line that names the argument, with status 2, before training, and nothing is written."
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


@pytest.mark.promise("What cannot be written is known before the work begins.")
def test_a_page_that_cannot_be_written_is_rejected_first(tmp_path):
    (tmp_path / "file").write_text("")
    check_page(str(tmp_path / "new" / "page.html"))
    for page in (tmp_path, tmp_path / "file" / "page.html"):
        with pytest.raises(AtomError, match="--page"):
            check_page(str(page))
        with pytest.raises(AtomError, match="--output"):
            check_page(str(page), "--output")


@pytest.mark.promise("What cannot be written is known before the work begins.")
def test_a_file_where_a_folder_would_be_made_is_rejected(tmp_path):
    (tmp_path / "taken").touch()
    with pytest.raises(AtomError, match=r"^--output_dir '.*taken' is a file; give a folder$"):
        check_output_folder(tmp_path / "taken")
    with pytest.raises(AtomError, match=r"^--into '.*taken'"):
        check_output_folder(str(tmp_path / "taken"), "--into")


def test_a_folder_may_be_there_or_not(tmp_path):
    check_output_folder(tmp_path)
    check_output_folder(tmp_path / "new" / "one")
