"""The page as HTML: what it must hold, escape, survive and reject. In a browser: test_browser.py."""

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from atom_hf.errors import AtomError
from atom_hf.importance.results import WordImportance
from atom_hf.visualization.page import MOST_WORDS, Figure, Table, write_page
from helpers.importances import HOSTILE, NAN, atom, picture, random_atoms, sample_set, text

VOID = {"meta", "img", "br", "hr", "link", "input"}


class PageParser(HTMLParser):
    """Fails on tags that do not nest; keeps the tags with their attributes, and the text."""

    def __init__(self, html: str):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        assert len({name for name, _ in attributes}) == len(attributes)
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] not in (["style"], ["script"]):
            self.text += data

    def all(self, tag, **wanted):
        return [found for name, found in self.tags if name == tag and wanted.items() <= found.items()]


def written(tmp_path, **what) -> tuple[str, PageParser]:
    html = write_page(tmp_path / "page.html", **{"title": "Heads", **what}).read_text(encoding="utf-8")
    return html, PageParser(html)


@pytest.fixture
def full():
    rows = [["atoms", "94.2 %", "ours"], ["plain", "–", "theirs"]]
    grid = np.linspace(-1, 1, 16).reshape(4, 4)
    verse = text("Rough winds — do", [0.42, -0.42, NAN, 0.001], label="Shakespeare", predicted="Shakespeare")
    return {
        "intro": "One paragraph.\n\nAnother one.",
        "tables": [Table("Scores", ["Method", "Accuracy", "Note"], rows, "n = 3")],
        "images": [
            picture(grid, label="3", predicted="3", confidence=0.9999),
            picture([[0.5, NAN], [-0.25, 0]], (30, 50), label="8", predicted="3", confidence=0.41, name="eight.png"),
        ],
        "texts": [
            replace(verse, confidence=1.0),
            text("I celebrate", [-1, 1], label="Whitman", predicted="Dickinson", confidence=0.5),
        ],
    }


def test_the_page_is_valid_semantic_and_offline(tmp_path, full):
    html, page = written(tmp_path, **full)
    assert html.startswith("<!doctype html>")
    assert page.all("html", lang="en") and page.all("meta", name="viewport") and page.all("meta", charset="utf-8")
    assert [len(page.all(tag)) for tag in ("main", "h1", "head", "script", "link")] == [1, 1, 1, 1, 0]
    ids = [found["id"] for _, found in page.tags if "id" in found]
    assert len(set(ids)) == len(ids)
    assert {found["aria-labelledby"] for _, found in page.tags if "aria-labelledby" in found} <= set(ids)
    assert {found["href"] for _, found in page.tags if "href" in found} <= {"#" + name for name in ids}
    assert not re.search(r"https?:|@import|url\(", re.sub(r"base64,[A-Za-z0-9+/=]+", "", html))
    pictures = page.all("img")
    assert len(pictures) == 4 and all(found["src"].startswith("data:image/png;base64,") for found in pictures)
    assert all("predicted 3" in found["alt"] for found in pictures)
    assert "true class 8, wrong, confidence 41%" in pictures[3]["alt"] and "−0.25 to +0.50" in pictures[3]["alt"]
    assert "One paragraph." in page.text and "Another one." in page.text


@pytest.mark.promise("Untrusted texts and names control neither the terminal, nor a page, nor a card.")
def test_only_the_pages_own_script_may_run_and_nothing_may_be_fetched(tmp_path, full):
    html, page = written(tmp_path, **full)
    (policy,) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    rules = {"default-src 'none'", "img-src data:", "style-src 'unsafe-inline'", f"script-src 'sha256-{digest}'"}
    assert set(policy["content"].split("; ")) == rules


def test_tables_have_a_caption_scopes_and_aligned_numbers(tmp_path, full):
    _, page = written(tmp_path, tables=full["tables"])
    assert len(page.all("caption")) == 1 and "Scores" in page.text and "n = 3" in page.text
    assert len(page.all("th", scope="col")) == 3 and len(page.all("th", scope="row")) == 2
    assert [found.get("class") for found in page.all("td")] == ["number", None] * 2
    assert "Reading the colours" not in page.text  # nothing is coloured here
    _, page = written(tmp_path, tables=[Table("No rows", ["", "b"], [])])
    assert len(page.all("th", scope="col")) == 1  # an empty cell heads nothing


