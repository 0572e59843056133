"""Checks of results, the strength of their colours, and their numbers in words."""

import math
from dataclasses import replace

import numpy as np
import pytest

from atom_hf.errors import AtomError
from atom_hf.importance.results import Explained, Verified, WordImportance
from atom_hf.visualization.colors import LEVELS, NEGATIVE, PAPER, POSITIVE, level_of, word_style
from atom_hf.visualization.legend import meaning
from atom_hf.visualization.values import (
    checked_scale,
    clean,
    importances,
    leanings,
    outcome,
    percent,
    plain,
    signed,
    tokens,
    verified_line,
)
from helpers.importances import HOSTILE, NAN, atom, picture, text

ONE = text("a b", [0.5, -0.5])


@pytest.mark.parametrize(
    "what, says",
    [
        (
            {"texts": [ONE, replace(ONE, words=[WordImportance("a", 1, 2, 0.5)])]},
            r"texts\[1\]: 'a' is not what stands at 1 to 2",
        ),
        (
            {"texts": [replace(ONE, words=[WordImportance("b", 2, 9, 0.5)])]},
            r"'b' at 2 to 9 of source 0 lies outside the text",
        ),
        ({"texts": [replace(ONE, words=[WordImportance("a", 0, 1, 0.5, 1)])]}, "of source 1 lies outside"),
        ({"texts": [replace(ONE, pieces=[WordImportance("a", -3, -2, 0.5)])]}, "at -3 to -2"),
        ({"texts": [text("a", [1.00001])]}, r"texts\[0\]: importance up to 1.00001"),
        ({"texts": [text("a b", [NAN, -math.inf])]}, "importance up to inf"),
        ({"texts": [replace(ONE, pieces=[WordImportance("a", 0, 1, 3.0)])]}, "importance up to 3"),
        ({"texts": [replace(ONE, confidence=97)]}, "confidence 97"),
        ({"texts": [replace(ONE, confidence=NAN)]}, "confidence nan"),
        ({"texts": [replace(ONE, atom=atom(1, 0, [[0]], 1))]}, r"centre has shape \(1, 1\)"),
        ({"images": [picture([0.5, 0.5])]}, r"images\[0\]: importance has shape \(2,\)"),
        ({"images": [picture(np.zeros((0, 4)))]}, "patch grid"),
        ({"images": [picture([[-2]])]}, "must lie in"),
        ({"images": [picture([[0]], box=(4, 0, 4, 8))]}, "left < right"),
    ],
)
def test_what_does_not_fit_is_rejected(what, says):
    with pytest.raises(AtomError, match=says):
        checked_scale(**what)


def test_the_scale_is_1_unless_all_is_faint():
    assert checked_scale([picture([[0.3, 0.1]])], []) == 1 == checked_scale([], [text("a", [0])])
    assert checked_scale([picture([[0.1]])], [text("a b", [-0.2, NAN])]) == pytest.approx(0.2)
    assert checked_scale([picture([[0.1]])], [text("a b", [-0.2, 0.8])]) == 1
    assert checked_scale([], [text("", []), text("a", [NAN])]) == 1
    assert checked_scale([picture([[1 + 5e-7]])], [replace(ONE, confidence=1 + 5e-7)]) == 1  # rounding is forgiven


def test_tokens_are_pieces_where_there_are_any():
    result = replace(ONE, pieces=[WordImportance("a", 0, 1, 0.1), WordImportance("b", 2, 3, NAN)])
    assert tokens(result).tolist() == [0.1] and tokens(ONE).tolist() == [0.5, -0.5]
    assert len(importances(result)) == 4
    assert tokens(picture([[0.5, NAN]])).tolist() == [0.5]


def test_numbers_in_words():
    assert [signed(x) for x in (0.424, -0.424, 0.001, -0.001, -0.0, NAN)] == [
        "+0.42", "−0.42", "0.00", "0.00", "0.00", "no token",
    ]  # fmt: skip
    assert [percent(x) for x in (1.0, 0.9999, 0.5, 0)] == ["100%", "99%", "50%", "0%"]


