"""Plots as numbers: where ticks, bars and points lie on a drawing of so many units. The page's template draws them."""

import math
from dataclasses import dataclass, field

import numpy as np

from .atoms_map import CLOSER, FURTHER, AtomsMap

MOST_POINTS = 1500  # points of pairs in one plot: more are a blot, and slow


MOST_NEAR = 400  # atoms whose neighbours are drawn and listed


@dataclass(frozen=True)
class Histogram:
    """Bars as (x, y, width, height, what they say, sign), on a drawing `WIDTH` x `HEIGHT` with its origin at the top left."""

    title: str
    says: str
    bars: list[tuple[float, float, float, float, str, int]]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    median: float
    unit: str


@dataclass(frozen=True)
class Scatter:
    """Points as (x, y, kind) on a drawing `SIDE` x `TALL` with logarithmic axes."""

    points: list[tuple[float, float, str]]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    diagonal: tuple[float, float, float, float]
    """x, y, x, y of the line on which distance and rest distance are equal."""
    shown: int
    """Pairs chosen to be drawn, of which `len(points)` lie within the axes."""
    repels: int
    closer: int
    further: int


@dataclass(frozen=True)
class Drawing:
    """The map on a drawing `width` x `height`: spots as (x, y, radius, number of the atom), edges as (x, y, x, y, kind)."""

    width: float
    height: float
    spots: list[tuple[float, float, float, int]]
    edges: list[tuple[float, float, float, float, str]]
    near: list[list[tuple[float, float, str]]]
    """The ends of the lines from each spot to its neighbours; empty where there are too many spots to show them."""
    ruler: tuple[float, str] = field(default=(0.0, ""))
    """Its length on the drawing, and what it stands for."""


WIDTH, HEIGHT, SIDE, TALL, MAP = 360, 170, 400, 380, 640


