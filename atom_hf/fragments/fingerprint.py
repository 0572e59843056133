"""Fingerprints of channels: B_ij = integral sqrt(p(u|x_i) p(u|x_j)) du = exp(-D_ij), D the Bhattacharyya distance in nats.

Rows of B - 1 are computed from the parameters as they are asked for, and no fingerprint is ever whole. B - 1 instead of B, by
expm1, because the fingerprints of a channel that says little are all close to 1. The formulas stand in families.py.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .channel import Channel
from .families import Family, family_of

BLOCK = {"cpu": 2**16, "cuda": 2**26}
"""Numbers in a block of rows: what the cache of a core holds, or what fills a GPU."""


class Fingerprints:
    """Rows of B - 1 of C channels of the same N points.

    Channels of a kind and width are stacked, so that a row of all of them takes a few operations. `order` says which channel
    stands where: position p of a row is that of `channels[order[p]]`.
    """

    def __init__(self, channels: Sequence[Channel], *, dtype: torch.dtype = torch.float64, device: torch.device | str):
        members: dict[tuple[type[Family], int], list[int]] = {}
        for index, channel in enumerate(channels):
            members.setdefault(family_of(channel), []).append(index)
        self.order = [index for indices in members.values() for index in indices]
        self.points = channels[0].points
        self.device = torch.device(device)
        self.block = BLOCK.get(self.device.type, BLOCK["cpu"])
        self._dtype = dtype
        self._families = [
            family([channels[index] for index in indices], dtype, self.device)
            for (family, _), indices in members.items()
        ]

    def __len__(self) -> int:
        return len(self.order)

    @property
    def rows_at_once(self) -> int:
        """The rows that a block holds, with what it takes to compute those of the widest channel."""
        widest = max(family.width for family in self._families)
        return max(1, self.block // (self.points * max(len(self), widest)))

    def rows(self, first: int, last: int) -> Tensor:
        """B - 1 of the points from `first` to before `last` with all points: [R, C, N]."""
        return self._fill(first, last, lambda family: family.difference)

    def distances(self, first: int, last: int) -> Tensor:
        """D of the same, [R, C, N] in nats."""
        return self._fill(first, last, lambda family: family.distance)

    def _fill(self, first: int, last: int, formula: Callable[[Family], Callable]) -> Tensor:
        out = torch.empty(last - first, len(self), self.points, dtype=self._dtype, device=self.device)
        start = 0
        for family in self._families:
            at_once = max(1, self.block // ((last - first) * self.points * family.width))
            for member in range(0, len(family), at_once):
                members = slice(member, min(member + at_once, len(family)))
                formula(family)(out[:, start + members.start : start + members.stop], members, slice(first, last))
            start += len(family)
        return out


def bhattacharyya_distance(channel: Channel) -> Tensor:
    """The Bhattacharyya distance between each two data points, [N, N] in nats, float64; inf where no message is shared.

    It is a whole matrix, which `compare_channels` never holds.
    """
    fingerprints = Fingerprints([channel], device=channel.data.device)
    at_once = fingerprints.rows_at_once
    firsts = range(0, channel.points, at_once)
    return torch.cat([fingerprints.distances(i, min(i + at_once, channel.points))[:, 0] for i in firsts])
