"""Hotspots: groups of channels of an ensemble of runs that say the same.

Each run of a method may learn the same piece of information as a channel of its own: such channels are near each other by
NMI or VI, whatever run they are of, and are found by clustering.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import AtomError
from ..utils.bounds import Bound, check_bounds
from .channel import Channel
from .compare import check_channels, compare_channels
from .comparison import INFORMATIVE, Comparison

DISTANCES = ("nmi", "vi")

CLUSTERINGS = ("hdbscan", "optics")

LEAST_NMI = 1e-4  # of which the negative logarithm is a distance

LEAST_SIZE = 3

_SIZE = {"min_size": Bound(2, 2**31 - 1, whole=True)}


@dataclass(frozen=True, eq=False)
class Hotspots:
    """Groups of informative channels, numbered from 0."""

    labels: Tensor
    """int64 [C]: the hotspot of each channel; -1: in none, or not informative."""
    kept: Tensor
    """int64 [K]: indices of the informative channels."""
    ordering: Tensor
    """int64 [K]: the informative channels in OPTICS' order, as indices of all channels; neighbours stand together."""
    reachability: Tensor
    """[K]: OPTICS' reachability distance of the channels `kept`; inf where a new group begins."""
    comparison: Comparison
    """Of the K informative channels."""
    channels: tuple[Channel, ...]
    """All C."""
    min_size: int
    """Of the smallest group that could be found."""

    def __len__(self) -> int:
        return int(self.labels.max()) + 1

    def members(self, hotspot: int) -> Tensor:
        """int64: the channels of a hotspot."""
        return (self.labels == hotspot).nonzero().flatten()

    def medoid(self, hotspot: int) -> int:
        """The channel with the largest mean NMI to the others of its hotspot."""
        within = torch.isin(self.kept, self.members(hotspot))
        nmi = self.comparison.nmi[within][:, within]
        return int(self.kept[within][nmi.mean(1).argmax()])

    def summary(self, truth: Sequence[Channel] = (), seed: int = 0) -> list[dict[str, float | int | str]]:
        """A row for each hotspot, largest first.

        Args:
            truth: channels of what is known about the points, such as `Channel.hard(labels, name="digit")`.
            seed: of the permutations by which chance is found.

        Returns:
            hotspot; size; runs, the share that has a channel in it; bits, the mean information; medoid, its index; name, the
            medoid's; nmi, the mean between its channels; chance, the same by chance, None if the comparison has none; and for
            each truth `nmi NAME` and `chance NAME`, means over its channels.
        """
        runs = len({channel.run for channel in self.channels})
        to_truth = self._compare(truth, seed) if truth else None
        rows = []
        for hotspot in range(len(self)):
            members = self.members(hotspot)
            within = torch.isin(self.kept, members)
            part = self.comparison.take(within.nonzero().flatten())
            size, medoid = len(members), self.medoid(hotspot)
            row = {
                "hotspot": hotspot,
                "size": size,
                "runs": len({self.channels[index].run for index in members}) / runs,
                "bits": float(part.information.mean()),
                "medoid": medoid,
                "name": self.channels[medoid].name,
                "nmi": _mean_between(part.nmi),
                "chance": None if part.chance is None else _mean_between(part.chance),
            }
            for place, channel in enumerate(truth):
                name = channel.name or str(place)
                row[f"nmi {name}"] = float(to_truth.nmi[within, place].mean())
                row[f"chance {name}"] = float(to_truth.chance[within, place].mean())
            rows.append(row)
        return rows

    def _compare(self, truth: Sequence[Channel], seed: int) -> Comparison:
        return compare_channels([self.channels[index] for index in self.kept], truth, chance=True, seed=seed)


