"""Edits of texts as one PNG: each text with the words that are gone, and below it its edits with the words that are new."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from ..errors import AtomError
from .colors import INK, MUTED, NEGATIVE, PAPER, POSITIVE
from .pictures import png, print_text
from .values import plain

MARGIN, LINE, PIXELS, LABEL = 30, 28, 17, 130


@dataclass(frozen=True)
class TextLine:
    """A text of a sheet."""

    head: str
    """What stands before it, such as its class."""
    words: list[str]
    changed: Collection[int] = ()
    """The numbers of the words that are gone, of an original, or new, of an edit."""
    is_edit: bool = False


def text_edits_sheet(lines: Sequence[TextLine], width: int = 1100, note: str = "") -> bytes:
    """A PNG of texts, one below the other, wrapped; words that are gone are struck out, new ones underlined.

    Raises:
        AtomError: no lines.
    """
    if not lines:
        raise AtomError("text_edits_sheet: give one text or more")
    font = ImageFont.load_default(size=PIXELS)
    placed, top = [], 0
    for line in lines:
        top += 0 if line.is_edit else LINE // 2  # a gap before each original
        spots, top = _wrapped(line.words, font, top, width)
        placed.append((line, spots))
    sheet = Image.new("RGB", (width, top + (LINE + 8) * bool(note) + MARGIN // 2), PAPER)
    draw = ImageDraw.Draw(sheet)
    for line, spots in placed:
        if spots:
            print_text(draw, (MARGIN, spots[0][2]), line.head, PIXELS - 2, LABEL - 10, MUTED, "ls")
        for place, (word, left, base) in enumerate(spots):
            changed, colour = place in line.changed, POSITIVE if line.is_edit else NEGATIVE
            draw.text((left, base), word, INK, font, "ls")
            if changed:
                mark = base + 4 if line.is_edit else base - PIXELS // 3
                draw.line((left, mark, left + font.getlength(word), mark), colour, 3 if line.is_edit else 2)
    if note:
        print_text(draw, (MARGIN, sheet.height - MARGIN // 2), note, PIXELS - 3, width - 2 * MARGIN, MUTED, "ls")
    return png(sheet)


def _wrapped(words: Sequence[str], font: ImageFont.FreeTypeFont, top: int, width: int) -> tuple[list, int]:
    """(word, left, baseline) of each word, and where the next text begins."""
    left, base, spots = float(MARGIN + LABEL), top + LINE, []
    space = font.getlength(" ")
    for word in words:
        shown = plain(word)[:60]
        size = font.getlength(shown)
        if left + size > width - MARGIN and left > MARGIN + LABEL:
            left, base = float(MARGIN + LABEL), base + LINE
        spots.append((shown, left, base))
        left += size + space
    return spots, base
