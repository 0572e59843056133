"""The atoms of a set as one PNG: centres in two dimensions, radii, and the edges to nearest neighbours."""

import math
from pathlib import Path

from PIL import Image, ImageDraw

from ..importance.results import ImageImportance, TextImportance
from . import charts
from .atoms_map import CLOSER, FURTHER, REPELS, map_atoms
from .colors import CLASSES, INK, MUTED, PAPER
from .pictures import png, print_text, save
from .samples import class_marks
from .values import checked_scale, outcome

# Drawn with Pillow: matplotlib is an extra, and the command line draws this picture without any.

# The marks of the page, around their middle; None is a circle.
MARKS = (
    None,
    ((0, -6.3), (5.9, 4.6), (-5.9, 4.6)),
    ((-4.5, -4.5), (4.5, -4.5), (4.5, 4.5), (-4.5, 4.5)),
    tuple(
        (x * sign, y * sign)
        for sign in (1, -1)
        for x, y in ((-1.9, -5.9), (1.9, -5.9), (1.9, -1.9), (5.9, -1.9), (5.9, 1.9), (1.9, 1.9))
    ),
    ((0, -6.8), (5.4, 0), (0, 6.8), (-5.4, 0)),
    ((0, 6.3), (5.9, -4.6), (-5.9, -4.6)),
)

EDGES = {CLOSER: ("closer than rest", None, INK), FURTHER: ("further than rest", (7, 4), MUTED)}

EDGES[REPELS] = ("repel at every distance", (1.5, 4), MUTED)

FINE = 4  # drawn at so many pixels a unit, and shown at half of it: smooth lines


def write_atoms(path, results: list[TextImportance | ImageImportance], *, softening: float = 0.0) -> Path:
    """Write a PNG of the map of these samples' atoms, as the page draws it (`write_page`); return its path.

    AtomError: a result that does not fit, or fewer than two atoms.
    """
    checked_scale(
        [r for r in results if isinstance(r, ImageImportance)], [r for r in results if isinstance(r, TextImportance)]
    )
    owners = [result for result in results if result.atom is not None and result.atom.radius >= 0]
    found = map_atoms([result.atom for result in owners], softening)
    drawn, classes = charts.drawing(found), class_marks(owners)
    keys = [(name, mark) for name, mark, _ in classes["names"]]
    keys += [(f"{classes['others'][1]} of other classes", classes["others"][0])] if classes["others"][1] else []
    lines = math.ceil(len(keys) / 6)
    size = (round(drawn.width * FINE), round((drawn.height + 22 * lines + 66) * FINE))
    draw = ImageDraw.Draw(sheet := Image.new("RGB", size, PAPER))
    for x, y, radius, atom in sorted(drawn.spots, key=lambda spot: -spot[2]):
        faint = tuple(round(0.35 * a + 0.65 * b) for a, b in zip(CLASSES[classes["of"][atom][1]], PAPER, strict=True))
        _circle(draw, x, y, radius, outline=faint, width=FINE // 2)
    for *ends, kind in drawn.edges:
        _edge(draw, ends, kind)
    dense = 0.6 if len(drawn.spots) > 150 else 1
    for x, y, _, atom in drawn.spots:
        if outcome(owners[atom])[0]:
            _circle(draw, x, y, 9 * dense, outline=INK, width=round(1.8 * FINE * dense))
        _mark(draw, x, y, classes["of"][atom], dense)
    y = drawn.height - 10
    length, says = drawn.ruler
    draw.line(
        [(a * FINE, b * FINE) for a, b in ((12, y - 6), (12, y), (12 + length, y), (12 + length, y - 6))], MUTED, FINE
    )
    _say(draw, 18 + length, y + 1, says)
    for number, (name, mark) in enumerate(keys):
        x, y = 18 + 103 * (number % 6), drawn.height + 14 + 22 * (number // 6)
        _mark(draw, x, y, mark)
        _say(draw, x + 12, y + 4, name, 84)
    y = drawn.height + 22 * lines + 18
    for x, (kind, (name, _, _)) in zip((12, 190, 375), EDGES.items(), strict=True):
        _edge(draw, (x, y, x + 34, y), kind)
        _say(draw, x + 42, y + 4, f"{name} ({sum(edge[4] == kind for edge in drawn.edges)})", 200)
    kept = "" if found.kept != found.kept else f", {found.kept:.0%} of their variance"
    wrong = "; ringed: wrong" if any(outcome(result)[0] for result in owners) else ""
    _say(draw, 12, y + 26, f"Centres on two principal axes{kept}; by {classes['by']}{wrong}", 620)
    shown = sheet.resize((sheet.width // 2, sheet.height // 2), Image.Resampling.LANCZOS)
    return save(path, png(shown.quantize()))  # few colours: with a palette it is a third as large


def _circle(draw, x: float, y: float, radius: float, **style) -> None:
    draw.ellipse([(x - radius) * FINE, (y - radius) * FINE, (x + radius) * FINE, (y + radius) * FINE], **style)


def _mark(draw, x: float, y: float, mark: tuple[int, int], size: float = 1) -> None:
    corners, colour = MARKS[mark[0]], CLASSES[mark[1]]
    if corners is None:
        _circle(draw, x, y, 5 * size, fill=colour)
    else:
        draw.polygon([((x + a * size) * FINE, (y + b * size) * FINE) for a, b in corners], colour)


def _edge(draw, ends: tuple[float, float, float, float], kind: str) -> None:
    """A line, or its dashes: Pillow has none of its own."""
    (x1, y1, x2, y2), (_, dash, colour) = ends, EDGES[kind]
    length = math.hypot(x2 - x1, y2 - y1)
    on, off = dash or (length, 1)
    for i in range(math.ceil(length / (on + off)) if length else 0):
        parts = [min(place, length) / length for place in (i * (on + off), i * (on + off) + on)]
        places = [((x1 + (x2 - x1) * part) * FINE, (y1 + (y2 - y1) * part) * FINE) for part in parts]
        draw.line(places, colour, round(FINE * (2.2 if dash is None else 1.5)))


def _say(draw, x: float, y: float, text: str, width: float = 200) -> None:
    print_text(draw, (x * FINE, y * FINE), text, 13 * FINE, width * FINE, MUTED, "ls")
