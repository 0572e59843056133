"""The page in a real browser: accessible, quiet, sortable, readable by keyboard, on a phone, and with scripts off."""

from dataclasses import replace

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image

from atom_hf.importance.results import WordImportance
from atom_hf.visualization.differences import Difference
from atom_hf.visualization.page import Figure, Table, write_page
from atom_hf.visualization.pictures import png
from helpers.accessibility import RULES
from helpers.browser import DESK, PHONE, opened
from helpers.importances import HOSTILE, NAN, picture, random_atoms, sample_set, text

GAP = Difference("accuracy", "plain", "atom", ("0.71 ± 0.01", "0.72 ± 0.02"), (0.0, 0.02), 0.01, -0.1, 0.12, 0)
SOURCE = "The  un\n\tbreakable sea ends"


@pytest.fixture(scope="module")
def page_of(tmp_path_factory):
    """Pages by name, written once."""
    folder = tmp_path_factory.mktemp("pages")
    samples = sample_set(5)
    samples["images"][0] = replace(samples["images"][0], box=(2, 0, 10, 8), importance=np.array([[0.5, NAN], [-1, 0]]))
    pieces = [WordImportance("break", 9, 14, 0.8), WordImportance("able", 14, 18, 0.6)]
    one = replace(text(SOURCE, [0.1, -0.9, 0.7, NAN, 0.0]), pieces=pieces, pair="of a pair", truncated=True)
    about = {"label": HOSTILE, "predicted": HOSTILE + "!"}
    hostile = replace(text(HOSTILE, [0.5] * len(HOSTILE.split()), **about), pair=HOSTILE)
    atoms = random_atoms(3)
    long = text(" ".join(f"word{i}" for i in range(10_000)), np.random.default_rng(0).uniform(-1, 1, 10_000).tolist())
    table = Table("Scores", ["metric", "plain", "atom"], [["accuracy", "0.71 ± 0.01", "0.72 ± 0.02"]] * 3, "A note.")
    figures = [
        Figure("Which say the same", png(Image.new("RGB", (900, 500), (42, 123, 192))), "A blue picture", "A note.")
    ] * 2
    contents = {
        "figures": {"title": "Figures", "intro": "Of 300.", "figures": figures, "measures": True, "tables": [table]},
        "set": {
            "title": "A set",
            "intro": "Made by hand.",
            "tables": [table],
            "differences": [GAP, replace(GAP, measure="loss", verdict=-1), replace(GAP, measure="f1", mean=NAN)],
            **samples,
            "fitted": True,
        },
        "one": {"title": "One text", "texts": [one]},
        "hostile": {
            "title": HOSTILE,
            "intro": HOSTILE,
            "tables": [Table(HOSTILE, [HOSTILE, "x"], [[HOSTILE, HOSTILE]], HOSTILE)],
            "images": [picture([[1]], name=HOSTILE, atom=atoms[0], **about)],
            "texts": [replace(hostile, atom=atoms[1]), text("", [], atom=atoms[2]), text("שלום עולם", [0.5, -1])],
        },
        "long": {"title": "10,000 words", "texts": [long]},
    }
    made = {name: write_page(folder / f"{name}.html", **content) for name, content in contents.items()}
    return made.__getitem__


PLACES = {
    "light-phone": ("light", PHONE),
    "dark-desk": ("dark", DESK),
    "light-desk": ("light", DESK),
    "dark-phone": ("dark", PHONE),
}
CASES = [("set", place) for place in PLACES] + [
    (name, place) for name in ("one", "hostile", "figures") for place in list(PLACES)[:2]
]


@pytest.mark.parametrize("name, place", CASES)
def test_axe_finds_nothing_and_nothing_is_wider_than_the_screen(chromium, page_of, name, place):
    scheme, size = PLACES[place]
    with opened(chromium, page_of(name), size=size, color_scheme=scheme) as page:
        # All that opens is open, so that it is looked at too.
        page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        results = Axe().run(page, options=RULES)
        assert results.violations_count == 0, results.generate_report()
        assert {"color-contrast", "region", "target-size"} <= {rule["id"] for rule in results.response["passes"]}
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]


def test_axe_would_find_something(chromium, page_of, tmp_path):
    bad = tmp_path / "bad.html"
    bad.write_text(page_of("one").read_text(encoding="utf-8").replace('lang="en"', ""), encoding="utf-8")
    with opened(chromium, bad) as page:
        assert [rule["id"] for rule in Axe().run(page, options=RULES).response["violations"]] == ["html-has-lang"]


