"""Results in a terminal: what a real one is sent, and that nothing but text reaches a pipe."""

import io
import os
import pty
import re

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from rich.style import Style

from atom_hf.importance.results import ImageImportance, TextImportance, WordImportance
from atom_hf.visualization.terminal import harmless, show_importance

ESCAPE = re.compile("\x1b\\[[0-9;]*m")
COLORED = ["standard", "256", "truecolor"]


@pytest.fixture(autouse=True)
def forgotten_styles():
    """rich keeps the codes of a style as the first terminal of a process had them, and equal styles are one."""
    Style._add.cache_clear()


def terminal(colors=None, width=80):
    """A terminal of so many colours, whatever the environment of the tests; a pipe for none."""
    forced = colors is not None
    return Console(file=io.StringIO(), force_terminal=forced, color_system=colors, width=width, _environ={})


def text_result(text, values, **options):
    words = [
        WordImportance(match.group(), match.start(), match.end(), value)
        for match, value in zip(re.finditer(r"\S+", text), values, strict=True)
    ]
    return TextImportance(text, words, **options)


def image_result(**options):
    picture = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4)
    grid = np.array([[1.0, -1.0], [0.0, np.nan]], np.float32)
    return ImageImportance(picture, grid, predicted="nine", confidence=0.5, **options)


def plain(shown):
    return ESCAPE.sub("", shown)


def test_plain_text_has_each_value_behind_its_word():
    result = text_result(
        "the sea  is\ncalm", [0.42, -0.5, 0, float("nan")], predicted="still", confidence=0.75, label="rough"
    )
    shown = show_importance(texts=[result], console=terminal())
    assert shown.split("\n") == [
        "the(+0.42) sea(-0.50)  is(0.00)",
        "calm",
        "  predicted still  75%  true rough  wrong",
        "",
    ]
    long = text_result(" ".join(["sea"] * 500), [0.5] * 500)
    assert max(map(len, show_importance(texts=[long], console=terminal()).split("\n"))) > 4000  # a program reads lines


@pytest.mark.parametrize("colors", COLORED)
def test_signs_show_without_colour(colors):
    shown = show_importance(texts=[text_result("up down zero", [0.9, -0.9, 0.0])], console=terminal(colors))
    line = shown.split("\n")[0]
    assert re.search("\x1b\\[1;[0-9;]*mup\x1b\\[0m", line) and re.search("\x1b\\[4;[0-9;]*mdown\x1b\\[0m", line)
    assert line.endswith(" zero") and plain(line) == "up down zero"
    assert ("48;2;" in line) == (colors == "truecolor") and ("48;5;" in line) == (colors == "256")


@pytest.mark.parametrize("colors", COLORED[1:])
def test_stronger_is_more_colourful(colors):
    """The strongest is vermillion or blue; the weakest that shows is nearly white."""
    shown = show_importance(texts=[text_result("a b c", [1.0, 0.15, -1.0])], console=terminal(colors))
    found = re.findall(r"48;(?:5;(\d+)|2;(\d+);(\d+);(\d+))m([abc])", shown)
    grounds = {word: [int(value) for value in numbers if value] for *numbers, word in found}
    if colors == "truecolor":
        assert grounds["a"] == [226, 100, 28] and grounds["c"] == [42, 123, 192]
        assert min(grounds["b"]) > 200
    else:
        cube = {word: divmod(number - 16, 36) for word, (number,) in grounds.items()}
        assert cube["a"][0] >= 4 and cube["c"][0] <= 1 and grounds["b"][0] in (224, 230, 231, 253, 254, 255)


def test_sixteen_colours():
    """Black on bright red, on white and on cyan."""
    shown = show_importance(texts=[text_result("a b c", [1.0, 0.15, -1.0])], console=terminal("standard"))
    assert shown.startswith("\x1b[1;30;101ma\x1b[0m \x1b[1;30;107mb\x1b[0m \x1b[4;30;46mc\x1b[0m\n")


def test_lines_are_broken_at_white_space_by_what_letters_take():
    accents = "e\u0301" * 12 + " " + "n\u0303" * 13
    text = "東京 は 海 の sea sea sea " + "x" * 25 + " 海海海海海海海 " + accents + " a\u200db"
    shown = show_importance(texts=[text_result(text, [0.5] * 12)], console=terminal("truecolor", width=12))
    lines = [line.rstrip(" ") for line in plain(shown).split("\n\n")[0].split("\n")]
    words = ["東京 は 海", "の sea sea", "sea", "x" * 12, "x" * 12, "x", "海" * 6, "海", *accents[:24].split()]
    assert lines == [*words, "n\u0303" * 12, "n\u0303 a\u200db"]
    assert all(re.search(rf"\x1b\[1;[0-9;]*m{part}\x1b\[0m", shown) for part in ("東京", "x" * 12, "x", "海" * 6))


