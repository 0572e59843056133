"""What the heads found, in a terminal: texts on the colours of their words, small pictures, or plain text in a pipe."""

import itertools
import os
import re
import shutil
import sys
import unicodedata
from typing import TextIO

import numpy as np

from ..readings import ImageReading, TextReading
from .colors import PAPER, level_of, word_style
from .legend import meaning
from .pictures import fitted, heat_map
from .values import checked_scale, clean, outcome, signed
from .words import Run, runs

PLAIN, INDEXED, DIRECT = 0, 256, 2**24
"""How many colours: none and no escape sequence at all, a table of 256, or all."""
STEPS = (0, 95, 135, 175, 215, 255)
# From 16 on: a cube of 6 x 6 x 6 colours, and 24 greys. The first 16 are the user's own.
TABLE = np.array([*itertools.product(STEPS, repeat=3), *((8 + 10 * i,) * 3 for i in range(24))])
RESET = "\x1b[0m"
PICTURE = 16  # pixels of the longest side of a picture: as many columns, and half as many lines
SEPARATORS = re.compile("\r\n?|[\u2028\u2029]")


def colors_of(stream: TextIO | None = None) -> int:
    """How many colours a stream shows: PLAIN, INDEXED or DIRECT.

    PLAIN wherever it is no terminal, or one that knows no escape sequences (`TERM=dumb`), and where `NO_COLOR` is set
    (no-color.org). DIRECT where `COLORTERM` says so.
    """
    stream = sys.stdout if stream is None else stream
    try:
        is_terminal = stream.isatty()
    except (AttributeError, ValueError):
        is_terminal = False
    if not is_terminal or os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") in ("", "dumb", "unknown"):
        return PLAIN
    return DIRECT if os.environ.get("COLORTERM", "").lower() in ("truecolor", "24bit") else INDEXED


def show_readings(
    images: list[ImageReading] = (),
    texts: list[TextReading] = (),
    *,
    colors: int = PLAIN,
    width: int | None = None,
    tied: bool = False,
) -> str:
    """Lines for a terminal, or for a pipe.

    In colour a word has that of its importance; positive ones are bold and negative ones underlined, so that the sign
    shows without colour. Plain, each word has its value behind it: `sea(+0.42)`. Whatever a text holds that would steer a
    terminal is replaced.

    Args:
        images: shown in colour, the picture beside its heat map; plain, by what is predicted alone.
        texts: shown as they were written, broken at white space.
        colors: from `colors_of`.
        width: columns; by default the terminal's, and plain text is not broken.
        tied: see `legend.meaning`.

    Raises:
        AtomError: a reading that does not fit.
    """
    scale = checked_scale(images, texts)
    # A program behind a pipe wants a text in one line, and a terminal breaks plain lines itself.
    width = width or (shutil.get_terminal_size().columns if colors else sys.maxsize)
    lines = []
    for reading in texts:
        for source in runs(reading):
            lines += _text_lines(source, scale, colors, width)
        if reading.truncated:
            lines.append("  (the model reads no further than its last word with a value)")
        lines += [*_verdict(reading), ""]
    lines += _picture_lines(images, scale, colors, width)
    if colors:
        lines += _legend(scale, colors, tied)
    return "\n".join(lines)


def _text_lines(source: list[Run], scale: float, colors: int, width: int) -> list[str]:
    """One text, as it was written. Lines that are too long are broken at white space, and where there is none anywhere."""
    lines, line, used = [], "", 0
    for shown, style in _parts(source, scale, colors):
        for part in re.findall(r"\n|[^\S\n]+|\S+", shown):
            for piece in _broken(part, width):
                wide = columns_of(piece)
                if piece == "\n" or (used and used + wide > width):
                    lines.append(line.rstrip(" "))
                    line, used = "", 0
                    if piece.isspace():
                        continue
                line += f"{style}{piece}{RESET}" if style else piece
                used += wide
    return [*lines, line]


def _parts(source: list[Run], scale: float, colors: int):
    """(what is shown of a run, its style) for each run."""
    for run in source:
        shown = harmless(run.text)
        if run.word is None or run.word.importance != run.word.importance:
            yield shown, ""
        elif colors:
            yield shown, _style(level_of(run.word.importance, scale), colors)
        else:
            yield f"{shown}({signed(run.word.importance).replace('−', '-')})", ""


