"""Which columns are read, and for which task."""

import datasets
import pytest

from atom_hf.data.load import load_data
from helpers.tables import error_of, write

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.mark.promise("Data are read as they are meant, and what was left out or assumed is said.")
def test_columns_that_are_named_win(tmp_path):
    rows = {"text": list("abcd"), "other": list("efgh"), "label": [0, 1, 0, 1], "kind": list("xyxy")}
    path = write(tmp_path / "d.csv", rows)
    both = {"eval_dataset": path}
    data = load_data(path, text_column="other", text_pair_column="text", label_column="kind", **both)
    assert data.train[0] == {"text": "e", "text_pair": "a", "label": 0} and data.labels == ["x", "y"]
    data = load_data(path, task="causal-lm", **both)
    assert data.train.column_names == ["text"] and data.labels is None


@pytest.mark.promise("Data are read as they are meant, and what was left out or assumed is said.")
@pytest.mark.parametrize("columns", ["sentence1 sentence2", "premise hypothesis", "Question Sentence", "text1 text2"])
def test_pairs_are_known(tmp_path, columns):
    first, second = columns.split()
    path = write(tmp_path / "d.csv", {first: list("abcd"), second: list("efgh"), "Label": [0, 1, 0, 1]})
    assert load_data(path, eval_dataset=path).train[0] == {"text": "a", "text_pair": "e", "label": 0}
    assert load_data(path, eval_dataset=path, text_column=second).train[0] == {"text": "e", "label": 0}


@pytest.mark.promise("Data are read as they are meant, and what was left out or assumed is said.")
def test_longest_strings_are_the_text(tmp_path):
    rows = {"source": ["https://a.very/long/address"] * 4, "mood": list("abcd"), "remark": ["a few words"] * 4}
    path = write(tmp_path / "d.jsonl", {**rows, "target": [0, 1, 0, 1]})
    assert load_data(path).train["text"][0] == "a few words"


@pytest.mark.promise("Data that cannot be read, or could mean several things, are rejected in one line.")
def test_wrong_columns(tmp_path):
    path = write(tmp_path / "a.csv")
    for role in ("text", "text_pair", "image", "label"):
        message = error_of(path, **{f"{role}_column": "words"})
        assert f"--{role}_column 'words' does not exist; the columns of {path!r} are sentence, label, idx" in message
    assert "--text_column 'idx' does not hold strings; the columns that do: sentence, label" in error_of(
        path, text_column="idx"
    )
    assert "--image_column 'idx' does not hold images" in error_of(
        path, task="image-classification", image_column="idx"
    )
    assert "is given for two roles" in error_of(path, text_column="label", label_column="label")
    path = write(tmp_path / "b.csv", {"a": [1, 2], "b": [0.5, 1.5]})
    assert "no column of images or text is found" in error_of(path) and "are a, b" in error_of(path)
    path = write(tmp_path / "c.jsonl", {"text": [["a", "b"], ["c"]], "title": ["x", "y"]})
    assert "--text_column 'text' does not hold strings; the columns that do: title" in error_of(path)


@pytest.mark.promise("Data that cannot be read, or could mean several things, are rejected in one line.")
def test_task_that_does_not_fit(tmp_path):
    message = error_of("verse", task="image-classification")
    assert "needs a column of images (--image_column)" in message and "are text, label, corpus_index" in message
    for task in ("causal-lm", "text-classification"):
        assert f"--task {task} needs a column of text (--text_column)" in error_of("digits", task=task)
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    message = error_of(str(tmp_path / "a.txt"), task="text-classification")
    assert message.startswith("--label_column: --task text-classification needs one") and message.endswith("are text")


@pytest.mark.promise("Data that cannot be read, or could mean several things, are rejected in one line.")
def test_text_that_is_missing(tmp_path):
    path = write(tmp_path / "d.csv", {"text": ["a", None, "b", "c"], "label": [0, 1, 0, 1]})
    assert "1 rows have no text in column 'text'; fill or remove them" in error_of(path)


