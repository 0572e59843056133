"""Paired differences: where they lie on a drawing, what is said of them, and the picture."""

import math
from dataclasses import replace

import pytest
from PIL import Image

from atom_hf.errors import AtomError
from atom_hf.visualization.differences import HEIGHT, WIDTH, Difference, pairs, strip, write_differences

ONE = Difference("accuracy", "plain", "atom", ("0.70 ± 0.01", "0.75 ± 0.02"), (0.04, 0.06), 0.05, -0.1, 0.2, 0)


def test_places_are_on_one_scale_around_zero():
    places = strip(ONE)
    unit = WIDTH / 2 / (1.06 * 0.2)
    expected = [WIDTH / 2 + unit * value for value in (0.04, 0.06, -0.1, 0.05, 0.2)]
    assert [*places.dots, places.low, places.mean, places.high] == pytest.approx(expected, abs=0.06)
    assert 0 < places.low < WIDTH / 2 < places.mean < places.high < WIDTH


def test_equal_runs_lie_on_zero_and_numbers_that_are_none_are_not_drawn():
    places = strip(replace(ONE, values=(0.0, 0.0), mean=0.0, low=0.0, high=0.0))
    assert {*places.dots, places.low, places.mean, places.high} == {WIDTH / 2}
    assert strip(replace(ONE, values=(math.nan, 0.1))) is None and strip(replace(ONE, high=math.inf)) is None


def test_what_is_said():
    assert ONE.says == "+0.0500 [-0.1000, +0.2000]" and ONE.judged == "within noise"
    assert replace(ONE, verdict=1).judged == "better" and replace(ONE, verdict=-1).judged == "worse"
    assert replace(ONE, low=math.nan).judged == "no interval"


def test_pairs_keep_their_order():
    more = [replace(ONE, arm="b"), ONE, replace(ONE, arm="b", measure="f1")]
    assert pairs(more) == [("plain", "b"), ("plain", "atom")]


def test_the_picture_shows_each_row_and_what_is_beyond_noise(tmp_path):
    beyond = replace(ONE, low=0.01, mean=0.1, verdict=1)
    other = replace(ONE, arm="a name that is far longer than its column could ever be " * 3)
    nan = replace(ONE, mean=math.nan, low=math.nan, high=math.nan)
    tall = {}
    for name, shown in {"one": [ONE], "beyond": [beyond], "two": [ONE, beyond, nan], "arms": [ONE, other]}.items():
        with Image.open(write_differences(tmp_path / f"{name}.png", shown, title="digits")) as picture:
            tall[name] = picture.height
            assert picture.format == "PNG" and picture.width == 1210
            # In the bar of the first row, where no seed lies: paper, or grey where the interval excludes 0.
            x, y = 590 + WIDTH / 2 * (1 + 0.15 / (1.06 * 0.2)), 124 + 46 / 2
            inside = picture.convert("L").getpixel((round(x), round(y)))
            assert inside == pytest.approx(215 if name == "beyond" else 255, abs=3)
            # The line of 0, between rows.
            assert picture.convert("L").getpixel((590 + WIDTH // 2, round(y - HEIGHT / 2))) < 160
    assert tall["two"] - tall["one"] == 2 * 46 and tall["arms"] - tall["one"] == 46 + 52


def test_nothing_to_draw_is_an_error(tmp_path):
    with pytest.raises(AtomError, match="there are no differences"):
        write_differences(tmp_path / "x.png", [], title="x")
