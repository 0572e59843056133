"""Files of separated values that are not what their name says: read rightly and said so, or rejected."""

import csv
import logging

import pandas as pd
import pytest

from atom_hf.data.delimited import table_options
from atom_hf.data.load import load_data
from helpers.tables import ROWS, error_of, labels, texts, write

pytestmark = [
    pytest.mark.usefixtures("own_cache"),
    pytest.mark.promise(
        "A table of any separator, with or without quotes and a header, loses no row.",
        "separators, lone quotes, long fields, missing or odd headers, byte order marks, row numbers as R writes them",
    ),
]

TEXTS = [f"line number {i}" for i in range(12)]
CLASSES = ["good", "bad"] * 6


def put(path, lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def table(path, separator, header=("text", "label"), rows=None):
    rows = list(zip(TEXTS, CLASSES, strict=True)) if rows is None else rows
    return put(path, [separator.join(row) for row in ([header] if header else []) + list(rows)])


def rows_of(data):
    found = [pair for part in (data.train, data.eval) for pair in zip(texts(part), labels(part), strict=True)]
    return sorted((text, data.labels[label]) for text, label in found)


EXPECTED = sorted(zip(TEXTS, CLASSES, strict=True))


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
@pytest.mark.parametrize(
    "rows",
    [
        ROWS,
        {
            "text": ["5\" disk, 'a'; b|c", 'she said "no", twice', "two\nlines, with\ncommas", 'a "b"\t"c"'],
            "label": list("xyxy"),
        },
        {"text": ["a,\nb,\nc", "d,\ne"] * 2, "label": ["x", "y"] * 2},
        {"only": ["one; two", "three|four", "five"]},
        {"a": [1, 2, 2], "text": ["x", "", "z"], "label": [None, "b", "c"]},
    ],
)
def test_what_pandas_writes_needs_no_option(tmp_path, name, rows):
    path = tmp_path / name
    write(path, rows)
    assert table_options([path], "\t" if path.suffix == ".tsv" else ",", [], "--dataset") == {}


@pytest.mark.parametrize("separator", [";", "\t", "|", ", ", "; "])
def test_another_separator_is_read_and_said(tmp_path, separator, caplog):
    path = table(tmp_path / "a.csv", separator)
    with caplog.at_level(logging.INFO, "atom_hf"):
        assert rows_of(load_data(path)) == EXPECTED
    word = {";": "semicolons", "\t": "tabs", "|": "bars"}.get(separator, "blanks after the separators")
    assert sum(word in record.message for record in caplog.records) == 1


def test_commas_in_a_file_called_tsv(tmp_path):
    assert rows_of(load_data(table(tmp_path / "a.tsv", ","))) == EXPECTED


def test_texts_with_commas_between_semicolons(tmp_path):
    rows = [(f"yes, number {i}, indeed", label) for i, label in enumerate(CLASSES)]
    assert rows_of(load_data(table(tmp_path / "a.csv", ";", rows=rows))) == sorted(rows)


def test_a_separator_that_fits_the_names_but_not_the_rows(tmp_path):
    rows = [("a; b", "good"), ("c", "bad")] * 4
    message = error_of(table(tmp_path / "a.csv", ";", rows=rows))
    assert "separated by semicolons: its header has 2 fields and line 2 has 3" in message
    assert "remove it" in error_of(put(tmp_path / "b.csv", ["sep=;", "text;label", "a;x"]))


@pytest.mark.parametrize(
    "lines",
    [
        ["text,label", "a,x", "b, c,y", "d,x"],  # pandas rejects this one itself
        ["text,label", "b, c,y", "a,x", "d,x"],  # and takes the first field of this for an index
        ["text,label", "a, b,x", "c, d,y"],
        ["text", "a, b", "c, d"],
    ],
)
def test_separators_in_texts_without_quotes(tmp_path, lines):
    message = error_of(put(tmp_path / "a.csv", lines))
    assert "a.csv: its header has" in message and "quote a text that holds the separator" in message


def test_row_numbers_without_a_name_are_no_text(tmp_path, caplog):
    rows = [(f'"{i}"', f'"{text}"', f'"{label}"') for i, (text, label) in enumerate(EXPECTED, 1)]
    path = table(tmp_path / "r.csv", ",", ('"text"', '"label"'), rows)  # as R writes it
    with caplog.at_level(logging.INFO, "atom_hf"):
        assert rows_of(load_data(path)) == EXPECTED
    assert "the first is read as row numbers" in caplog.text


def test_a_separator_at_the_end_of_each_row(tmp_path):
    rows = [(text, label, "") for text, label in EXPECTED]
    assert rows_of(load_data(table(tmp_path / "a.csv", ",", rows=rows))) == EXPECTED


# Quotes


@pytest.mark.parametrize("name", ["a.tsv", "a.csv"])
@pytest.mark.parametrize(
    "strange",
    [
        {3: '"open'},  # pandas swallows all that follows
        {3: '"open', 8: '"again'},
        {3: '"open', 8: 'shut"'},
        {3: '"Hello" she said'},
        {0: '"', 11: 'x "'},
    ],
)
def test_lone_quotes_cost_no_row(tmp_path, name, strange, caplog):
    rows = [(strange.get(i, text), label) for i, (text, label) in enumerate(zip(TEXTS, CLASSES, strict=True))]
    path = table(tmp_path / name, "\t" if name.endswith("tsv") else ",", rows=rows)
    with caplog.at_level(logging.INFO, "atom_hf"):
        assert rows_of(load_data(path)) == sorted(rows)
    assert "has lone quotes: all quotes are read as letters" in caplog.text


def test_a_lone_quote_among_quoted_fields(tmp_path):
    lines = ["text,label", '"a, b",x', '"open,y', "c,x", '"d, e",y']
    assert "a quote opens in line 3 and does not close where its field ends" in error_of(put(tmp_path / "a.csv", lines))


def test_quotes_that_are_lost_are_counted(tmp_path, caplog):
    lines = ["text,label", '"a, b",x', '"Hello" she said,y', '"c, d",x', "e,y"]
    with caplog.at_level(logging.INFO, "atom_hf"):
        load_data(put(tmp_path / "a.csv", lines))
    assert "1 rows of a.csv have text after a closing quote" in caplog.text


def test_a_text_longer_than_csv_allows(tmp_path):
    before = csv.field_size_limit()
    rows = {"text": ["a " * 100_000 + '"', "b", "c", "d"], "label": list("xyxy")}
    path = tmp_path / "a.csv"
    write(path, rows)
    assert table_options([path], ",", [], "--dataset") == {} and csv.field_size_limit() == before


# Headers


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        (EXPECTED, "classes recur"),
        ([(text, f"{i / 7:.3f}") for i, text in enumerate(TEXTS)], "a number above numbers"),
        ([(text, str(i % 2)) for i, text in enumerate(TEXTS)], "digits recur"),
        ([(text, "ny"[i % 2]) for i, text in enumerate(TEXTS)], "a class called as a usual column"),
        ([(f"{i}", text, label) for i, (text, label) in enumerate(EXPECTED)], "three columns"),
    ],
)
def test_a_file_without_header_loses_no_row(tmp_path, rows, what, caplog):
    path = table(tmp_path / "a.csv", ",", None, rows)
    column = f"column{[len(cell.split()) > 1 for cell in rows[0]].index(True) + 1}"
    with caplog.at_level(logging.INFO, "atom_hf"):
        data = load_data(path, task="causal-lm", text_column=column)
    assert len(data.train) + len(data.eval) == len(rows), what
    assert "has no header" in caplog.text and "column1, column2" in caplog.text