def histogram(title: str, values: np.ndarray, low: float, high: float, unit: str, bins: int = 32) -> Histogram | None:
    """The counts of `values` in equal bins from `low` to `high`; None for no values."""
    values = np.asarray(values, float)
    if not len(values := values[np.isfinite(values)]):
        return None
    if high <= low:
        low, high = low - 0.5, low + 0.5
    counts, edges = np.histogram(values.clip(low, high), bins, (low, high))
    middle, most = float(np.median(values)), counts.max()
    bars = []
    for count, left, right in zip(counts.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        if count:
            tall, sign = count / most * HEIGHT, (left + right > 1e-9) - (left + right < -1e-9)
            says = f"{count:,} from {_number(left)} to {_number(right)}"
            x, wide = (left - low) / (high - low) * WIDTH, WIDTH / bins
            bars.append((round(x, 2), round(HEIGHT - tall, 2), round(wide - 1, 2), round(tall, 2), says, sign))
    said = (
        f"{title}: {len(values):,} values from {_number(values.min())} to {_number(values.max())}, "
        f"median {_number(middle)}"
    )
    x_ticks = [((tick - low) / (high - low) * WIDTH, _number(tick)) for tick in ticks(low, high, 4)]
    y_ticks = [(HEIGHT - tick / most * HEIGHT, _count(tick)) for tick in ticks(0, most, 3) if tick % 1 == 0]
    return Histogram(title, said, bars, x_ticks, y_ticks, (middle - low) / (high - low) * WIDTH, unit)


def scatter(atoms: AtomsMap) -> Scatter | None:
    """Distance (up) against rest distance (right) of at most 1,500 pairs that have one; None where none has one above 0."""
    rests = np.isfinite(atoms.rest)
    closer = int((atoms.distance < atoms.rest)[rests].sum())
    some = np.flatnonzero(rests & (atoms.rest > 0) & (atoms.distance > 0))
    if not len(some):
        return None
    if len(some) > MOST_POINTS:
        some = np.random.default_rng(0).choice(some, MOST_POINTS, replace=False)
    distance, rest = np.log10(atoms.distance[some]), np.log10(atoms.rest[some])
    bottom, top = _padded(distance.min(), distance.max())
    # Nearly neutral atoms rest anywhere from 0 to infinity: a decade or two past the distances say enough.
    left, right = _padded(max(rest.min(), bottom - 1), min(rest.max(), top + 2))
    left, right = min(left, top - 0.2), max(right, bottom + 0.2)

    def place(x, y):
        return (x - left) / (right - left) * SIDE, TALL - (y - bottom) / (top - bottom) * TALL

    low, high = max(left, bottom), min(right, top)
    ends = tuple(round(float(number), 1) for number in (*place(low, low), *place(high, high)))
    points = []
    for x, y in zip(rest.tolist(), distance.tolist(), strict=True):
        if left <= x <= right:
            points.append((*(round(number, 1) for number in place(x, y)), CLOSER if y < x else FURTHER))
    x_ticks = [(place(math.log10(mark), 0)[0], _number(mark)) for mark in log_ticks(left, right)]
    y_ticks = [(place(0, math.log10(mark))[1], _number(mark)) for mark in log_ticks(bottom, top)]
    repels, further = int(np.isposinf(atoms.rest).sum()), int(rests.sum()) - closer
    return Scatter(points, x_ticks, y_ticks, ends, len(some), repels, closer, further)


def drawing(atoms: AtomsMap) -> Drawing:
    """The map with equal axes: centres, discs to scale, and the edges to nearest neighbours."""
    # Room for the discs, but not so much that a single large one leaves none for the centres.
    reach = np.minimum(atoms.radius, 0.4 * max(float(np.ptp(atoms.spots, axis=0).max()), 1e-12))[:, None]
    low, high = (atoms.spots - reach).min(axis=0), (atoms.spots + reach).max(axis=0)
    span, margin, foot = high - low, 14, 34
    unit = (
        min((MAP - 2 * margin) / span[0], 560 / span[1]) if span.min() > 0 else (MAP - 2 * margin) / (span.max() or 1.0)
    )
    tall = span[1] * unit + 2 * margin
    x = (atoms.spots[:, 0] - low[0]) * unit + (MAP - span[0] * unit) / 2
    y = tall - margin - (atoms.spots[:, 1] - low[1]) * unit
    rows = [(round(a, 1), round(b, 1)) for a, b in zip(x.tolist(), y.tolist(), strict=True)]
    spots = [(*rows[i], round(float(atoms.radius[i] * unit), 1), int(atoms.index[i])) for i in range(len(rows))]
    edges = [(*rows[i], *rows[j], kind) for i, j, kind in atoms.nearest]
    near = [[(*rows[j], kind) for j, _, kind in each] for each in atoms.neighbours] if len(rows) <= MOST_NEAR else []
    step = ticks(0, MAP / 4 / unit, 2)[-1]
    return Drawing(MAP, round(tall + foot, 1), spots, edges, near, (round(step * unit, 1), _number(step)))


def ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers (1, 2 or 5 times a power of ten) between two numbers, in order."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    return [round(i * step, 12) for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers between 10^low and 10^high: powers of ten, or less round ones where that is few."""
    for factors, least in (((1,), 3), ((1, 3), 3), ((1, 2, 5), 2)):
        marks = [m * 10.0**power for power in range(math.floor(low), math.ceil(high) + 1) for m in factors]
        if len(marks := [mark for mark in marks if low <= math.log10(mark) <= high]) >= least:
            return marks[:: max(1, len(marks) // 5)]
    return ticks(10**low, 10**high, 3)


def _padded(low: float, high: float) -> tuple[float, float]:
    room = 0.06 * (high - low) + 0.03
    return float(low - room), float(high + room)


def _count(value: float) -> str:
    return f"{value:.0f}" if value < 1000 else f"{value / 1000:g}k"


def _number(value: float) -> str:
    value = float(value)
    shown = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return shown.replace("-", "−")
