"""Edits of pictures as one PNG: the original, the picture turned into every class, the edit undone, and what it changed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from ..errors import AtomError
from .colors import INK, MUTED, NEGATIVE, PAPER, POSITIVE
from .pictures import png, print_text, resized, wrapped

GAP, MARGIN = 10, 36


@dataclass(frozen=True)
class Cell:
    """A picture of a sheet."""

    picture: Image.Image
    says: str = ""
    """A few words below it."""
    framed: bool = False


def edits_sheet(heads: Sequence[str], rows: Sequence[Sequence[Cell]], side: int = 84, note: str = "") -> bytes:
    """A PNG of pictures in rows below their heads.

    Args:
        heads: of the columns.
        rows: each of as many cells as there are heads.
        side: pixels of the longest side of a picture.
        note: at the foot, in as many lines as it takes.

    Raises:
        AtomError: no rows, or a row of another length.
    """
    if not rows or any(len(row) != len(heads) for row in rows):
        raise AtomError(f"edits_sheet: give one row or more, each of {len(heads)} pictures")
    says = any(cell.says for row in rows for cell in row)
    step, tall = side + GAP, side + GAP + (22 if says else 0)
    width = 2 * MARGIN + len(heads) * step - GAP
    lines = wrapped(note, 14, width - 2 * MARGIN)
    foot = 10 + 20 * len(lines)
    sheet = Image.new("RGB", (width, MARGIN + 30 + len(rows) * tall + foot), PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, head in enumerate(heads):
        print_text(draw, (MARGIN + column * step + side / 2, MARGIN + 14), head, 15, step, MUTED)
    for number, row in enumerate(rows):
        top = MARGIN + 26 + number * tall
        for column, cell in enumerate(row):
            shown, left = resized(cell.picture, side), MARGIN + column * step
            sheet.paste(shown, (left + (side - shown.width) // 2, top + (side - shown.height) // 2))
            if cell.framed:
                draw.rectangle((left - 3, top - 3, left + side + 2, top + side + 2), None, INK, 2)
            if cell.says:
                print_text(draw, (left + side / 2, top + side + 17), cell.says, 13, step, MUTED)
    for number, line in enumerate(reversed(lines)):
        print_text(draw, (width / 2, sheet.height - 12 - 20 * number), line, 14, width - 2 * MARGIN, MUTED)
    return png(sheet)


def picture_of(pixels: np.ndarray) -> Image.Image:
    """A picture of pixels [c, h, w] from 0 to 1, of 1 or 3 channels."""
    array = (np.clip(pixels, 0, 1) * 255).round().astype(np.uint8)
    return Image.fromarray(array[0]) if len(array) == 1 else Image.fromarray(array.transpose(1, 2, 0))


def difference_picture(before: np.ndarray, after: np.ndarray) -> Image.Image:
    """What was added (orange) and taken away (blue) between pixels [c, h, w], on white; the mean over channels."""
    change = (np.asarray(after, float) - before).mean(0)[..., None]
    colour = np.where(change < 0, NEGATIVE, POSITIVE)
    strength = np.clip(np.abs(change), 0, 1)
    return Image.fromarray((np.array(PAPER) * (1 - strength) + colour * strength).round().astype(np.uint8))
