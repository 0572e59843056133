"""The page and the PNGs: what they must show, survive and refuse."""

import re
import time
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from atom_hf.errors import AtomError
from atom_hf.page import (
    LEVELS,
    NEGATIVE,
    POSITIVE,
    ImageReading,
    Table,
    TextReading,
    heat_map,
    write_page,
    write_sheet,
    write_words,
)

NAN = float("nan")
HOSTILE = (
    '<script>alert("x")</script> \' " onmouseover="evil() \u202eabc\u2066 \u200fשלום\x00 \ud800 & {{ 7*7 }} {% raw %}'
)
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Reader(HTMLParser):
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

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text += data

    def all(self, tag, **wanted):
        return [found for name, found in self.tags if name == tag and wanted.items() <= found.items()]


def picture(grid, shape=(8, 8), **about) -> ImageReading:
    pixels = np.linspace(0, 255, shape[0] * shape[1]).reshape(shape).astype(np.uint8)
    return ImageReading(Image.fromarray(pixels), np.array(grid, float), **{"label": None, "predicted": None, **about})


def text(words, importance, label=None, predicted=None, confidence=None) -> TextReading:
    return TextReading(words, importance, label, predicted, confidence)


def written(tmp_path, **what) -> tuple[str, Reader]:
    html = write_page(tmp_path / "page.html", **{"title": "Heads", **what}).read_text(encoding="utf-8")
    return html, Reader(html)


@pytest.fixture
def full():
    return {
        "intro": "One paragraph.\n\nAnother one.",
        "tables": [
            Table(
                "Scores",
                ["Method", "Accuracy", "Note"],
                [["atoms", "94.2 %", "ours"], ["plain", "–", "theirs"]],
                "n = 3",
            )
        ],
        "images": [
            picture(np.linspace(-1, 1, 16).reshape(4, 4), label="3", predicted="3", confidence=0.9999),
            picture([[0.5, NAN], [-0.25, 0]], (30, 50), label="8", predicted="3", confidence=0.41),
        ],
        "texts": [
            text(["Rough", "winds", "—", "do"], [0.42, -0.42, NAN, 0.001], "Shakespeare", "Shakespeare", 1.0),
            text(["I", "celebrate"], [-1, 1], "Whitman", "Dickinson", 0.5),
        ],
    }


def test_the_page_is_valid_semantic_and_offline(tmp_path, full):
    html, page = written(tmp_path, **full)
    assert html.startswith("<!doctype html>")
    assert page.all("html", lang="en") and page.all("meta", name="viewport") and page.all("meta", charset="utf-8")
    assert [len(page.all(tag)) for tag in ("main", "h1", "h2", "title", "script", "link")] == [1, 1, 4, 1, 0, 0]
    ids = [found["id"] for _, found in page.tags if "id" in found]
    assert len(set(ids)) == len(ids)
    assert {found["aria-labelledby"] for _, found in page.tags if "aria-labelledby" in found} <= set(ids)
    assert not re.search(r"https?:|//|@import|url\(", re.sub(r"base64,[A-Za-z0-9+/=]+", "", html))
    pictures = page.all("img")
    assert len(pictures) == 4
    assert all(found["src"].startswith("data:image/png;base64,") for found in pictures)
    assert all("predicted 3" in found["alt"] for found in pictures)
    assert "true class 8, wrong, confidence 41%" in pictures[3]["alt"] and "−0.25 to +0.50" in pictures[3]["alt"]
    assert len(page.all("figure")) == len(page.all("figcaption")) == 4
    assert "One paragraph." in page.text and "Another one." in page.text and "prefers-color-scheme:dark" in html


def test_tables_have_a_caption_scopes_and_aligned_numbers(tmp_path, full):
    _, page = written(tmp_path, tables=full["tables"])
    assert len(page.all("caption")) == 1 and "Scores" in page.text and "n = 3" in page.text
    assert len(page.all("th", scope="col")) == 3 and len(page.all("th", scope="row")) == 2
    assert [found.get("class") for found in page.all("td")] == ["number", None] * 2
    assert "Reading the colours" not in page.text  # nothing is coloured here
    _, page = written(tmp_path, tables=[Table("No rows", ["", "b"], [])])
    assert len(page.all("th", scope="col")) == 1  # an empty cell heads nothing


def test_words_carry_their_value_for_the_eye_the_pointer_and_the_screen_reader(tmp_path, full):
    html, page = written(tmp_path, texts=full["texts"])
    words = [found for found in page.all("span") if "title" in found]
    assert [(found["class"], found["title"]) for found in words] == [
        ("p8", "+0.42"), ("n8", "−0.42"), ("none", "not a token"), ("z", "0.00"), ("n20", "−1.00"), ("p20", "+1.00"),
    ]  # fmt: skip
    # The same in a list that is closed until it is asked for.
    assert len(page.all("details")) == 2 and not page.all("details", open="")
    assert re.findall(r"<b>(.*?)</b>", html) == [found["title"] for found in words]
    assert "grey words have no value" in page.text
    _, page = written(tmp_path, texts=full["texts"][1:])
    assert "have no value" not in page.text


