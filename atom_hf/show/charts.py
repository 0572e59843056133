"""Plots as numbers: where ticks, bars and points lie on a drawing of so many units. The page's template draws them."""

import math
from dataclasses import dataclass, field

import numpy as np

from .atoms_map import CLOSER, FURTHER, AtomsMap

MOST_POINTS = 1500  # points of pairs in one plot: more are a blot, and slow


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
    """Points as (x, y, kind) on a drawing of `SIDE` x `SIDE` with equal logarithmic axes; the diagonal is its corner to corner."""

    points: list[tuple[float, float, str]]
    ticks: list[tuple[float, str]]
    """Along either axis, from its origin."""
    shown: int
    drawn: int
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
    ruler: tuple[float, str] = field(default=(0.0, ""))
    """Its length on the drawing, and what it stands for."""


WIDTH, HEIGHT, SIDE, MAP = 360, 170, 400, 640


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
    y_ticks = [(HEIGHT - tick / most * HEIGHT, f"{tick:,.0f}") for tick in ticks(0, most, 3) if tick % 1 == 0]
    return Histogram(title, said, bars, x_ticks, y_ticks, (middle - low) / (high - low) * WIDTH, unit)


def scatter(atoms: AtomsMap) -> Scatter | None:
    """Distance (up) against rest distance (right) of the pairs that have one, at most 1,500; None where none has one."""
    some = np.isfinite(atoms.rest) & (atoms.rest > 0) & (atoms.distance > 0)
    repels, closer = int(np.isposinf(atoms.rest).sum()), int((atoms.distance < atoms.rest)[np.isfinite(atoms.rest)].sum())
    further = int(np.isfinite(atoms.rest).sum()) - closer
    if not some.any():
        return None
    distance, rest = np.log10(atoms.distance[some]), np.log10(atoms.rest[some])
    if len(rest) > MOST_POINTS:
        chosen = np.random.default_rng(0).choice(len(rest), MOST_POINTS, replace=False)
        distance, rest = distance[chosen], rest[chosen]
    # A pair of nearly neutral atoms rests anywhere up to infinity: two decades past what there is say enough.
    low = max(min(distance.min(), rest.min()), distance.min() - 2)
    high = min(max(distance.max(), rest.max()), distance.max() + 2)
    low, high = low - 0.06 * (high - low) - 0.02, high + 0.06 * (high - low) + 0.02
    inside = (rest >= low) & (rest <= high)
    points = [
        (round((x - low) / (high - low) * SIDE, 1), round(SIDE - (y - low) / (high - low) * SIDE, 1), kind)
        for x, y, kind in zip(
            rest[inside].tolist(),
            distance[inside].tolist(),
            np.where(distance < rest, CLOSER, FURTHER)[inside].tolist(),
            strict=True,
        )
    ]
    marks = [m * 10.0**power for power in range(math.floor(low) - 1, math.ceil(high) + 1) for m in (1, 2, 5)]
    marks = [(math.log10(mark), mark) for mark in marks if low <= math.log10(mark) <= high]
    if len(marks) > 6:
        marks = [pair for pair in marks if abs(pair[0] % 1) < 1e-9 or abs(pair[0] % 1 - 1) < 1e-9] or marks[::3]
    along = [((place - low) / (high - low) * SIDE, _number(mark)) for place, mark in marks]
    return Scatter(points, along, len(rest), len(points), repels, closer, further)


def drawing(atoms: AtomsMap) -> Drawing:
    """The map with equal axes, wide rather than high: centres, discs to scale, and the edges to nearest neighbours."""
    margin = 26
    low, high = atoms.spots.min(axis=0), atoms.spots.max(axis=0)
    span = high - low
    unit = (MAP - 2 * margin) / (span[0] or 1.0)
    # A tall set would leave no room: then the height decides.
    unit = min(unit, 560 / span[1]) if span[1] else unit
    places = (atoms.spots - low) * unit
    wide, high = MAP, max(span[1] * unit, 160) + 2 * margin
    places += ((wide - span[0] * unit) / 2, (high - span[1] * unit) / 2)
    places[:, 1] = high - places[:, 1]
    rows = [[round(x, 1), round(y, 1)] for x, y in places.tolist()]
    spots = [(*rows[i], round(float(atoms.radius[i] * unit), 1), int(atoms.index[i])) for i in range(len(rows))]
    edges = [(*rows[i], *rows[j], kind) for i, j, kind in atoms.nearest]
    step = ticks(0, MAP / 4 / unit, 2)[-1]
    return Drawing(wide, round(high, 1), spots, edges, (round(step * unit, 1), _number(step)))


def ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers (1, 2 or 5 times a power of ten) between two numbers, in order."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    return [round(i * step, 12) for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _number(value: float) -> str:
    value = float(value)
    shown = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return shown.replace("-", "−")