def test_a_file_without_header_is_told_the_label_column(tmp_path):
    path = table(tmp_path / "a.csv", ";", None)
    assert "'column2' (2 values: good, bad) could hold classes: give --label_column 'column2'" in error_of(path)
    assert rows_of(load_data(path, label_column="column2")) == EXPECTED
    other = table(tmp_path / "b.csv", ",", None, EXPECTED[:4])
    assert len(load_data(path, label_column="column2", eval_dataset=other).eval) == 4


@pytest.mark.parametrize(
    "header",
    [("text", "good"), ("lyric", "mood"), ("2020", "label"), ("What do you think of it, all in all?", "Answer 1")],
)
def test_unusual_names_are_names(tmp_path, header):
    write(tmp_path / "a.csv", dict(zip(header, (TEXTS, CLASSES), strict=True)))
    assert table_options([tmp_path / "a.csv"], ",", header, "--dataset") == {}
    assert rows_of(load_data(str(tmp_path / "a.csv"), text_column=header[0], label_column=header[1])) == EXPECTED


def test_a_single_column_whose_first_line_may_be_a_row(tmp_path):
    lines = [f"the sea is calm to-night {i}" for i in range(10)]
    path = put(tmp_path / "a.csv", lines)
    assert error_of(path).startswith("--text_column: the first line of a.csv") and "column1 if it is a row" in error_of(
        path
    )
    data = load_data(path, text_column="column1")
    assert len(data.train) + len(data.eval) == 10
    data = load_data(path, text_column=lines[0])
    assert len(data.train) + len(data.eval) == 9


def test_files_that_are_not_written_alike(tmp_path):
    (tmp_path / "d").mkdir()
    table(tmp_path / "d" / "a.csv", ",")
    table(tmp_path / "d" / "b.csv", ";")
    assert "a.csv and b.csv differ in their separator, quotes or header" in error_of(str(tmp_path / "d"))


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path):
    pd.DataFrame({"text": TEXTS, "label": CLASSES}).to_csv(
        tmp_path / "a.csv", index=False, encoding="utf-8-sig", sep=";"
    )
    assert rows_of(load_data(str(tmp_path / "a.csv"))) == EXPECTED
