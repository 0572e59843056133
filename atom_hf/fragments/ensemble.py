"""Statistics of an ensemble of runs. Errors are a jackknife over runs, since pairs of channels share runs."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ..errors import AtomError
from .channel import Channel
from .compare import compare_channels
from .hotspots import find_hotspots


def mean_over_runs(values: Tensor, runs: Sequence[str]) -> tuple[float, float]:
    """The mean of a measure over pairs of channels of different runs, and its standard error.

    Args:
        values: [C, C], such as `Comparison.nmi`.
        runs: C, the run of each channel.

    Returns:
        NaN where there is nothing to average: a mean takes 2 runs, an error 3.
    """
    return _over_runs(values, runs, lambda kept, apart: float(kept[apart].mean()) if apart.any() else math.nan)


def median_nearest(nmi: Tensor, runs: Sequence[str]) -> tuple[float, float]:
    """The median over channels of the largest NMI to a channel of another run, and its standard error. As `mean_over_runs`."""

    def statistic(kept: Tensor, apart: Tensor) -> float:
        return float(kept.masked_fill(~apart, -math.inf).amax(1).median()) if apart.any() else math.nan

    return _over_runs(nmi, runs, statistic)


def _over_runs(
    values: Tensor, runs: Sequence[str], statistic: Callable[[Tensor, Tensor], float]
) -> tuple[float, float]:
    """A statistic of values [C, C] and of which pairs are of different runs, bool [C, C], with its jackknife error."""
    names = sorted(set(runs))
    which = torch.tensor([names.index(run) for run in runs])

    def of(kept: Tensor) -> float:
        return statistic(values[kept][:, kept], which[kept].unsqueeze(1) != which[kept])

    whole = of(torch.ones(len(which), dtype=torch.bool))
    without = torch.tensor([of(which != run) for run in range(len(names))], dtype=torch.float64)
    count = len(names)
    return whole, float(((count - 1) / count * (without - without.mean()).square().sum()).sqrt())


def by_regularization(
    channels: Sequence[Channel],
    strengths: Mapping[str, float],
    *,
    distance: str = "nmi",
    cluster: str = "hdbscan",
    estimator: str = "auto",
) -> list[dict[str, float | int | None]]:
    """What becomes of channels and hotspots as a regularization grows, such as beta of a VAE.

    Args:
        channels: of runs of several strengths, of the same points.
        strengths: of each run.
        distance, cluster, estimator: as of `find_hotspots`.

    Returns:
        For each strength, in order: strength, runs, channels, informative (their number), hotspots (their number), and, None
        where there is no hotspot, size and bits (means over hotspots); nearest and nearest_error (`median_nearest` of the
        informative channels), None where there is no pair.

    Raises:
        AtomError: a run without a strength.
    """
    missing = sorted({channel.run for channel in channels} - set(strengths))
    if missing:
        raise AtomError(f"strengths must have a number for each run; {missing[0]!r} has none")
    members: dict[float, list[Channel]] = defaultdict(list)
    for channel in channels:
        members[strengths[channel.run]].append(channel)
    rows = []
    for strength in sorted(members):
        of_it = members[strength]
        comparison = compare_channels(of_it, estimator=estimator)
        kept = comparison.informative.nonzero().flatten()
        row = {
            "strength": strength,
            "runs": len({channel.run for channel in of_it}),
            "channels": len(of_it),
            "informative": len(kept),
            "hotspots": 0,
            "size": None,
            "bits": None,
            "nearest": None,
            "nearest_error": None,
        }
        if len(kept) > 1:
            spots = find_hotspots(of_it, distance=distance, cluster=cluster, comparison=comparison).summary()
            row["hotspots"] = len(spots)
            for name in ("size", "bits") if spots else ():
                row[name] = sum(spot[name] for spot in spots) / len(spots)
            nearest = median_nearest(comparison.take(kept).nmi, [of_it[index].run for index in kept])
            for name, value in zip(("nearest", "nearest_error"), nearest, strict=True):
                row[name] = None if math.isnan(value) else value
        rows.append(row)
    return rows
