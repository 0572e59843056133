"""Tables and numbers as they are shown, by hand."""

import math

import pytest
from markdown_it import MarkdownIt

from atom_hf.utils.tables import fill_block, format_number, format_table, markdown


def test_columns_are_aligned():
    found = format_table(["metric", "plain"], [["loss", "0.1234"], ["accuracy", "1"]])
    assert found.splitlines() == [
        "metric     plain",
        "--------  ------",
        "loss      0.1234",
        "accuracy       1",
    ]


def test_a_table_of_no_rows_is_its_head():
    assert format_table(["a", "long"], []) == "a  long\n-  ----"
    assert markdown(["a", "long"], []) == "| a | long |\n| --- | --- |\n"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        *[(0.123456, "0.1235"), (-1.5, "-1.5000"), (9.99996, "10.0000"), (0.001, "0.0010"), (0.0001234, "0.0001234")],
        *[(12.3456, "12.35"), (123456.0, "1.235e+05"), (0.0, "0"), (7, "7"), (1234567, "1234567")],
        *[(math.nan, "nan"), (-math.inf, "-inf")],
    ],
)
def test_numbers_have_four_significant_digits(value, shown):
    assert format_number(value) == shown


def test_a_markdown_table_is_read_as_one():
    html = MarkdownIt().enable("table").render(markdown(["a", "b"], [["1", "x y"], ["2", "●"]]))
    assert html.count("<th>") == 2 and html.count("<td>") == 4 and "<td>x y</td>" in html and "<td>●</td>" in html


def test_the_generated_part_of_a_document_is_replaced_and_nothing_else(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "a\n\n<!-- x: make x -->\nold\n<!-- end of x -->\n\n<!-- xy: make xy -->\nkept\n<!-- end of xy -->\n"
    )
    for text in ("new\n\\1", "| ä |\n"):
        fill_block(page, "x", text)
    expected = (
        "a\n\n<!-- x: make x -->\n\n| ä |\n\n<!-- end of x -->\n\n<!-- xy: make xy -->\nkept\n<!-- end of xy -->\n"
    )
    assert page.read_text(encoding="utf-8") == expected


@pytest.mark.parametrize("text", ["", "<!-- x: make x -->\n", "<!-- end of x -->\n<!-- x: make x -->\n"])
def test_a_document_without_the_marks_is_left_alone(tmp_path, text):
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(
        ValueError, match=r"page\.md: give one '<!-- x: COMMAND -->' and, after it, one '<!-- end of x -->'"
    ):
        fill_block(page, "x", "new")
    assert page.read_text() == text
