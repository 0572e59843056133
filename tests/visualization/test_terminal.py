"""Readings in a terminal: what a real one is sent, and that nothing but text reaches a pipe."""

import io
import os
import pty
import re

import numpy as np
import pytest
from PIL import Image

from atom_hf.readings import ImageReading, Span, TextReading
from atom_hf.show.terminal import DIRECT, INDEXED, PLAIN, colors_of, columns_of, harmless, show_readings

ESCAPE = re.compile("\x1b\\[[0-9;]*m")


def text_reading(text, values, **options):
    words = [
        Span(match.group(), match.start(), match.end(), value)
        for match, value in zip(re.finditer(r"\S+", text), values, strict=True)
    ]
    return TextReading(text, words, **options)


def image_reading(**options):
    picture = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4)
    grid = np.array([[1.0, -1.0], [0.0, np.nan]], np.float32)
    return ImageReading(picture, grid, predicted="nine", confidence=0.5, **options)


def plain(shown):
    return ESCAPE.sub("", shown)


def test_plain_text_has_each_value_behind_its_word():
    reading = text_reading(
        "the sea  is\ncalm", [0.42, -0.5, 0, float("nan")], predicted="still", confidence=0.75, label="rough"
    )
    shown = show_readings(texts=[reading])
    assert shown.split("\n") == [
        "the(+0.42) sea(-0.50)  is(0.00)",
        "calm",
        "  predicted still  75%  true rough  wrong",
        "",
    ]
    long = text_reading(" ".join(["sea"] * 500), [0.5] * 500)
    assert max(map(len, show_readings(texts=[long]).split("\n"))) > 4000  # a program reads lines


@pytest.mark.parametrize("colors", [INDEXED, DIRECT])
def test_signs_show_without_colour(colors):
    shown = show_readings(texts=[text_reading("up down zero", [0.9, -0.9, 0.0])], colors=colors, width=80)
    line = shown.split("\n")[0]
    assert re.search("\x1b\\[1;[0-9;]*mup\x1b\\[0m", line) and re.search("\x1b\\[4;[0-9;]*mdown\x1b\\[0m", line)
    assert line.endswith(" zero") and plain(line) == "up down zero"
    assert ("48;2;" in line) == (colors == DIRECT) and ("48;5;" in line) == (colors == INDEXED)


@pytest.mark.parametrize("colors", [INDEXED, DIRECT])
def test_stronger_is_more_colourful(colors):
    """The strongest is vermillion or blue; the weakest that shows is nearly white."""
    shown = show_readings(texts=[text_reading("a b c", [1.0, 0.15, -1.0])], colors=colors, width=80)
    found = re.findall(r"48;(?:5;(\d+)|2;(\d+);(\d+);(\d+))m([abc])", shown)
    grounds = {word: [int(value) for value in numbers if value] for *numbers, word in found}
    if colors == DIRECT:
        assert grounds["a"] == [226, 100, 28] and grounds["c"] == [42, 123, 192]
        assert min(grounds["b"]) > 200
    else:
        cube = {word: divmod(number - 16, 36) for word, (number,) in grounds.items()}
        assert cube["a"][0] >= 4 and cube["c"][0] <= 1 and grounds["b"][0] in (224, 230, 231, 253, 254, 255)


def test_lines_are_broken_at_white_space_by_what_letters_take():
    text = "東京 は 海 の sea sea sea " + "x" * 25
    shown = show_readings(texts=[text_reading(text, [0.5] * 8)], colors=DIRECT, width=12)
    lines = [line for line in plain(shown).split("\n") if line and "to" not in line]
    assert lines == ["東京 は 海", "の sea sea", "sea", "x" * 12, "x" * 12, "x"]
    assert columns_of("東京 e\u0301\u200d") == 6


def test_line_breaks_of_the_text_are_kept():
    shown = show_readings(texts=[text_reading("a\n\n  b\r\nc\rd\u2028e", [0.5] * 5)], colors=DIRECT, width=40)
    assert plain(shown).split("\n")[:6] == ["a", "", "  b", "c", "d", "e"]


HOSTILE = "a\x1b[2J\x1b]0;title\x07b \x9b31m \x00\x08\x7f \u202eright\u2066 \x0e\x1b(0"