# A task is guessed only where nothing else could be meant

LINES = [f"line number {i}" for i in range(8)]


@pytest.mark.parametrize(
    ("other", "what"),
    [
        ({"sentiment": ["pos", "neg"] * 4}, "'sentiment' (2 values: pos, neg)"),
        ({"stars": [1, 2, 3, 4] * 2}, "'stars' (4 values: 1, 2, 3, ...)"),
        ({"is_spam": [True, False] * 4}, "'is_spam' (2 values: True, False)"),
        ({"score": [0.0, 1.0] * 4}, "'score' (2 values: 0.0, 1.0)"),
        ({"author": ["Keats", None, "Blake", "Blake"] * 2}, "'author' (2 values: Keats, Blake)"),
        ({"a": [1, 2] * 4, "b": [1, 2] * 4, "c": [1, 2] * 4, "d": [1, 2] * 4}, " or others could "),
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_column_that_could_hold_classes_settles_no_task(tmp_path, other, what, suffix):
    path = write(tmp_path / f"d{suffix}", {"verse": LINES, **other})
    name = next(iter(other))
    message = error_of(path)
    assert message.startswith("--task is not clear") and what in message
    assert f"give --label_column {name!r}, or --task causal-lm for a language model of 'verse'" in message
    assert load_data(path, task="causal-lm").task == "causal-lm"
    if name in ("sentiment", "stars", "is_spam"):
        assert load_data(path, label_column=name).task == "text-classification"
    assert what in error_of(path, task="text-classification")


@pytest.mark.parametrize(
    "other", [{}, {"id": [1, 2] * 4}, {"title": list("abcdefgh")}, {"length": range(8)}, {"source": ["web"] * 8}]
)
def test_a_column_of_no_classes_leaves_a_language_model(tmp_path, other):
    assert load_data(write(tmp_path / "d.csv", {"verse": LINES, **other})).task == "causal-lm"


def test_a_column_that_is_declared_to_hold_classes_does(tmp_path, caplog):
    rows = datasets.Dataset.from_dict({"verse": LINES, "mood": [0, 1] * 4, "note": ["x", "y"] * 4})
    rows.cast_column("mood", datasets.ClassLabel(names=["calm", "wild"])).to_parquet(tmp_path / "d.parquet")
    with caplog.at_level("INFO", "atom_hf"):
        data = load_data(str(tmp_path / "d.parquet"))
    assert (data.task, data.labels) == ("text-classification", ["calm", "wild"])
    assert data.columns == {"text": "verse", "label": "mood"}
    assert "text-classification of {'text': 'verse', 'label': 'mood'}" in caplog.text


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".csv"])
def test_blanks_around_names_are_overlooked(tmp_path, suffix):
    path = write(tmp_path / f"d{suffix}", {" Text ": LINES, "label ": ["x", "y"] * 4})
    assert load_data(path).labels == ["x", "y"]
    assert load_data(path, text_column="Text", label_column="label ").labels == ["x", "y"]


# Blank texts


@pytest.mark.parametrize("blank", ["", "   ", "\n\t", "\u00a0", "\u2003"])
def test_blank_texts_are_counted(tmp_path, blank, caplog):
    rows = {"text": [blank, blank, *LINES[2:]], "label": ["x", "y"] * 4}
    data = load_data(write(tmp_path / "d.jsonl", rows))
    assert "2 of 8 rows have blank text in column 'text'" in caplog.text
    assert len(data.train) + len(data.eval) == 8
    path = write(tmp_path / "e.jsonl", {**rows, "text": [blank] * 8})
    assert "column 'text' holds only blank text; give one that has words" in error_of(path)


def test_blank_second_texts_are_counted(tmp_path, caplog):
    rows = {"premise": LINES, "hypothesis": ["", *LINES[1:]], "label": ["x", "y"] * 4}
    load_data(write(tmp_path / "d.jsonl", rows))
    assert "1 of 8 rows have blank text in column 'hypothesis'" in caplog.text
