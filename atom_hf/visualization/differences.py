"""Paired differences between two settings, seed by seed: where they lie on a drawing, and a PNG of them."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from ..errors import AtomError
from .colors import INK, MUTED, PAPER
from .pictures import png, print_text, save

WIDTH, HEIGHT = 240, 28  # of the drawing of one difference; 0 is in its middle

FINE = 2  # drawn at so many pixels a unit of the result: smooth dots

_LINE = tuple(round(0.75 * paper + 0.25 * ink) for paper, ink in zip(PAPER, MUTED, strict=True))


@dataclass(frozen=True)
class Difference:
    """One arm against another in one measure, over paired runs."""

    measure: str
    reference: str
    """The name of the arm that is subtracted."""
    arm: str
    shown: tuple[str, str]
    """Ready strings of the two arms' own values, the reference's first."""
    values: tuple[float, ...]
    """Arm minus reference, one a seed."""
    mean: float
    low: float
    high: float
    """The 95 % interval of the mean."""
    verdict: int
    """1 where the arm is better with an interval that excludes 0, -1 where it is worse, else 0."""

    @property
    def says(self) -> str:
        """The mean with its interval."""
        return f"{self.mean:+.4f} [{self.low:+.4f}, {self.high:+.4f}]"

    @property
    def judged(self) -> str:
        """better, worse, or within noise."""
        if math.isnan(self.low):
            return "no interval"
        return {1: "better", -1: "worse", 0: "within noise"}[self.verdict]


@dataclass(frozen=True)
class Strip:
    """Where a difference lies on a drawing `WIDTH` x `HEIGHT`: the x of each seed, of the mean and of the interval's ends."""

    dots: tuple[float, ...]
    low: float
    mean: float
    high: float


def pairs(differences: Sequence[Difference]) -> list[tuple[str, str]]:
    """(reference, arm) of the differences, in their order."""
    return list(dict.fromkeys((each.reference, each.arm) for each in differences))


def strip(difference: Difference) -> Strip | None:
    """The places of a difference, on a scale of its own around 0; None where something is not a finite number."""
    ends = (difference.low, difference.mean, difference.high)
    if not all(map(math.isfinite, (*difference.values, *ends))):
        return None
    reach = 1.06 * max(map(abs, (*difference.values, *ends))) or 1.0

    def place(value: float) -> float:
        return round(WIDTH / 2 * (1 + value / reach), 1)

    return Strip(tuple(map(place, difference.values)), *map(place, ends))


def write_differences(path, differences: Sequence[Difference], *, title: str) -> Path:
    """Write a PNG of paired differences: both arms' values, each seed's difference, its mean and interval; return its path.

    AtomError: no differences.
    """
    if not differences:
        raise AtomError("write_differences: there are no differences to draw")
    row, margin = 46, 36
    # Left edges: the measure, the reference, the arm, the drawing, the numbers, the verdict.
    columns = (margin, 250, 420, 590, 850, 1090)
    width = 1210
    tall = 88 + 52 * len(pairs(differences)) + row * len(differences) + 44
    sheet = Image.new("RGB", (width * FINE, tall * FINE), PAPER)
    draw = ImageDraw.Draw(sheet)

    def say(x: float, y: float, text: str, pixels: int, wide: float, fill=INK) -> None:
        print_text(draw, (x * FINE, y * FINE), text, pixels * FINE, wide * FINE, fill, "ls")

    say(margin, 52, title, 24, width - 2 * margin)
    y = 88
    for reference, arm in pairs(differences):
        heads = ("measure", reference, arm, "difference, a dot a seed", "mean [95 % interval]")
        wide = [after - before - 14 for before, after in itertools.pairwise(columns)]
        for x, head, room in zip(columns, heads, wide, strict=False):
            say(x, y + 20, head, 15, room, MUTED)
        y += 36
        draw.line((margin * FINE, y * FINE, (width - margin) * FINE, y * FINE), _LINE, FINE)
        for each in differences:
            if (each.reference, each.arm) != (reference, arm):
                continue
            for x, text, room in zip(columns, (each.measure, *each.shown), wide, strict=False):
                say(x, y + 29, text, 16, room)
            say(columns[4], y + 29, each.says, 16, wide[4])
            say(columns[5], y + 29, each.judged, 15, width - margin - columns[5], INK if each.verdict else MUTED)
            _draw_strip(draw, columns[3], y + (row - HEIGHT) / 2, each)
            y += row
        y += 16
    count = len(differences[0].values)
    note = f"{count} paired runs. Bars: 95 % interval of the mean, filled where it excludes 0. Each row has a scale of its own."
    say(margin, y + 18, note, 14, width - 2 * margin, MUTED)
    shown = sheet.resize((width, tall), Image.Resampling.LANCZOS)
    return save(path, png(shown.quantize()))


def _draw_strip(draw: ImageDraw.ImageDraw, left: float, top: float, difference: Difference) -> None:
    def box(x1: float, y1: float, x2: float, y2: float) -> tuple[float, ...]:
        return tuple(FINE * place for place in (left + x1, top + y1, left + x2, top + y2))

    draw.line(box(WIDTH / 2, -4, WIDTH / 2, HEIGHT + 4), MUTED, FINE)
    if (found := strip(difference)) is None:
        return
    bar = box(found.low, HEIGHT / 2 - 5, max(found.high, found.low + 1), HEIGHT / 2 + 5)
    draw.rectangle(bar, _LINE if difference.verdict else None, INK if difference.verdict else MUTED, FINE)
    draw.line(box(found.mean, 0, found.mean, HEIGHT), INK, 2 * FINE)
    for x in found.dots:
        draw.ellipse(box(x - 3.5, HEIGHT / 2 - 3.5, x + 3.5, HEIGHT / 2 + 3.5), PAPER, INK, FINE)
