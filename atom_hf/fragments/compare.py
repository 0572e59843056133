"""Compare channels: what each says, and how much two say the same."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import AtomError
from ..utils.bounds import SEED, Bound, check_bounds
from ..utils.terminal import get_logger
from .channel import Channel
from .comparison import Comparison
from .exact import from_tables
from .measures import Measures, measures_of
from .monte_carlo import from_draws
from .streaming import from_fingerprints

logger = get_logger(__name__)

ESTIMATORS = ("auto", "fingerprint", "monte_carlo", "exact")

GROUPS = 10  # of the jackknife

PERMUTATIONS = 3

HIGH_CHANCE = 0.5  # of NMI

DTYPES = (torch.float64, torch.float32)

_SAMPLES = Bound(2, 2**31 - 1, whole=True)


def compare_channels(
    channels: Sequence[Channel],
    others: Sequence[Channel] | None = None,
    *,
    estimator: str = "auto",
    samples: int = 40_000,
    errors: bool = False,
    chance: bool = False,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
) -> Comparison:
    """Compare each channel with each other one, or with each of `others`, by the measures of arXiv 2405.21042.

    Args:
        channels: C channels of the same N points, in the same order.
        others: D channels of these points; the same channels if None.
        estimator: "fingerprint" (by how well points are told apart; low for soft clusters), "exact" (of discrete channels),
            "monte_carlo" (draws messages; slow), or "auto": exact where both sides are discrete, else fingerprint.
        samples: draws of Monte Carlo.
        errors: also standard errors, by a jackknife over ten groups of points, which takes about five times as long. Monte
            Carlo always has its own, by the delta method, of its draws alone.
        chance: also the mean NMI with the points of each channel permuted independently, 3 times.
        seed: of the permutations, of the groups and of the draws.
        dtype: torch.float32 is faster on a GPU, and loses channels that say little.
        device: where to compute; the channels' own if None.

    Returns:
        A `Comparison`, in bits.

    Raises:
        AtomError: no channels, channels of different points, an estimator that does not fit, an argument out of range.
    """
    channels = list(channels)
    others = None if others is None else list(others)
    check_channels([*channels, *(others or [])])
    _check_options(channels, others, estimator, dtype, samples, seed)
    method = _Method(estimator, samples, seed, dtype, channels[0].data.device if device is None else device)
    points = channels[0].points
    groups = _groups(points, seed) if errors and estimator != "monte_carlo" else []
    found = _measure(channels, others, method, groups).in_bits()
    by_chance = _chance(channels, others, method) if chance else None
    comparison = Comparison(**found._asdict(), points=points, estimator=estimator, chance=by_chance)
    _warn(comparison)
    return comparison


def check_channels(channels: Sequence[Channel]) -> None:
    """Raise `AtomError` unless there is at least one channel and all are of the same points in the same order."""
    if not channels or not all(isinstance(channel, Channel) for channel in channels):
        given = ", ".join(sorted({type(channel).__name__ for channel in channels})) or "none"
        raise AtomError(f"channels must be one or more of Channel, got {given}")
    first = channels[0]
    named = next((channel for channel in channels if channel.ids is not None), None)
    for channel in channels:
        if channel.points != first.points:
            raise AtomError(
                f"channels must be of the same data points; {first!r} has {first.points} and {channel!r} {channel.points}"
            )
        if channel.ids is not None and channel.ids != named.ids:
            where = next(i for i, (a, b) in enumerate(zip(named.ids, channel.ids, strict=True)) if a != b)
            raise AtomError(
                f"channels must be of the same data points in the same order; point {where} is {named.ids[where]!r} in "
                f"{named!r} and {channel.ids[where]!r} in {channel!r}"
            )


@dataclass(frozen=True)
class _Method:
    """How to estimate, and where."""

    estimator: str
    samples: int
    seed: int
    dtype: torch.dtype
    device: torch.device | str


def _check_options(
    channels: list[Channel], others: list[Channel] | None, estimator: str, dtype: torch.dtype, samples: int, seed: int
) -> None:
    if estimator not in ESTIMATORS:
        raise AtomError(f"estimator must be one of {', '.join(ESTIMATORS)}; got {estimator!r}")
    if dtype not in DTYPES:
        raise AtomError(f"dtype must be torch.float64 or torch.float32, got {dtype}")
    check_bounds({"samples": samples, "seed": seed}, {"samples": _SAMPLES, "seed": SEED})
    for channel in [*channels, *(others or [])]:
        if estimator == "exact" and not channel.is_discrete:
            raise AtomError(f"estimator 'exact' needs soft or hard channels, got {channel!r}; use 'fingerprint'")
        if estimator == "monte_carlo" and channel.kind == "fingerprint":
            raise AtomError(f"estimator 'monte_carlo' cannot draw from {channel!r}; use 'fingerprint'")


def _measure(
    channels: list[Channel], others: list[Channel] | None, method: _Method, groups: Sequence[Tensor]
) -> Measures:
    """The measures, with errors where there are groups or draws."""
    right = channels if others is None else others
    same = torch.tensor([[channel is other for other in right] for channel in channels])
    if method.estimator == "monte_carlo":
        estimate, errors = from_draws(channels, others, samples=method.samples, seed=method.seed, device=method.device)
        measures = measures_of(estimate, same)
        return Measures(*measures[:5], *errors)._replace(nmi_error=errors.nmi_error.masked_fill(same, 0.0))

    def discrete(side: list[Channel]) -> Tensor:
        exact = method.estimator in ("auto", "exact")
        return torch.tensor([i for i, channel in enumerate(side) if exact and channel.is_discrete], dtype=torch.int64)

    rows, columns = discrete(channels), discrete(right)
    if len(rows) == len(channels) and len(columns) == len(right):
        return measures_of(from_tables(channels, others, groups, device=method.device), same)
    by_fingerprint = from_fingerprints(channels, others, groups, dtype=method.dtype, device=method.device)
    measures = measures_of(by_fingerprint, same)
    if len(rows) and len(columns):
        some = [channels[i] for i in rows]
        of_others = None if others is None else [others[i] for i in columns]
        exact = from_tables(some, of_others, groups, device=method.device)
        measures.put(rows, columns, measures_of(exact, same[rows.unsqueeze(1), columns]))
    return measures


def _groups(points: int, seed: int) -> list[Tensor]:
    """Ten groups of points at random, or as many as there are points."""
    order = torch.randperm(points, generator=torch.Generator().manual_seed(seed))
    return list(order.tensor_split(min(GROUPS, points)))


def _chance(channels: list[Channel], others: list[Channel] | None, method: _Method) -> Tensor:
    """Mean NMI over permutations of the points of each channel, [C, D]."""
    generator = torch.Generator().manual_seed(method.seed)

    def permuted(side: list[Channel]) -> list[Channel]:
        orders = (torch.randperm(channel.points, generator=generator).to(channel.data.device) for channel in side)
        return [replace(channel, ids=None).take(order) for channel, order in zip(side, orders, strict=True)]

    repeats = (
        _measure(permuted(channels), None if others is None else permuted(others), method, []).nmi
        for _ in range(PERMUTATIONS)
    )
    return torch.stack(list(repeats)).mean(0)


def _warn(comparison: Comparison) -> None:
    count, saturated = len(comparison.saturated), int(comparison.saturated.sum())
    if saturated:
        logger.warning(
            "%d of %d channels hold more than half of log2 N = %.3g bits: they tell nearly all points apart, and NMI is then "
            "large by chance. Fewer bits, or more points, say more.",
            saturated,
            count,
            math.log2(comparison.points),
        )
    if comparison.chance is not None:
        high = int(((comparison.chance > HIGH_CHANCE) & (comparison.chance != 1)).sum())
        if high:
            logger.warning("chance alone gives %d pairs of channels an NMI above %s: see `adjusted`", high, HIGH_CHANCE)