def test_words_carry_their_value_and_the_text_stays_as_it_was_written(tmp_path):
    source = "  Rough winds,\n\n do\tshake the darling buds"
    result = text(source, [0.42, -0.42, NAN, 0.001, 1, -1, 0.5])
    result = replace(result, pieces=[WordImportance("Ro", 2, 4, 0.1), WordImportance("ugh", 4, 7, 0.74)])
    html, page = written(tmp_path, texts=[result])
    marks = page.all("mark")
    assert [(found["class"], found["title"]) for found in marks] == [
        ("w p8", "+0.42, mean of Ro +0.10, ugh +0.74"), ("w n8", "−0.42"), ("w none", "no token"), ("w z", "0.00"),
        ("w p20", "+1.00"), ("w n20", "−1.00"), ("w p10", "+0.50"),
    ]  # fmt: skip
    (words,) = re.findall(r'<div class="words" dir="auto">(.*?)</div>', html, re.S)
    assert re.sub("<[^>]*>", "", words) == source
    # The same in a list that is closed until it is asked for.
    assert len(page.all("details")) == 1 and not page.all("details", open="")
    assert re.findall(r"<b>(.*?)</b>", html) == [found["title"] for found in marks]


def test_pairs_and_cut_texts(tmp_path):
    result = replace(text("one two", [0.5, NAN], truncated=True), pair="three four")
    html, page = written(
        tmp_path, texts=[replace(result, words=[*result.words, WordImportance("three", 0, 5, 0.1, 1)])]
    )
    assert html.count('<div class="words"') == 2 and "read only the beginning" in page.text
    assert '<mark class="w none cut" title="no token">two</mark>' in html and '<span class="cut"> four</span>' in html
    _, page = written(tmp_path, texts=[text("one", [0.5])])
    assert "only the beginning" not in page.text


def test_a_wrong_prediction_is_told_by_word_and_border(tmp_path, full):
    html, page = written(tmp_path, **full)
    assert len(page.all("figure", **{"class": "card miss"})) == 2 and "2 of 4 classified correctly" in page.text
    assert html.count('<span class="wrong">wrong</span>') == 4  # on their cards, and in the table
    _, page = written(tmp_path, images=[picture([[1]], label="a"), picture([[1]], predicted="b")])
    assert not page.all("figure", **{"class": "card miss"}) and "classified correctly" not in page.text


def test_the_legend(tmp_path, full):
    _, page = written(tmp_path, **full)
    assert "+1 carries meaning and tells the sample apart; −1 tells it apart without" in page.text
    assert "hatched ones have no value" in page.text and "did not see" not in page.text
    assert "Pictures" in page.text and "eight.png" in page.text
    _, page = written(tmp_path, texts=[text("a b", [0.1, -0.2])], fitted=True)
    assert "the prediction leans on it" in page.text and "carries meaning" not in page.text
    assert "+0.2" in page.text and "are small" in page.text
    assert "are of the charges" not in page.text  # of a single sample none are shown
    assert [found["class"] for found in page.all("mark")] == ["w p10", "w n20"]
    _, page = written(tmp_path, images=[picture([[1]], box=(0, 0, 4, 8))])
    assert "the model did not see the dark parts" in page.text


def test_what_is_of_the_charges_where_importance_is_fitted(tmp_path):
    for fitted in (False, True):
        _, page = written(tmp_path, **sample_set(2), fitted=fitted)
        assert ("radii and distances come from its charges, not from the importance" in page.text) == fitted
        assert "Importance of tokens" in page.text


def test_one_sample_needs_no_table_and_no_map(tmp_path):
    _, page = written(tmp_path, texts=[text("a", [1], atom=atom(0.5, 0.1, [0, 1], 1))])
    assert not page.all("table") and not page.all("nav") and not page.all("svg")


