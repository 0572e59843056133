"""Rows to predict: found, renamed, joined and read in parts, from every kind of file."""

import json

import datasets
import numpy as np
import pytest
from PIL import Image

from atom_hf import AtomError
from atom_hf.data.rows import ROLES, read_rows

pytestmark = pytest.mark.usefixtures("own_folder")
NONE = dict.fromkeys(ROLES)


@pytest.fixture(autouse=True)
def files(own_folder, tmp_path):
    (tmp_path / "a.csv").write_text("id,text,label\n7,the sea,calm\n8,,calm\n")
    (tmp_path / "b.csv").write_text('text,label\n"two\nlines",rough\nrivers,\n')
    (tmp_path / "c.tsv").write_text("verse\tnote\nthe sea\tx\n")
    (tmp_path / "d.jsonl").write_text('{"premise": "a", "hypothesis": "b", "label": 1}\n')
    (tmp_path / "e.txt").write_text("the sea\n\n rivers\n")
    (tmp_path / "n.csv").write_text("text,number\nthe sea,1.5\n")
    datasets.Dataset.from_dict({"sentence": ["x", "y"], "label": [0, 1]}).to_parquet("f.parquet")
    for name in ("flat/1.png", "flat/0.PNG", "kinds/daisy/0.png", "kinds/rose/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 6), 40 * int(name[-5]), np.uint8)).save(name)
    (tmp_path / "flat" / "notes.txt").write_text("no picture")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG and nothing else")
    (tmp_path / "digits").write_text("none")


@pytest.mark.parametrize(
    ("names", "given", "expected"),
    [
        (["b.csv"], {}, [{"text": "two\nlines", "label": "rough"}, {"text": "rivers", "label": None}]),
        (["c.tsv"], {}, [{"text": "the sea"}]),
        (["c.tsv"], {"text": "note"}, [{"text": "x"}]),
        (["d.jsonl"], {}, [{"text": "a", "text_pair": "b", "label": 1}]),
        (["e.txt"], {}, [{"text": "the sea"}, {"text": ""}, {"text": " rivers"}]),
        (["f.parquet"], {}, [{"text": "x", "label": 0}, {"text": "y", "label": 1}]),
        (["n.csv"], {"label": "number"}, [{"text": "the sea", "label": 1.5}]),
        (["e.txt", "c.tsv"], {}, [{"text": "the sea"}, {"text": ""}, {"text": " rivers"}, {"text": "the sea"}]),
    ],
)
def test_texts(names, given, expected):
    rows = read_rows(names, False, {**NONE, **given})
    assert len(rows) == len(expected) and rows.part(0, len(rows)) == expected
    assert [row for start in range(len(rows)) for row in rows.part(start, start + 1)] == expected
    assert ("label" in rows.columns) == ("label" in expected[0])


def test_pictures_have_the_names_of_their_files():
    rows = read_rows(["flat", "kinds/rose/1.png"], True, NONE)
    part = rows.part(0, 3)
    assert [row["file"] for row in part] == ["0.PNG", "1.png", "1.png"] and rows.columns == {}
    assert [np.asarray(row["image"]).max() for row in part] == [0, 40, 40] and part[0]["image"].size == (6, 4)
    rows = read_rows(["kinds"], True, NONE)
    part = rows.part(0, 2)
    assert rows.label_feature.names == ["daisy", "rose"] and [row["label"] for row in part] == [0, 1]
    assert [row["file"] for row in part] == ["0.png", "1.png"]


def test_what_is_mapped_is_on_the_disk():
    assert all(name["filename"].endswith(".arrow") for name in read_rows(["b.csv"], False, NONE).rows.cache_files)


@pytest.mark.parametrize(
    ("names", "of_images", "given", "says"),
    [
        (["nosuch.csv"], False, {}, "--file 'nosuch.csv': there is no such file or folder"),
        (["a.csv"], False, {}, "--file 'a.csv': 1 rows have no text in column 'text'"),
        (["b.csv"], False, {"text": "words"}, "--text_column 'words' does not exist in --file 'b.csv'"),
        (["n.csv"], False, {"text": "number"}, "--text_column 'number' does not hold strings"),
        (["b.csv"], True, {}, "the model takes images, and no column holds any"),
        (["flat"], False, {}, "the model takes texts, and pictures were given"),
        (["kinds"], False, {}, "the model takes texts, and no column holds any"),
        (["flat", "b.csv"], True, {}, "no column holds any"),
        (["flat", "e.txt"], False, {}, "pictures and other files were given"),
        (["flat"], True, {"label": "x"}, "--label_column: pictures have no columns"),
        (["b.csv", "e.txt"], False, {}, "the files have different columns"),
        (["b.csv", "f.parquet"], False, {}, "columns of the same name hold different things"),
        (["digits"], False, {}, "are not read"),
    ],
)
def test_what_is_rejected(names, of_images, given, says):
    with pytest.raises(AtomError) as error:
        read_rows(names, of_images, {**NONE, **given})
    assert says in str(error.value) and "\n" not in str(error.value)


def test_a_broken_picture_is_named_when_it_is_read():
    rows = read_rows(["flat", "broken.png"], True, NONE)
    assert len(rows.part(0, 2)) == 2
    with pytest.raises(AtomError, match=r"broken\.png' cannot be read"):
        rows.part(0, 3)


def test_json_lines_of_pictures_bytes_are_not_taken_for_texts(tmp_path):
    (tmp_path / "x.jsonl").write_text(json.dumps({"number": 3}) + "\n")
    with pytest.raises(AtomError, match="no column holds any"):
        read_rows(["x.jsonl"], False, NONE)