@pytest.mark.parametrize(
    "extra, says",
    [('<img alt="" src="https://elsewhere.test/x.png">', "elsewhere"), ("<script>alert(1)</script>", "errors .*1")],
)
def test_a_page_that_fetches_or_runs_something_would_fail(chromium, page_of, tmp_path, extra, says):
    bad = tmp_path / "bad.html"
    bad.write_text(page_of("one").read_text(encoding="utf-8").replace("</main>", extra + "</main>"), encoding="utf-8")
    with pytest.raises(AssertionError, match=says), opened(chromium, bad, bypass_csp=True) as page:
        page.wait_for_load_state()


def test_what_the_script_makes_is_accessible_too(chromium, page_of):
    with opened(chromium, page_of("set"), color_scheme="light") as page:
        page.get_by_role("button", name="Dark colours").click()
        page.get_by_role("button", name="radius").click()
        page.locator("mark").first.focus()
        assert page.get_by_role("tooltip").is_visible()
        results = Axe().run(page, options=RULES)
        assert results.violations_count == 0, results.generate_report()


@pytest.mark.parametrize("policy", [True, False], ids=["policy", "no policy"])
def test_no_text_becomes_a_script(chromium, page_of, policy):
    # Escaping holds by itself: without the page's policy too, nothing runs.
    with opened(chromium, page_of("hostile"), bypass_csp=not policy) as page:
        assert page.locator("script").count() == 1 and page.locator("svg[onload], img[onerror]").count() == 0
        words = page.locator(".words").first
        shown = "".join("\ufffd" if letter in "\x00\ud800\u202e\u2066" else letter for letter in HOSTILE)
        assert words.evaluate("element => element.textContent") == shown
        assert page.title().startswith('<script>alert("x")</script>')


def rows(page, column):
    return page.evaluate(
        "column => [...document.querySelectorAll('.samples tbody tr:not([hidden])')].map(row => row.cells[column].innerText)",
        column,
    )


def number(cell):
    return float(cell.replace("−", "-").rstrip("%"))


def test_the_table_is_sorted_by_keyboard(chromium, page_of):
    with opened(chromium, page_of("set")) as page:
        before = rows(page, 0)
        assert before[:2] == ["0.png", "1.png"] and len(before) == 10
        net = page.get_by_role("columnheader", name="net charge")
        page.get_by_role("searchbox").focus()
        for _ in range(30):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.textContent") == "net charge":
                break
        page.keyboard.press("Enter")
        assert net.get_attribute("aria-sort") == "descending"
        values = [number(cell) for cell in rows(page, 4)]
        assert values == sorted(values, reverse=True) and len(set(values)) > 4
        page.keyboard.press("Space")
        assert net.get_attribute("aria-sort") == "ascending"
        assert [number(cell) for cell in rows(page, 4)] == sorted(values)
        # Names are sorted as people count: 2 before 10.
        page.get_by_role("button", name="sample").click()
        names = rows(page, 0)
        assert net.get_attribute("aria-sort") == "none" and sorted(names) == sorted(before)
        assert names[:3] == ["0.png", "1.png", "2.png"]


def test_a_row_leads_to_its_sample(chromium, page_of):
    with opened(chromium, page_of("set")) as page:
        page.get_by_role("link", name="3.png").press("Enter")
        assert page.evaluate("location.hash") == "#sample-4"
        box = page.locator("#sample-4").bounding_box()
        assert 0 <= box["y"] < DESK["height"] and page.locator("#sample-4").get_by_text("3.png").is_visible()
        page.locator("[data-s='5'] use").click(force=True)
        assert page.evaluate("location.hash") in {f"#sample-{n}" for n in range(1, 11)} - {"#sample-4"}


def test_rows_and_samples_are_filtered_together(chromium, page_of):
    with opened(chromium, page_of("set")) as page:
        status, cards = page.get_by_role("status"), page.locator("figure[id]:visible")
        assert status.inner_text() == "10 samples" and cards.count() == 10
        page.get_by_label("Only wrong").check()
        assert status.inner_text() == "4 of 10 samples" and cards.count() == 4
        assert page.locator("figure[id].miss:visible").count() == 4
        page.get_by_role("searchbox").fill("NUMBER 4 ")
        assert status.inner_text() == "1 of 10 samples" and rows(page, 0) == ["The number 4 stands here, quietly."]
        page.get_by_label("Only wrong").uncheck()
        page.get_by_role("searchbox").fill("")
        assert status.inner_text() == "10 samples"