@pytest.mark.promise("Untrusted texts and names control neither the terminal, nor a page, nor a card.")
@pytest.mark.parametrize("colors", [None, *COLORED])
def test_texts_are_no_markup(colors):
    """Nor do numbers, addresses and the like get a colour of their own."""
    text = "[bold]sea[/bold] [/] \\[red] :smile: 12 3.5 'x' None http://a.b/c [link=http://x]y[/link] ~/a.py"
    nothing = [float("nan")] * len(text.split())
    result = text_result(text, nothing, predicted="[i]7[/i]", label=":smile:")
    lines = show_importance([image_result(name="[b]1[/b].png")], [result], console=terminal(colors, 200)).split("\n")
    assert lines[:2] == [text, "  predicted [i]7[/i]  true :smile:  wrong"]
    assert any(line.startswith("[b]1[/b].png") for line in lines)


def test_line_breaks_of_the_text_are_kept():
    shown = show_importance(
        texts=[text_result("a\n\n  b\r\nc\rd\u2028e", [0.5] * 5)], console=terminal("truecolor", width=40)
    )
    assert plain(shown).split("\n")[:6] == ["a", "", "  b", "c", "d", "e"]


HOSTILE = "a\x1b[2J\x1b]0;title\x07b \x9b31m \x00\x08\x7f \u202eright\u2066 \x0e\x1b(0"


@pytest.mark.promise("Untrusted texts and names control neither the terminal, nor a page, nor a card.")
@pytest.mark.parametrize("colors", [None, *COLORED])
def test_texts_and_names_cannot_steer_the_terminal(colors):
    result = text_result(HOSTILE, [0.5] * len(HOSTILE.split()), predicted="\x1b[5mx\ny", label="\x9bz\r")
    picture = image_result(name="\x1b]8;;http://x\x07.png")
    rest = plain(show_importance([picture], [result], console=terminal(colors, width=200)))
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", rest)
    assert "predicted \ufffd[5mx y" in rest
    assert harmless("\t|\r\n|") == "    |\n|"


def test_a_text_that_was_cut_off_says_so():
    shown = show_importance(texts=[text_result("a b", [0.5, float("nan")], truncated=True)], console=terminal())
    assert "a(+0.50) b\n" in shown and "reads no further" in shown


def test_pairs_stand_on_lines_of_their_own():
    words = [WordImportance("sea", 0, 3, 0.5), WordImportance("moon", 0, 4, -0.5, 1)]
    shown = show_importance(texts=[TextImportance("sea", words, pair="moon")], console=terminal())
    assert shown.split("\n")[:2] == ["sea(+0.50)", "moon(-0.50)"]


def test_pictures_beside_their_heat_maps():
    images = [image_result(name=f"{i}.png", label="nine") for i in range(3)]
    shown = show_importance(images, console=terminal("truecolor"))
    lines = [line.rstrip(" ") for line in plain(shown).split("\n")]
    assert lines[0] == "▀" * 16 + " " + "▀" * 16 + "  " + "▀" * 16 + " " + "▀" * 16  # two fit, of 33 columns each
    assert lines[8].split() == ["0.png", "1.png"] and lines[9].count("predicted nine  50%  true nine") == 2
    assert "2.png" in shown and any(line.startswith(" +1  to  −1 ") for line in lines[-3:])
    first = re.findall(r"38;2;(\d+);(\d+);(\d+)", shown.split("\n")[0])
    red, _, blue = map(int, first[16])  # the heat map's first cell is positive, and its last negative
    assert red > blue + 60
    red, _, blue = map(int, first[31])
    assert blue > red + 60
    assert all(line.startswith("▀" * 16 + " ") for line in lines[:8]) and "▀" not in lines[8]
    text = show_importance(images, console=terminal())
    assert text.split("\n") == [f"{i}.png  predicted nine  50%  true nine" for i in range(3)]


@pytest.mark.parametrize("width", [1, 5, 10, 33, 34])
def test_pictures_in_a_narrow_terminal_are_cut_off(width):
    shown = plain(show_importance([image_result()] * 2, console=terminal("256", width=width)))
    pixels = [line.rstrip(" ") for line in shown.split("\n") if "▀" in line]
    assert len(pixels) == (16 if width > 1 else 0) and all(len(line) <= min(width, 33) for line in pixels)