def test_a_wrong_prediction_is_told_by_word_and_border(tmp_path, full):
    html, page = written(tmp_path, **full)
    assert len(page.all("figure", **{"class": "card miss"})) == 2
    assert html.count('<span class="wrong">wrong</span>') == 2
    assert page.text.count("1 of 2 classified right") == 2
    assert re.search(r"\.card\.miss\{border:2px", html)
    _, page = written(tmp_path, images=[picture([[1]], label="a"), picture([[1]], predicted="b")])
    assert not page.all("figure", **{"class": "card miss"}) and "classified right" not in page.text


def test_only_a_certain_prediction_reads_100_percent(tmp_path, full):
    _, page = written(tmp_path, images=full["images"])
    assert "99%" in page.text and "100%" not in page.text
    _, page = written(tmp_path, texts=full["texts"])
    assert "100%" in page.text and "50%" in page.text


def test_every_text_is_escaped(tmp_path):
    about = {"label": HOSTILE, "predicted": HOSTILE + "!"}
    html, page = written(
        tmp_path,
        title=HOSTILE,
        intro=HOSTILE,
        tables=[Table(HOSTILE, [HOSTILE, HOSTILE], [[HOSTILE, HOSTILE]], HOSTILE)],
        images=[picture([[1]], **about)],
        texts=[text([HOSTILE, '"', "<", "\n", ""], [1, 0, NAN, 1, -1], **about)],
    )
    assert not page.all("script") and "<script" not in html
    assert not [found for _, found in page.tags for name in found if name.startswith("on")]
    # What would reorder or break the page is replaced; a mark of direction is part of the text and stays.
    assert not re.search("[\x00\u202a-\u202e\u2066-\u2069\ud800-\udfff]", html)
    shown = re.sub("[\x00\u202e\u2066\ud800]", "\ufffd", HOSTILE)
    assert page.text.count(shown) == 15
    assert shown in page.all("img")[0]["alt"] and "\u200f" in shown and "{{ 7*7 }}" in shown
    assert page.text.count("␣") == 4  # words without ink: in the line and in the list
    write_words(tmp_path / "words.png", [text([HOSTILE, "\n", ""], [1, 1, -1], **about)])
    write_sheet(tmp_path / "sheet.png", [picture([[1]], **about)])


def test_ten_thousand_words(tmp_path):
    values = np.random.default_rng(0).uniform(-1, 1, 10_000)
    reading = text([f"word{index}" for index in range(10_000)], values.tolist(), "a", "b", 0.3)
    start = time.perf_counter()
    html, page = written(tmp_path, texts=[reading])
    with Image.open(write_words(tmp_path / "words.png", [text(reading.words[:1000], values[:1000])])) as image:
        assert image.width == 1000 and image.height > 3000
    assert time.perf_counter() - start < 10
    assert len(html.encode()) < 2_000_000
    assert sum("title" in found for found in page.all("span")) == 10_000


def luminance(colour):
    shares = [value / 255 for value in colour]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    dark, bright = sorted((luminance(one), luminance(other)))
    return (bright + 0.05) / (dark + 0.05)


def colour(css: str):
    if css.startswith("#"):
        return tuple(int(css[at : at + 2], 16) for at in (1, 3, 5))
    return tuple(int(number) for number in re.findall(r"\d+", css))


def test_all_text_has_contrast_in_both_schemes(tmp_path, full):
    html, _ = written(tmp_path, **full)
    rules = re.findall(r"\.([pn]\d+)\{background:(rgb\([\d ]+\));color:(rgb\([\d ]+\))", html)
    names = [f"{sign}{level}" for level in range(1, LEVELS + 1) for sign in "pn"]
    assert [name for name, *_ in rules] == names * 2  # light, then dark
    for name, ground, ink in rules:
        assert contrast(colour(ground), colour(ink)) >= 4.5, name
    # The strongest words look the same in both schemes, the faintest are near the paper of their scheme.
    assert rules[len(names) - 1][1:] == rules[-1][1:]
    schemes = [dict(re.findall(r"--(\w+):([^;}]+)", block)) for block in re.findall(r":root\{([^}]+)\}", html)]
    assert len(schemes) == 2
    for scheme, faint in zip(schemes, (rules[0], rules[len(names)]), strict=True):
        for ground in ("page", "card"):
            assert contrast(colour(scheme["ink"]), colour(scheme[ground])) >= 7
            assert contrast(colour(scheme["soft"]), colour(scheme[ground])) >= 4.5
            assert contrast(colour(scheme["focus"]), colour(scheme[ground])) >= 3
        assert contrast(colour(scheme["card"]), colour(faint[1])) < 1.2
        for end in (NEGATIVE, POSITIVE):
            assert contrast(end, colour(scheme["card"])) >= 3