def harmless(text: str) -> str:
    """Anybody's text without what would steer a terminal: control characters, escape sequences, changes of direction."""
    return clean(SEPARATORS.sub("\n", text).replace("\t", "    "))


def columns_of(text: str) -> int:
    """How many columns of a terminal a text takes: two for a wide character, none for an accent that combines."""
    return sum(
        0
        if unicodedata.combining(c) or unicodedata.category(c) in ("Mn", "Me", "Cf")
        else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )


def _broken(part: str, width: int) -> list[str]:
    """A word in parts that are no wider than `width`."""
    if columns_of(part) <= width:
        return [part]
    pieces, used = [""], 0
    for letter in part:
        wide = columns_of(letter)
        if used and used + wide > width:
            pieces, used = [*pieces, ""], 0
        pieces[-1] += letter
        used += wide
    return pieces


def _verdict(reading: TextReading | ImageReading) -> list[str]:
    wrong, predicted, true, sure = outcome(reading)
    parts = [f"predicted {predicted}" if predicted else "", sure, f"true {true}" if true else "", wrong]
    shown = "  ".join(" ".join(harmless(part).split()) for part in parts if part)
    return [f"  {shown}"] if shown else []


def _picture_lines(images: list[ImageReading], scale: float, colors: int, width: int) -> list[str]:
    """Pictures side by side, as many as fit; plain, one line for each."""
    if not colors:
        return ["  ".join(_caption(reading)) for reading in images]
    blocks = [[*_picture(reading, scale, colors), *_caption(reading)] for reading in images]
    step = 2 * PICTURE + 3
    row = max(1, (width + 2) // step)
    lines = []
    for start in range(0, len(blocks), row):
        group = blocks[start : start + row]
        for index in range(max(map(len, group))):
            parts = [block[index] if index < len(block) else "" for block in group]
            lines.append("".join(part + " " * (step - _seen(part)) for part in parts).rstrip(" "))
        lines.append("")
    return lines


def _caption(reading: ImageReading) -> list[str]:
    name = [" ".join(harmless(reading.name).split())] if reading.name else []
    return [*name, *(line.strip() for line in _verdict(reading))]


def _seen(line: str) -> int:
    return columns_of(re.sub("\x1b\\[[0-9;]*m", "", line))


def _picture(reading: ImageReading, scale: float, colors: int) -> list[str]:
    """The picture and its heat map, two pixels a character: an upper half block on the ground of the lower one."""
    both = (fitted(reading.image, PICTURE), heat_map(reading, PICTURE, scale))
    lines = []
    for picture in both:
        pixels = np.asarray(picture.convert("RGB"))
        if len(pixels) % 2:
            pixels = np.concatenate([pixels, pixels[-1:]])
        shown = []
        for upper, lower in zip(pixels[::2], pixels[1::2], strict=True):
            cells = (
                f"\x1b[{_color(a, colors, 38)};{_color(b, colors, 48)}m▀" for a, b in zip(upper, lower, strict=True)
            )
            shown.append("".join(cells) + RESET)
        lines.append(shown)
    return [f"{left} {right}" for left, right in zip(*lines, strict=True)]


def _style(level: int, colors: int) -> str:
    """The escape sequence of a word at a level; none for one that hardly shows."""
    ground, ink, weight = word_style(level, PAPER)
    if not weight:
        return ""
    return f"\x1b[{1 if level > 0 else 4};{_color(ink, colors, 38)};{_color(ground, colors, 48)}m"


def _color(rgb, colors: int, place: int) -> str:
    """A colour of a letter (38) or of its ground (48), as the parameters of an escape sequence."""
    red, green, blue = map(int, rgb)
    if colors == DIRECT:
        return f"{place};2;{red};{green};{blue}"
    nearest = int(np.square(TABLE - np.array([red, green, blue])).sum(1).argmin())
    return f"{place};5;{16 + nearest}"


def _legend(scale: float, colors: int, tied: bool) -> list[str]:
    end = f"{scale:.2g}"
    bar = [f"{_style(level, colors)} {sign}{end} {RESET}" for level, sign in ((20, "+"), (-20, "−"))]
    return [f"{bar[0]} to {bar[1]}   {' '.join(meaning(tied))}"]
