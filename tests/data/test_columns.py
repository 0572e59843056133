"""Which columns are read, and for which task."""

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