def test_every_sample_has_a_row_that_leads_to_it_and_a_mark_on_the_map(tmp_path):
    html, page = written(tmp_path, **sample_set(5))
    wanted = [f"sample-{number}" for number in range(1, 11)]
    assert [found["id"] for found in page.all("figure") if "id" in found] == wanted
    rows = re.findall(r'<th scope="row" role="rowheader"><a href="#(sample-\d+)"', html)
    assert rows == wanted
    assert [found["data-s"] for found in page.all("g") if "data-s" in found] == [str(n) for n in range(1, 11)]
    assert [found["data-sample"] for found in page.all("tr") if "data-sample" in found] == [
        str(n) for n in range(1, 11)
    ]


def test_the_nearest_samples_are_listed_on_demand(tmp_path):
    texts = [
        text(f"text {i}", [0.5, -0.2], atom=atom(0.5, 0.1, [i * i, 0], 0.1), predicted="a") for i in range(5)
    ]  # at 0, 1, 4, 9 and 16
    html, _ = written(tmp_path, texts=texts)
    lists = re.findall(r'<ol class="near">(.*?)</ol>', html, re.DOTALL)
    assert [re.findall(r"#sample-(\d)", part) for part in lists] == [
        ["2", "3", "4"], ["1", "3", "4"], ["2", "1", "4"], ["3", "5", "2"], ["4", "3", "2"],
    ]  # fmt: skip
    assert re.findall(r'class="hint">([\d.]+), ', lists[0]) == ["1.00", "4.00", "9.00"]
    own = re.findall(r'<g class="own" aria-hidden="true">(.*?)</g>', html, re.DOTALL)
    assert [part.count("<line") for part in own] == [3] * 5 and all(part.count("<circle") == 1 for part in own)


@pytest.mark.parametrize("count", [3, 13])
def test_samples_come_before_their_overview(tmp_path, count):
    html, page = written(tmp_path, texts=sample_set(count)["texts"])
    heads = re.findall(r"<h2 id=\"\w+\">(.*?)</h2>", html)
    assert heads == ["Texts", "Reading the colours", "All samples", "Atoms", "Distributions"]
    links = [found["href"][1:] for found in page.all("a") if not found["href"].startswith("#sample-")]
    assert links == [name for name in re.findall(r"<h2 id=\"(\w+)\">", html) if name != "scale"]


def test_samples_without_an_atom_are_left_out_of_the_map(tmp_path):
    results = sample_set(4)["texts"]
    results[1] = replace(results[1], atom=None)
    results[2] = replace(results[2], atom=replace(results[2].atom, radius=-1.0))
    _, page = written(tmp_path, texts=results)
    assert [found["data-s"] for found in page.all("g") if "data-s" in found] == ["1", "4"]
    _, page = written(tmp_path, texts=results[:3])
    assert "Distance and rest distance" not in page.text and "Importance of tokens" in page.text


def test_the_map_says_what_it_counts(tmp_path):
    atoms = random_atoms(12)
    texts = [text("a", [0.5], atom=one, label=f"class {i}") for i, one in enumerate(atoms)]
    html, page = written(tmp_path, texts=texts)
    closer, further, repels = (
        int(re.search(rf"{name} \((\d+)\)", page.text)[1])
        for name in ("closer than rest", "further than rest", "repel at every distance")
    )
    shared = re.sub(r'<g class="own".*?</g>', "", html, flags=re.DOTALL)
    assert closer + further + repels == shared.count("<line class") - 3  # three in the key
    assert re.search(r"keep \d+% of the centres' variance", page.text)


def test_rest_distances_are_those_of_the_softened_energy(tmp_path):
    texts = sample_set(6)["texts"]
    _, page = written(tmp_path, texts=texts)
    assert "Right of the line" in page.text and "No pair has a rest distance" not in page.text
    _, page = written(tmp_path, texts=texts, softening=1e9)
    assert "No pair has a rest distance above 0" in page.text


def test_more_classes_than_marks(tmp_path):
    texts = [text("a", [0.5], atom=one, label=f"class {i}") for i, one in enumerate(random_atoms(60, width=3))]
    _, page = written(tmp_path, texts=texts)
    assert "19 of other classes" in page.text