def test_the_sign_shows_without_colour(tmp_path, full):
    html, _ = written(tmp_path, **full)
    assert re.search(r"\.words \[class\^=n\]\{text-decoration-style:dotted\}", html)
    weights = [int(weight) for weight in re.findall(r"\.p\d+\{[^}]*thickness:(\d)px", html)[: LEVELS - 1]]
    assert weights == sorted(weights) and set(weights) == {1, 2, 3}
    # Of a positive and a negative mark on equal ground, only the first has a vertical arm.
    plus, minus = (np.asarray(heat_map(picture([[value]], (8, 8)), 90).convert("L"), int) for value in (0.8, -0.8))
    for marked, vertical in ((plus, True), (minus, False)):
        assert marked[45, 46] < 60
        assert (marked[44 - 2, 45] < 60) == vertical
    lines = []
    for value in (1, -1):
        write_words(tmp_path / "words.png", [text(["mmmmmmmm"], [value])])
        with Image.open(tmp_path / "words.png") as image:
            lines.append(np.asarray(image.convert("L"), int)[74, 50:110] < 20)
    assert lines[0].all() and 0.2 < lines[1].mean() < 0.8


def test_the_colours_differ_for_the_colour_blind():
    red_blind = np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]])
    green_blind = np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]])
    for seen in (np.eye(3), red_blind, green_blind):
        assert np.linalg.norm(seen @ np.array(NEGATIVE) - seen @ np.array(POSITIVE)) > 120


def test_heat_map_colours():
    flat = ImageReading(Image.new("L", (4, 4), 128), np.array([[1.0, -1.0], [0.0, NAN]]), None, None, None)
    pixels = np.asarray(heat_map(flat, 80), int)
    assert pixels.shape == (80, 80, 3)
    high, low, zero = pixels[4, 4], pixels[4, 75], pixels[75, 4]
    assert np.abs(high - POSITIVE).max() < 40 and np.abs(low - NEGATIVE).max() < 40
    assert high[0] > high[2] + 100 and low[2] > low[0] + 80
    assert np.ptp(zero) == 0 and zero[0] > 128
    hatched = pixels[40:, 40:]
    assert np.ptp(hatched, axis=2).max() == 0 and len(np.unique(hatched)) == 2
    assert 0.3 < (hatched == hatched.min()).mean() < 0.7


def test_heat_map_follows_scale_size_and_patches():
    faint = picture([[0.1, -0.1]])
    assert np.abs(np.asarray(heat_map(faint, 80, scale=0.1), int)[2, 2] - POSITIVE).max() < 50
    assert np.ptp(np.asarray(heat_map(faint, 80), int)[2, 2]) < 30
    assert heat_map(picture([[1]], (30, 60)), 120).size == (120, 60)
    assert heat_map(picture(np.zeros((14, 14)), (224, 224))).size == (168, 168)
    assert heat_map(picture(np.full((224, 224), NAN), (300, 2))).size == (1, 168)
    # Pixels of a tiny picture become squares: as many greys as it has pixels, and no more.
    assert len(np.unique(np.asarray(heat_map(picture([[0]]), 168)))) <= 64


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "1"])
def test_pictures_of_any_mode(tmp_path, mode):
    reading = ImageReading(Image.new("RGB", (8, 8), "white").convert(mode), np.zeros((2, 2)), "a", "a", None)
    assert heat_map(reading).getpixel((5, 5)) == (250, 250, 250)
    write_page(tmp_path / "page.html", title="", images=[reading])


def test_the_scale_is_1_unless_all_is_faint(tmp_path, full):
    _, page = written(tmp_path, **full)
    assert "−1 0 +1" in re.sub(r"\s*(0)\s*", r" \1 ", page.text.split("Reading the colours")[1])
    assert "+1 carries meaning and tells the sample apart; −1 tells it apart without" in page.text
    faint = text(["a", "b"], [0.1, -0.2])
    _, page = written(tmp_path, texts=[faint])
    assert "+0.2" in page.text and "are small" in page.text
    assert page.all("span", title="−0.20")[0]["class"] == "n20" and page.all("span", title="+0.10")[0]["class"] == "p10"
    _, page = written(tmp_path, texts=[faint], images=[picture([[0.3]])])
    assert "are small" not in page.text and page.all("span", title="−0.20")[0]["class"] == "n4"
    _, page = written(tmp_path, texts=[text(["a", "b"], [0, NAN])])
    assert "are small" not in page.text
    write_words(tmp_path / "words.png", [faint])
    write_words(tmp_path / "more.png", [text(["a", "b"], [1, -0.2])])
    assert (tmp_path / "words.png").read_bytes() != (tmp_path / "more.png").read_bytes()