@pytest.mark.parametrize("colors", [PLAIN, INDEXED, DIRECT])
def test_texts_and_names_cannot_steer_the_terminal(colors):
    reading = text_reading(HOSTILE, [0.5] * len(HOSTILE.split()), predicted="\x1b[5mx\ny", label="\x9bz\r")
    picture = image_reading(name="\x1b]8;;http://x\x07.png")
    rest = plain(show_readings([picture], [reading], colors=colors, width=200))
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", rest)
    assert "predicted \ufffd[5mx y" in rest
    assert harmless("\t|\r\n|") == "    |\n|"


def test_a_text_that_was_cut_off_says_so():
    shown = show_readings(texts=[text_reading("a b", [0.5, float("nan")], truncated=True)])
    assert "a(+0.50) b\n" in shown and "reads no further" in shown


def test_pairs_stand_on_lines_of_their_own():
    words = [Span("sea", 0, 3, 0.5), Span("moon", 0, 4, -0.5, 1)]
    assert show_readings(texts=[TextReading("sea", words, pair="moon")]).split("\n")[:2] == [
        "sea(+0.50)",
        "moon(-0.50)",
    ]


def test_pictures_beside_their_heat_maps():
    images = [image_reading(name=f"{i}.png", label="nine") for i in range(3)]
    shown = show_readings(images, colors=DIRECT, width=80)
    lines = plain(shown).split("\n")
    assert lines[0] == "▀" * 16 + " " + "▀" * 16 + "  " + "▀" * 16 + " " + "▀" * 16  # two fit, of 33 columns each
    assert lines[8].split() == ["0.png", "1.png"] and lines[9].count("predicted nine  50%  true nine") == 2
    assert "2.png" in shown and "to" in lines[-1]
    first = re.findall(r"38;2;(\d+);(\d+);(\d+)", shown.split("\n")[0])
    red, _, blue = map(int, first[16])  # the heat map's first cell is positive, and its last negative
    assert red > blue + 60
    red, _, blue = map(int, first[31])
    assert blue > red + 60
    text = show_readings(images)
    assert text.split("\n")[0] == "0.png  predicted nine  50%  true nine" and "▀" not in text


def test_faint_values_are_stretched_and_the_scale_says_so():
    shown = show_readings(texts=[text_reading("a b", [0.1, -0.05])], colors=DIRECT, width=80)
    assert "226;100;28ma" in shown.replace("48;2;", "") and "+0.1" in shown


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stream", "variables", "colors"),
    [
        (Terminal(), {"TERM": "xterm-256color"}, INDEXED),
        (Terminal(), {"TERM": "xterm", "COLORTERM": "truecolor"}, DIRECT),
        (Terminal(), {"TERM": "xterm", "COLORTERM": "24bit"}, DIRECT),
        (Terminal(), {"TERM": "xterm", "COLORTERM": "truecolor", "NO_COLOR": "1"}, PLAIN),
        (Terminal(), {"TERM": "xterm", "NO_COLOR": ""}, INDEXED),  # no-color.org: set, and not empty
        (Terminal(), {"TERM": "dumb", "COLORTERM": "truecolor"}, PLAIN),
        (Terminal(), {}, PLAIN),
        (io.StringIO(), {"TERM": "xterm", "COLORTERM": "truecolor"}, PLAIN),
        (object(), {"TERM": "xterm"}, PLAIN),
    ],
)
def test_how_many_colours_a_stream_shows(monkeypatch, stream, variables, colors):
    for name in ("TERM", "COLORTERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert colors_of(stream) == colors


def sent(leader, follower):
    """What arrives at the other end of a stream that readings are printed to."""
    reading = TextReading("the sea", [Span("sea", 4, 7, 0.9)])
    try:
        with os.fdopen(follower, "w") as stream:
            print(show_readings(texts=[reading], colors=colors_of(stream)), file=stream, flush=True)
            return os.read(leader, 65536).decode()
    finally:
        os.close(leader)


def test_a_real_terminal_gets_colour_and_a_pipe_none(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.delenv("NO_COLOR", raising=False)
    shown = sent(*pty.openpty())
    assert "\x1b[1;38;2;0;0;0;48;2;" in shown and "the sea" in plain(shown)
    assert sent(*os.pipe()) == "the sea(+0.90)\n\n"