def test_wrong_is_only_what_is_known_to_be():
    assert outcome(replace(ONE, label="a", predicted="b", confidence=0.4)) == ("wrong", "b", "a", "40%")
    assert outcome(replace(ONE, label="a", predicted="a"))[0] == "" == outcome(replace(ONE, predicted="b"))[0]


def test_clean_keeps_the_length_and_what_can_be_shown():
    assert len(clean(HOSTILE)) == len(HOSTILE) and "\u200fשלום" in clean(HOSTILE)
    assert not set(clean(HOSTILE)) & set("\u202e\u2066\x00\ud800") and clean("a\r\nb\tc") == "a\r\nb\tc"
    assert plain("é—ß\n x") == "e-ss x"


def luminance(colour):
    shares = [value / 255 for value in colour]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    dark, bright = sorted((luminance(one), luminance(other)))
    return (bright + 0.05) / (dark + 0.05)


def test_words_have_contrast_at_every_level():
    from atom_hf.visualization.colors import NIGHT

    for paper in (PAPER, NIGHT):
        for level in range(-LEVELS, LEVELS + 1):
            ground, ink, _ = word_style(level, paper)
            assert contrast(ground, ink) >= 4.5
        assert word_style(0, paper)[0] == paper
        for end in (NEGATIVE, POSITIVE):
            assert contrast(end, paper) >= 3
    weights = [word_style(level)[2] for level in range(LEVELS + 1)]
    assert weights == sorted(weights) and set(weights) == {0, 1, 2, 3}


def test_the_colours_differ_for_the_colour_blind_and_on_their_paper():
    from atom_hf.visualization.colors import CLASSES, NIGHT, NIGHT_CLASSES

    red_blind = np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]])
    green_blind = np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]])
    for seen in (np.eye(3), red_blind, green_blind):
        assert np.linalg.norm(seen @ np.array(NEGATIVE) - seen @ np.array(POSITIVE)) > 120
    for classes, paper in ((CLASSES, PAPER), (NIGHT_CLASSES, NIGHT)):
        assert len(set(classes)) == len(classes)
        assert min(contrast(colour, paper) for colour in classes) >= 3


def test_levels():
    assert [level_of(x, 1) for x in (1, -1, 0.5, 0.001, NAN)] == [LEVELS, -LEVELS, LEVELS / 2, 0, 0]
    assert level_of(0.1, 0.1) == LEVELS == level_of(1 + 5e-7, 1)


def test_the_legend_follows_how_importance_was_learned():
    assert "carries meaning" in " ".join(meaning()) and "the prediction leans on it" in " ".join(meaning(fitted=True))


def test_what_a_text_leans_on_is_named_strongest_first():
    one = text("one two three four five six seven", [0.1, -0.5, 0.8, -0.002, 0.3, 0.6, NAN])
    assert leanings(one) == [
        ("leans on", ["three +0.80", "six +0.60", "five +0.30"]),
        ("speaks against it", ["two −0.50"]),
    ]
    assert [title for title, _ in leanings(one, fitted=False)] == ["most positive", "most negative"]
    assert leanings(text("a b", [0.001, NAN])) == [] and leanings(picture([[1, -1]])) == []


def test_what_masking_did_is_said_as_far_as_it_is_known():
    seen = Verified(["sea", "calm"], 0.94, 0.31, 0.28, 0.9)
    one = replace(ONE, verified=seen, explained=Explained("good", True, 0.94))
    assert verified_line(one) == (
        "without “sea”, “calm”: good 0.94 → 0.31 (0.28 by the importances; 0.90 without as many others)"
    )
    bare = replace(one, explained=None, verified=replace(seen, promised=NAN, others=NAN))
    assert verified_line(bare) == "without “sea”, “calm”: 0.94 → 0.31" and verified_line(ONE) == ""
    image = replace(picture([[1, 0]]), verified=replace(seen, promised=NAN))
    assert verified_line(image).startswith("without its 2 strongest patches: 0.94 → 0.31 (0.90 without")
