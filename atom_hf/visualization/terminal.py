"""Token importance in a terminal: coloured texts and small pictures, or plain text in a pipe."""

import re

import numpy as np
from rich.color import Color
from rich.columns import Columns
from rich.console import Console, Group
from rich.constrain import Constrain
from rich.style import Style
from rich.table import Table
from rich.text import Text

from ..importance.results import ImageImportance, TextImportance
from .colors import LEVELS, level_of, word_style
from .legend import meaning
from .pictures import heat_map, resized
from .values import checked_scale, clean, outcome, signed, verified_line
from .words import Run, runs

PICTURE = 16  # pixels of the longest side of a picture: as many columns, and half as many lines

SEPARATORS = re.compile("\r\n?|[\u2028\u2029]")


def show_importance(
    images: list[ImageImportance] = (),
    texts: list[TextImportance] = (),
    *,
    console: Console | None = None,
    fitted: bool = False,
) -> str:
    """Lines for a terminal, or for a pipe.

    In colour a word has that of its importance; positive ones are bold and negative ones underlined, so that the sign
    shows without colour. Plain, each word is followed by its value: `sea(+0.42)`. Whatever a text holds that would steer a
    terminal is replaced.

    Args:
        images: shown in colour, the picture beside its heat map; plain, by what is predicted alone.
        texts: shown as they were written, broken at white space.
        console: whose width and colours count; by default that of standard output, with what `NO_COLOR`, `FORCE_COLOR`,
            `TERM` and `COLORTERM` ask for. Without colours nothing is broken.
        fitted: see `legend.meaning`.

    Raises:
        AtomError: a result that does not fit.
    """
    scale = checked_scale(images, texts)
    console = console or Console()
    # An old Windows console takes its colours by calls, which a string cannot hold.
    colored = bool(console.color_system) and not console.no_color and not console.legacy_windows
    lines = []
    for result in texts:
        lines += [Text.assemble(*(_word(run, scale, colored) for run in source)) for source in runs(result)]
        if result.truncated:
            lines.append(Text("  (the model reads no further than its last word with a value)"))
        lines += [*(Text(f"  {line}") for line in _verdict(result)), Text()]
    if colored:
        blocks = [Group(_picture(result, scale), *map(Text, _caption(result)), Text()) for result in images]
        lines += [Columns([Constrain(block, 2 * PICTURE + 1) for block in blocks], padding=(0, 2))]
        lines += [_legend(scale, fitted)]
    else:
        lines += [Text("  ".join(_caption(result))) for result in images]
    with console.capture() as shown:
        # A program that reads a pipe needs a text in one line, and a terminal wraps plain lines itself.
        console.print(Group(*lines), soft_wrap=not colored)
    return shown.get().removesuffix("\n")


def harmless(text: str) -> str:
    """Untrusted text without what would control a terminal: control characters, escape sequences, changes of direction.

    rich itself takes out a few control characters, but no escape sequence.
    """
    return clean(SEPARATORS.sub("\n", text).replace("\t", "    "))


def _word(run: Run, scale: float, colored: bool) -> tuple[str, Style]:
    """What is shown of a run, and its style."""
    shown = harmless(run.text)
    if run.word is None or run.word.importance != run.word.importance:
        return shown, Style.null()
    if colored:
        return shown, _style(level_of(run.word.importance, scale))
    return f"{shown}({signed(run.word.importance).replace('−', '-')})", Style.null()


def _style(level: int) -> Style:
    """Of a word at a level; none for one that hardly shows."""
    ground, ink, weight = word_style(level)
    sign = Style(bold=True) if level > 0 else Style(underline=True)
    return sign + _colors(ink, ground) if weight else Style.null()


def _colors(ink, ground) -> Style:
    return Style.from_color(Color.from_rgb(*ink), Color.from_rgb(*ground))


def _verdict(result: TextImportance | ImageImportance) -> list[str]:
    wrong, predicted, true, sure = outcome(result)
    parts = [f"predicted {predicted}" if predicted else "", sure, f"true {true}" if true else "", wrong]
    shown = "  ".join(" ".join(harmless(part).split()) for part in parts if part)
    lines = [shown] if shown else []
    if result.explained is not None and not result.explained.is_predicted:
        about = result.explained
        lines.append(" ".join(harmless(f"importance for {about.target}, {about.everything:.2f}").split()))
    seen = " ".join(harmless(verified_line(result)).split()).replace("→", "->").replace("“", '"').replace("”", '"')
    return [*lines, seen] if seen else lines


def _caption(result: ImageImportance) -> list[str]:
    name = [" ".join(harmless(result.name).split())] if result.name else []
    return [*name, *_verdict(result)]


def _picture(result: ImageImportance, scale: float) -> Table:
    """The picture and its heat map, two pixels a character: an upper half block on the ground of the lower one."""
    both = []
    for picture in (resized(result.image, PICTURE), heat_map(result, PICTURE, scale)):
        pixels = np.asarray(picture.convert("RGB"))
        below = [*pixels[1::2], pixels[-1]]  # the last row stands below itself where their number is odd
        pairs = [zip(*rows, strict=True) for rows in zip(pixels[::2], below, strict=False)]
        rows = [Text.assemble(*(("▀", _colors(upper, lower)) for upper, lower in pair)) for pair in pairs]
        both.append(Text("\n", no_wrap=True, overflow="crop").join(rows))
    grid = Table.grid(padding=(0, 1))
    grid.add_row(*both)
    return grid


def _legend(scale: float, fitted: bool) -> Text:
    most, least = ((f" {sign}{scale:.2g} ", _style(level)) for sign, level in (("+", LEVELS), ("−", -LEVELS)))
    return Text.assemble(most, " to ", least, f"   {' '.join(meaning(fitted))}")