def find_hotspots(
    channels: Sequence[Channel],
    *,
    distance: str = "nmi",
    cluster: str = "hdbscan",
    min_size: int | None = None,
    estimator: str = "auto",
    comparison: Comparison | None = None,
) -> Hotspots:
    """Find groups of channels that say the same.

    Args:
        channels: C channels of an ensemble, of the same points; `Channel.run` tells the runs apart.
        distance: "nmi" (-ln NMI, NMI taken from 1e-4 to 1) or "vi" (in bits; never below 0).
        cluster: "hdbscan", which finds none in noise, or "optics", as in the paper, which may call noise one group.
        min_size: the smallest group; half the runs, at least 3, if None.
        estimator: as of `compare_channels`.
        comparison: of these channels with themselves, if it has been made.

    Returns:
        `Hotspots`. Channels below 0.01 bits are in none.

    Raises:
        AtomError: fewer than 2 channels, or none informative; an argument that is not known.
    """
    channels = list(channels)
    check_channels(channels)
    if len(channels) < 2:
        raise AtomError(f"hotspots need at least 2 channels, got {len(channels)}")
    for name, value, known in (("distance", distance, DISTANCES), ("cluster", cluster, CLUSTERINGS)):
        if value not in known:
            raise AtomError(f"{name} must be one of {', '.join(known)}; got {value!r}")
    check_bounds({"min_size": min_size}, _SIZE)
    if min_size is None:
        min_size = max(LEAST_SIZE, len({channel.run for channel in channels}) // 2)
    whole = compare_channels(channels, estimator=estimator) if comparison is None else comparison
    if whole.nmi.shape != (len(channels), len(channels)):
        raise AtomError(f"comparison must be of the {len(channels)} channels, got one of {tuple(whole.nmi.shape)}")
    kept = whole.informative.nonzero().flatten()
    if len(kept) < 2:
        raise AtomError(
            f"hotspots need at least 2 channels of {INFORMATIVE} bits or more; the {len(channels)} channels hold at most "
            f"{float(whole.information.max()):.3g} bits"
        )
    informative = whole.take(kept)
    labels = torch.full((len(channels),), -1)
    found, ordering, reachability = _cluster(_distances(informative, distance), cluster, min_size)
    labels[kept] = _by_size(found)
    return Hotspots(labels, kept, kept[ordering], reachability, informative, tuple(channels), min_size)


def _mean_between(measure: Tensor) -> float:
    """Of a symmetric measure, over pairs of different channels."""
    return float(measure[~torch.eye(len(measure), dtype=torch.bool)].mean())


def _distances(comparison: Comparison, distance: str) -> Tensor:
    """[K, K]: symmetric, with a diagonal of 0."""
    distances = comparison.vi.clamp(min=0) if distance == "vi" else -comparison.nmi.clamp(LEAST_NMI, 1).log()
    return ((distances + distances.T) / 2).fill_diagonal_(0)


def _cluster(distances: Tensor, cluster: str, min_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Labels [K], ordering [K] and reachability [K]. Both methods get OPTICS' order, by which the channels are drawn."""
    from sklearn.cluster import HDBSCAN, cluster_optics_xi, compute_optics_graph

    matrix, count = distances.numpy(), len(distances)
    size = min(min_size, count)
    ordering, _, reachability, predecessor = compute_optics_graph(
        X=matrix,
        min_samples=size,
        max_eps=math.inf,
        metric="precomputed",
        p=2,
        metric_params=None,
        algorithm="auto",
        leaf_size=30,
        n_jobs=None,
    )
    if count < min_size:
        labels = torch.full((count,), -1)
    elif cluster == "hdbscan":
        labels = torch.from_numpy(
            HDBSCAN(metric="precomputed", copy=True, min_cluster_size=min_size).fit_predict(matrix)
        )
    else:
        labels = torch.from_numpy(
            cluster_optics_xi(
                reachability=reachability,
                predecessor=predecessor,
                ordering=ordering,
                min_samples=size,
                min_cluster_size=min_size,
            )[0]
        )
    return labels.long(), torch.from_numpy(ordering).long(), torch.from_numpy(reachability)


def _by_size(labels: Tensor) -> Tensor:
    """The same groups, numbered by size."""
    there = labels >= 0
    if not there.any():
        return labels
    counts = labels[there].bincount()
    rank = counts.argsort(descending=True, stable=True).argsort()
    return torch.where(there, rank[labels.clamp(min=0)], -1)