@pytest.mark.parametrize(("wide", "high"), [(8, 6), (6, 8), (16, 5), (1, 40), (40, 1)])
def test_pictures_of_any_shape(wide, high):
    """Half as many lines as rows: the last of an odd number stands below itself."""
    picture = Image.new("RGB", (wide, high), (10, 200, 30))
    result = ImageImportance(picture, np.zeros((1, 1), np.float32))
    shown = show_importance([result], console=terminal("truecolor"))
    rows, columns = (max(1, round(16 * side / max(wide, high))) for side in (high, wide))
    pixels = [line for line in shown.split("\n") if "▀" in line]
    assert [plain(line).rstrip(" ") for line in pixels] == ["▀" * columns + " " + "▀" * columns] * -(-rows // 2)
    assert all(line.count("38;2;10;200;30;48;2;10;200;30m▀") == columns for line in pixels)


def test_faint_values_are_stretched_and_the_scale_says_so():
    shown = show_importance(texts=[text_result("a b", [0.1, -0.05])], console=terminal("truecolor"))
    assert "226;100;28ma" in shown.replace("48;2;", "") and "+0.1" in shown


class Terminal(io.StringIO):
    def isatty(self):
        return True


NAMES = ("TERM", "COLORTERM", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "TTY_COMPATIBLE")
XTERM = {"TERM": "xterm-256color"}
PLAIN, FEW, INDEXED, DIRECT = "the sea\\(\\+0.90\\)\n$", *(f"the \x1b\\[1;{s}" for s in ("30;101m", "38;5;", "38;2;"))


class Bare:
    """A stream that does not know whether it is a terminal."""

    def write(self, text):
        return len(text)

    def flush(self):
        pass


@pytest.mark.parametrize(
    ("stream", "variables", "shows"),
    [
        (Terminal(), XTERM, INDEXED),
        (Terminal(), {"TERM": "xterm", "COLORTERM": "truecolor"}, DIRECT),
        (Terminal(), {"TERM": "xterm", "COLORTERM": "24bit"}, DIRECT),
        (Terminal(), {"TERM": "xterm"}, FEW),  # it promises no more
        (Terminal(), {}, FEW),
        (Terminal(), {**XTERM, "COLORTERM": "truecolor", "NO_COLOR": "1"}, PLAIN),
        (Terminal(), {**XTERM, "NO_COLOR": ""}, INDEXED),  # no-color.org: set, and not empty
        (Terminal(), {"TERM": "dumb", "COLORTERM": "truecolor"}, PLAIN),
        (Terminal(), {"TERM": "unknown"}, PLAIN),
        (Terminal(), {**XTERM, "FORCE_COLOR": "1", "NO_COLOR": "1"}, PLAIN),
        (io.StringIO(), {**XTERM, "COLORTERM": "truecolor"}, PLAIN),
        (io.StringIO(), {**XTERM, "FORCE_COLOR": "1"}, INDEXED),
        (io.StringIO(), {**XTERM, "COLORTERM": "truecolor", "FORCE_COLOR": "1"}, DIRECT),
        (Bare(), XTERM, PLAIN),
    ],
)
def test_how_many_colours_a_stream_shows(monkeypatch, stream, variables, shows):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    result = TextImportance("the sea", [WordImportance("sea", 4, 7, 0.9)])
    assert re.match(shows, show_importance(texts=[result], console=Console(file=stream)))


def test_an_old_windows_console_gets_plain_text():
    console = Console(file=Terminal(), force_terminal=True, color_system="windows", legacy_windows=True, _environ={})
    assert show_importance(texts=[text_result("sea", [0.9])], console=console) == "sea(+0.90)\n"


def test_the_width_is_the_terminals(monkeypatch):
    for name, value in {**XTERM, "FORCE_COLOR": "1", "COLUMNS": "9"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert plain(show_importance(texts=[text_result("the sea shines", [0.5] * 3)])).startswith("the sea \nshines\n")


def sent(leader, follower):
    """What arrives at the other end of a stream that results are printed to."""
    result = TextImportance("the sea", [WordImportance("sea", 4, 7, 0.9)])
    try:
        with os.fdopen(follower, "w") as stream:
            print(show_importance(texts=[result], console=Console(file=stream)), file=stream, flush=True)
            return os.read(leader, 65536).decode()
    finally:
        os.close(leader)


def test_a_real_terminal_gets_colour_and_a_pipe_none(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "truecolor")
    for name in NAMES[2:]:
        monkeypatch.delenv(name, raising=False)
    shown = sent(*pty.openpty())
    assert "\x1b[1;38;2;0;0;0;48;2;" in shown and "the sea" in plain(shown)
    assert sent(*os.pipe()) == "the sea(+0.90)\n\n"