def test_sheet(tmp_path, full):
    path = write_sheet(tmp_path / "new" / "sheet.png", [picture([[1, -1]], label="1", predicted="1")] * 9, columns=4)
    assert path == tmp_path / "new" / "sheet.png"
    with Image.open(path) as image:
        assert image.format == "PNG" and image.width > 4 * 168 and image.height > 3 * 2 * 168
        pixels = np.asarray(image.convert("RGB"), int)
    heat = pixels[44 + 176 : 44 + 176 + 168, 44 : 44 + 168]
    assert heat[9, 9, 0] > heat[9, 9, 2] + 80 and heat[9, -9, 2] > heat[9, -9, 0] + 80
    sizes = []
    for images in (full["images"][:1], full["images"]):
        with Image.open(write_sheet(tmp_path / "sheet.png", images)) as image:
            sizes.append(image.size)
    assert sizes[0] == sizes[1]  # one or two columns: the scale needs the width


def test_a_wrong_sample_has_a_frame_in_the_pngs(tmp_path):
    for write, right, wrong in (
        (write_sheet, picture([[0]], label="a", predicted="a"), picture([[0]], label="b", predicted="a")),
        (write_words, text(["a"], [1], "a", "a"), text(["a"], [1], "b", "a")),
    ):
        dark = []
        for reading in (right, wrong):
            with Image.open(write(tmp_path / "x.png", [reading])) as image:
                dark.append((np.asarray(image.convert("L")) < 60).sum(axis=1).max())
        assert dark[1] > dark[0] + 8


def test_words_png(tmp_path, full):
    path = write_words(tmp_path / "words.png", full["texts"], width=700)
    with Image.open(path) as image:
        assert image.format == "PNG" and image.width == 700 and image.height > 200
        colours = {pixel for _, pixel in image.getcolors(100_000)}
    assert {NEGATIVE, POSITIVE} <= colours
    # A word and a name that are wider than the picture are cut, not drawn over its edge.
    write_words(path, [text(["m" * 5000, "", "é—ß", "ab\ncd"], [1, -1, 0, NAN], "n" * 5000, "m" * 5000)], width=480)
    with Image.open(path) as image:
        assert image.width == 480 and (np.asarray(image.convert("L"))[:, -20:] == 255).all()


def test_no_words_are_no_error(tmp_path):
    _, page = written(tmp_path, texts=[text([], [])])
    assert "no words" in page.text and not page.all("details")
    write_words(tmp_path / "words.png", [text([], [])])


def page_of(path, **what):
    return write_page(path, title="x", **what)


@pytest.mark.parametrize(
    "write, what, says",
    [
        (page_of, {}, "at least one table or reading"),
        (page_of, {"tables": [Table("T", ["a", "b"], [["1"]])]}, "'T': 2 cells in the header but 1 in a row"),
        (page_of, {"texts": [text(["a"], [0]), text(["a", "b"], [0.5])]}, r"texts\[1\]: 2 words"),
        (page_of, {"texts": [text(["a"], [1.00001])]}, r"texts\[0\]: importance up to 1.00001"),
        (page_of, {"texts": [text(["a", "b"], [NAN, float("-inf")])]}, "importance up to inf"),
        (page_of, {"texts": [text(["a"], [0], confidence=97)]}, "confidence 97"),
        (page_of, {"texts": [text(["a"], [0], confidence=NAN)]}, "confidence nan"),
        (page_of, {"images": [picture([0.5, 0.5])]}, r"images\[0\]: importance has shape \(2,\)"),
        (page_of, {"images": [picture(np.zeros((0, 4)))]}, "patch grid"),
        (page_of, {"images": [picture([[-2]])]}, "must lie in"),
        (write_sheet, {"images": []}, "0 images"),
        (write_sheet, {"images": [picture([[0]])], "columns": 0}, "in 0 columns"),
        (write_words, {"texts": []}, "0 texts"),
        (write_words, {"texts": [text(["a"], [0])], "width": 100}, "width 100"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, write, what, says):
    with pytest.raises(AtomError, match=says):
        write(tmp_path / "out", **what)
    assert not list(tmp_path.iterdir())


def test_rounding_beyond_1_is_forgiven(tmp_path):
    _, page = written(tmp_path, texts=[text(["a"], [1 + 5e-7], confidence=1 + 5e-7)])
    assert page.all("span", title="+1.00") and "100%" in page.text
    assert np.isfinite(np.asarray(heat_map(picture([[-1 - 5e-7]])))).all()
