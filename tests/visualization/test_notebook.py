"""Readings in a notebook: HTML that is whole, harmless and stands on its own."""

import html.parser
import re

from atom_hf.importance.results import Explained, Readings, Verified
from atom_hf.visualization.notebook import SHOWN
from helpers.importances import HOSTILE, picture, text


class Strict(html.parser.HTMLParser):
    """Collects what a page is made of, and whether its elements close."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.styles, self.said = [], [], [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.styles += [value for name, value in attrs if name == "style"]
        assert not any(name.startswith("on") or name in ("class", "id") for name, _ in attrs)
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.said += data


def parsed(shown):
    found = Strict()
    found.feed(shown)
    assert not found.open and set(found.tags) <= {"div", "span", "img", "b"}
    return found


def test_a_text_shows_its_words_its_prediction_and_what_it_leans_on():
    tried = Verified(["great"], 0.94, 0.31, 0.28, 0.9)
    about = {"predicted": "good", "label": "bad", "confidence": 0.94, "verified": tried}
    reading = text("A great film", [0.0, 0.8, -0.3], explained=Explained("good", True, 0.94), **about)
    found = parsed(reading._repr_html_())
    assert "A great film" in found.said and "good" in found.said and "94%" in found.said and "wrong" in found.said
    assert "leans on: great +0.80" in found.said and "speaks against it: film −0.30" in found.said
    assert "without “great”: good 0.94 → 0.31 (0.28 by the importances; 0.90 without as many others)" in found.said
    words = dict(re.findall(r'style="([^"]*)">(\w+)</span>', reading._repr_html_()))
    signs = {word: ("solid" in style, "dotted" in style) for style, word in words.items()}
    assert signs == {"A": (False, False), "great": (True, False), "film": (False, True)}


def test_an_image_shows_itself_beside_its_importance():
    found = parsed(picture([[0.5, -0.5], [0.1, 0.0]], predicted="7", confidence=0.5, name="a.png")._repr_html_())
    assert found.tags.count("img") == 2 and "7" in found.said and "50%" in found.said


def test_a_strangers_text_is_text():
    shown = text(HOSTILE, [0.1] * len(HOSTILE.split()), predicted=HOSTILE)._repr_html_()
    assert "<script" not in shown and "onerror" in parsed(shown).said and "\u202e" not in shown


def test_several_readings_show_themselves_and_the_rest_is_counted():
    readings = Readings([text("a sea", [0.1, -0.2])] * (SHOWN + 2) + [picture([[0.2]])])
    found = parsed(readings._repr_html_())
    assert found.said.count("a sea") == SHOWN and "... and 3 more" in found.said
    assert parsed(Readings()._repr_html_()).said == ""