@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_a_words_value_shows_at_hover_at_a_tap_and_by_arrow_keys(chromium, page_of, size):
    with opened(chromium, page_of("one"), size=size, has_touch=size is PHONE) as page:
        tip, words = page.get_by_role("tooltip"), page.locator("mark")
        assert page.locator(".words").first.evaluate("element => element.textContent") == SOURCE
        assert not tip.is_visible()
        if size is PHONE:
            words.nth(1).tap()
        else:
            words.nth(1).hover()
        assert tip.inner_text() == "−0.90"
        page.mouse.move(1, 1)
        words.nth(0).focus()
        assert tip.inner_text() == "+0.10" and words.nth(0).get_attribute("aria-describedby") == "tip"
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowDown")
        assert tip.inner_text() == "+0.70, mean of break +0.80, able +0.60"
        assert words.nth(2).evaluate("word => word === document.activeElement")
        page.keyboard.press("End")
        assert tip.inner_text() == "0.00"
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowLeft")
        assert tip.inner_text() == "no token"
        box = tip.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= size["width"] and box["y"] >= 0
        page.keyboard.press("Escape")
        assert not tip.is_visible()
        # Tab leaves the text: one stop, however many words.
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.tagName") != "MARK"


def test_from_right_to_left_the_left_arrow_goes_on(chromium, page_of):
    with opened(chromium, page_of("hostile")) as page:
        words = page.locator(".words").last.locator("mark")
        first, second = (words.nth(i).bounding_box() for i in (0, 1))
        assert first["x"] > second["x"]
        words.nth(0).focus()
        page.keyboard.press("ArrowLeft")
        assert words.nth(1).evaluate("word => word === document.activeElement")


def test_the_button_changes_the_colours(chromium, page_of):
    ground = "getComputedStyle(document.body).backgroundColor"
    seen = {}
    for scheme in ("light", "dark"):
        with opened(chromium, page_of("one"), color_scheme=scheme) as page:
            seen[scheme] = page.evaluate(ground)
            page.get_by_role("button", name="colours").click()
            seen[scheme, "pressed"] = page.evaluate(ground)
    assert seen["light"] == seen["dark", "pressed"] != seen["dark"] == seen["light", "pressed"]


# What of an element lies outside the screen, or outside the box around it that scrolls sideways.
CUT_OFF = """selector => [...document.querySelectorAll(selector)].filter(element => {
    const box = element.getBoundingClientRect(), frame = element.closest('.card').getBoundingClientRect();
    return box.width > 1 && (box.right > Math.min(innerWidth, frame.right) || box.left < frame.left);
}).map(element => element.outerHTML)"""


@pytest.mark.parametrize("place", list(PLACES))
def test_no_column_is_cut_off(chromium, page_of, place):
    scheme, size = PLACES[place]
    with opened(chromium, page_of("set"), size=size, color_scheme=scheme) as page:
        assert page.evaluate(CUT_OFF, "th, td, .paired span, .paired svg") == []
        if size is PHONE:  # each number beside the head of its column
            cell = page.locator(".stack tbody td").first
            assert "plain" in cell.evaluate("cell => getComputedStyle(cell, '::before').content")
        page.get_by_label("Only wrong").check()
        assert page.locator(".samples tbody tr:visible").count() == 4


def test_ten_thousand_words_are_one_stop_and_can_be_walked(chromium, page_of):
    with opened(chromium, page_of("long"), size=PHONE) as page:
        assert page.locator("mark").count() == 10_000 and page.locator("mark[tabindex='0']").count() == 1
        page.locator("mark").first.focus()
        page.keyboard.press("End")
        assert page.evaluate("document.activeElement.textContent") == "word9999"
        assert page.locator("#tip").is_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_without_scripts_all_is_there(chromium, page_of):
    with opened(chromium, page_of("set"), java_script_enabled=False) as page:
        assert page.locator("button, input").count() == 0  # nothing that would not work
        assert page.locator(".samples tbody tr").count() == 10 and page.locator("svg.map [data-s]").count() == 10
        assert page.locator("mark").first.get_attribute("title")
        for summary, shown in (("Importance of each", ".values"), ("Nearest samples", ".near")):
            page.locator("summary", has_text=summary).last.click()
            assert page.locator(shown).last.is_visible()


def test_a_mark_under_the_pointer_shows_its_disc_and_its_neighbours(chromium, page_of):
    with opened(chromium, page_of("set")) as page:
        assert page.locator(".own:visible").count() == 0
        page.locator("[data-s]").first.scroll_into_view_if_needed()
        page.locator("[data-s] use").first.hover()
        own = page.locator(".own:visible")
        assert own.count() == 1 and own.locator("line").count() == 3


def test_on_paper_nothing_is_cut_or_hidden_behind_a_scroll_bar(chromium, page_of):
    with opened(chromium, page_of("set"), size={"width": 794, "height": 1123}, color_scheme="dark") as page:  # A4
        page.emulate_media(media="print")
        region = page.locator(".tall")
        assert region.evaluate("element => element.scrollHeight <= element.clientHeight + 1")
        assert page.evaluate("document.documentElement.scrollWidth") <= 794
        assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "light"
        assert not page.get_by_role("searchbox").is_visible()