@pytest.mark.promise("Untrusted texts and names control neither the terminal, nor a page, nor a card.")
def test_every_text_is_escaped(tmp_path):
    about = {"label": HOSTILE, "predicted": HOSTILE + "!"}
    first, second = random_atoms(2)
    html, page = written(
        tmp_path,
        title=HOSTILE,
        intro=HOSTILE,
        tables=[Table(HOSTILE, [HOSTILE, HOSTILE], [[HOSTILE, HOSTILE]], HOSTILE)],
        images=[picture([[1]], name=HOSTILE, atom=first, **about)],
        texts=[
            replace(text(HOSTILE, [0.5] * len(HOSTILE.split()), atom=second, **about), pair=HOSTILE),
            text("", [], pair="", label='"'),
        ],
    )
    assert len(page.all("script")) == 1 and html.count("<script") == 1 and "<svg onload" not in html
    assert not [found for _, found in page.tags for name in found if name.startswith("on")]
    # What would reorder or break the page is replaced; a mark of direction is part of the text and stays.
    assert not re.search("[\x00\u202a-\u202e\u2066-\u2069\ud800-\udfff]", html)
    shown = re.sub("[\x00\u202e\u2066\ud800]", "\ufffd", HOSTILE)
    assert page.text.count(shown) >= 17 and "\u200f" in shown and "{{ 7*7 }}" in shown
    assert shown in page.all("img")[0]["alt"] and "empty" in page.text


def test_ten_thousand_words_and_two_thousand_samples_stay_light(tmp_path):
    values = np.random.default_rng(0).uniform(-1, 1, 10_000)
    long = text(" ".join(f"word{index}" for index in range(10_000)), values.tolist())
    html, page = written(tmp_path, texts=[long])
    assert len(html.encode()) < 2_000_000 and len(page.all("mark")) == 10_000
    few = text("a few words of text " * 3, [0.1, -0.5, 0.3, 0.2, -1] * 3)
    texts = [replace(few, atom=one, label=str(i % 10)) for i, one in enumerate(random_atoms(2000, width=64))]
    html, page = written(tmp_path, texts=texts)
    assert len(html.encode()) < 8_000_000 and len(page.all("g")) > 2000
    assert "1,500 are drawn, chosen at random" in page.text
    assert len(texts) * 15 > MOST_WORDS and not page.all("details") and "too many words" in page.text


def test_many_pictures_are_small(tmp_path):
    images = [picture(np.zeros((14, 14)), (224, 224))] * 61
    _, page = written(tmp_path, images=images)
    assert {found["width"] for found in page.all("img")} == {"192"} and not page.all("details")
    _, page = written(tmp_path, images=images[:2])
    assert {found["width"] for found in page.all("img")} == {"336"} and len(page.all("details")) == 2


@pytest.mark.parametrize(
    "what, says",
    [
        ({}, "at least one table or result"),
        ({"tables": [Table("T", ["a", "b"], [["1"]])]}, "'T': 2 cells in the header but 1 in a row"),
        ({"texts": [text("a", [7])]}, r"texts\[0\]: importance up to 7"),
        ({"texts": [text("a", [0], atom=atom(1, 0, [0] * n, 1)) for n in (2, 3)]}, r"\[2, 3\] wide"),
    ],
)
def test_what_does_not_fit_is_rejected(tmp_path, what, says):
    with pytest.raises(AtomError, match=says):
        write_page(tmp_path / "page.html", title="x", **what)
    assert not list(tmp_path.iterdir())


def test_figures_stand_with_their_words_and_the_measures_with_their_meaning(tmp_path):
    figure = Figure("Which <say> the same", b"\x89PNG of it", 'A "map"', "Brighter is nearer.")
    _, page = written(tmp_path, figures=[figure], measures=True)
    (image,) = page.all("img")
    assert image["alt"] == 'A "map"' and base64.b64decode(image["src"].split(",")[1]) == figure.png
    assert "Which <say> the same" in page.text and "Brighter is nearer." in page.text
    for words in ("NMI: shared bits", "a lower bound", "Chance: "):
        assert words in page.text
    assert {"#figures", "#measures"} <= {link["href"] for link in page.all("a")}
    _, plain = written(tmp_path, tables=[Table("T", ["a"], [["b"]])])
    assert not plain.all("img") and "NMI" not in plain.text
