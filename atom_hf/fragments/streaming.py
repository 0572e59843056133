"""Information and shared information of channels from the rows of their fingerprints, summed as the rows are computed.

With m_i = mean_j B_ij,

    I(X;U) = -mean_i ln m_i
    S_uv   = mean_i ln[1 + cov_j(Bu_ij, Bv_ij) / (mu_i mv_i)]

The covariances of all pairs in a row are one matrix product. Time O(N^2 C^2), memory O(C N + C^2): no fingerprint is ever
whole. The jackknife leaves out one group of points after another, as rows and as columns, in the same pass.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from .channel import Channel
from .estimate import Estimate
from .fingerprint import Fingerprints

PAIRS = {
    "cpu": 64,
    "cuda": 1024,
}  # channels on one side of a block of pairs: only blocks on or above the diagonal are computed

SUMS = 2**25  # numbers that the sums of a panel of pairs may take

LONG = 10**11  # multiplications, some seconds: beyond, progress is shown


def from_fingerprints(
    channels: Sequence[Channel],
    others: Sequence[Channel] | None,
    groups: Sequence[Tensor],
    *,
    dtype: torch.dtype,
    device: torch.device | str,
) -> Estimate:
    """Estimates from fingerprints.

    Args:
        channels: C, of the same N points.
        others: D; None for the channels themselves.
        groups: G disjoint tensors of indices, together all points; none for no jackknife.
        dtype: of all but the sums over rows, which are float64.
        device: where to compute.
    """
    if groups:  # in their order, each of them is a slice
        order = torch.cat(list(groups))
        channels = [channel.take(order.to(channel.data.device)) for channel in channels]
        others = others and [channel.take(order.to(channel.data.device)) for channel in others]
    sizes = [len(group) for group in groups]
    left = _Side(Fingerprints(channels, dtype=dtype, device=device), sizes, alone=others is None)
    right = left if others is None else _Side(Fingerprints(others, dtype=dtype, device=device), sizes)
    with _full_precision():
        shared = _sum_pairs(left, right, sizes)[:, left.places][:, :, right.places]
    if others is None:
        own = other = shared.diagonal(dim1=1, dim2=2).clone()
    else:
        own, other = left.own[:, left.places], right.own[:, right.places]
    return Estimate(left.information[:, left.places], right.information[:, right.places], own, other, shared)


class _Rows(NamedTuple):
    """A block of rows of C fingerprints, relative to their means."""

    deviation: Tensor
    """[R, C, N], (B - m) / m."""
    shifts: list[Tensor]
    """G of [R, C]: by how much leaving out a group changes the mean, over the mean."""


class _Side:
    """The channels on one side of all pairs: their rows, and sums over rows of what concerns them alone."""

    def __init__(self, fingerprints: Fingerprints, sizes: Sequence[int], alone: bool = False):
        self.fingerprints = fingerprints
        self.alone = alone
        """Whether it is on both sides: S_uu is then on the diagonal of the pairs, and not summed here."""
        self.bounds = list(pairwise(accumulate(sizes, initial=0)))
        self.places = torch.tensor(fingerprints.order).argsort()
        """[C]: where each channel stands."""
        kept = fingerprints.points - torch.tensor([0, *sizes], dtype=torch.float64)
        self.kept = kept.unsqueeze(1)
        """[1 + G, 1]: the points of each estimate."""
        self.start()

    def start(self) -> None:
        """Start a pass over all rows."""
        size = len(self.kept), len(self.fingerprints)
        self._information = torch.zeros(size, dtype=torch.float64, device=self.fingerprints.device)
        self._own = torch.zeros_like(self._information)

    def rows(self, first: int, last: int, group: int) -> _Rows:
        """The rows from `first` to before `last`, all of one group."""
        deviation = self.fingerprints.rows(first, last)
        points = deviation.shape[2]
        mean = deviation.mean(2, keepdim=True)
        log_mean = mean.log1p().squeeze(2)
        deviation.sub_(mean).mul_(mean.add_(1).reciprocal_())
        self._information[0] -= log_mean.sum(0)
        shifts = [deviation[:, :, a:b].sum(2).div_(b - a - points) for a, b in self.bounds]
        for left_out, shift in enumerate(shifts):
            if left_out != group:
                self._information[1 + left_out] -= (log_mean + shift.log1p()).sum(0)
        if not self.alone:
            self._add_own(deviation, shifts, group)
        return _Rows(deviation, shifts)

    def _add_own(self, deviation: Tensor, shifts: list[Tensor], group: int) -> None:
        """Add a block of rows to the sums of S_uu."""
        points = deviation.shape[2]
        squares = [_sum_of_squares(deviation[:, :, a:b]) for a, b in self.bounds or [(0, points)]]
        total = torch.stack(squares).sum(0)
        self._own[0] += (total / points).log1p().sum(0)
        for left_out, shift in enumerate(shifts):
            if left_out != group:
                a, b = self.bounds[left_out]
                variance = ((total - squares[left_out]) / (points - (b - a)) - shift.square()) / (1 + shift).square()
                self._own[1 + left_out] += variance.log1p().sum(0)

    @property
    def information(self) -> Tensor:
        """[1 + G, C]."""
        return self._information.cpu() / self.kept

    @property
    def own(self) -> Tensor:
        """[1 + G, C]."""
        return self._own.cpu() / self.kept


def _sum_pairs(left: _Side, right: _Side, sizes: Sequence[int]) -> Tensor:
    """S of all pairs, [1 + G, C, D], of channels as they stand in the rows."""
    points, count, width = left.fingerprints.points, len(left.fingerprints), len(right.fingerprints)
    panel = max(1, SUMS // ((1 + len(sizes)) * width))
    firsts = range(0, count, panel)
    slow = points**2 * count * width > LONG
    sums = []
    with tqdm(total=points * len(firsts), desc="comparing", unit="row", leave=False, disable=not slow) as bar:
        for first in firsts:
            sums.append(_sum_panel(left, right, sizes, slice(first, min(first + panel, count)), bar))
    shared = torch.cat([part.cpu() for part in sums], 1)
    if left is right:  # only the pairs in and above the diagonal were computed
        shared = shared.triu() + shared.triu(1).mT
    return shared / left.kept.unsqueeze(2)


def _sum_panel(left: _Side, right: _Side, sizes: Sequence[int], panel: slice, bar: tqdm) -> Tensor:
    """Sums of ln[1 + cov / (m m)] over rows, [1 + G, panel, D], from one pass over all rows."""
    points, width, device = right.fingerprints.points, len(right.fingerprints), right.fingerprints.device
    sums = torch.zeros(1 + len(sizes), panel.stop - panel.start, width, dtype=torch.float64, device=device)
    for side in {left, right}:
        side.start()
    pairs = PAIRS.get(right.fingerprints.device.type, PAIRS["cpu"])
    at_once = min(left.fingerprints.rows_at_once, right.fingerprints.rows_at_once)
    for group, (start, stop) in enumerate(right.bounds or [(0, points)]):
        for row in range(start, stop, at_once):
            last = min(row + at_once, stop)
            mine = left.rows(row, last, group)
            theirs = mine if left is right else right.rows(row, last, group)
            for first in range(panel.start, panel.stop, pairs):
                block = slice(first, min(first + pairs, panel.stop))
                columns = slice(first if left is right else 0, width)
                into = sums[:, block.start - panel.start : block.stop - panel.start, columns]
                _add_pairs(into, mine, theirs, block, columns, right.bounds, group)
            del mine, theirs  # before the next rows are made
            bar.update(last - row)
    return sums


def _add_pairs(
    sums: Tensor, mine: _Rows, theirs: _Rows, block: slice, columns: slice, bounds: list[tuple[int, int]], group: int
) -> None:
    """Add a block of rows to the sums of a block of pairs."""
    left, right = mine.deviation[:, block], theirs.deviation[:, columns]
    points = left.shape[2]
    if not bounds:
        sums[0] += torch.bmm(left, right.mT).div_(points).log1p_().sum(0)
        return
    products = [torch.bmm(left[:, :, a:b], right[:, :, a:b].mT) for a, b in bounds]
    total = torch.stack(products).sum(0)
    sums[0] += (total / points).log1p_().sum(0)
    for left_out, (a, b) in enumerate(bounds):
        if left_out != group:
            my_shift, their_shift = mine.shifts[left_out][:, block, None], theirs.shifts[left_out][:, None, columns]
            covariance = (total - products[left_out]).div_(points - (b - a)).sub_(my_shift * their_shift)
            sums[1 + left_out] += covariance.div_((1 + my_shift) * (1 + their_shift)).log1p_().sum(0)


def _sum_of_squares(deviation: Tensor) -> Tensor:
    """[R, C], over the last axis of [R, C, N]."""
    return torch.linalg.vector_norm(deviation, dim=2).square()


@contextmanager
def _full_precision() -> Iterator[None]:
    """Products of float32 without TF32 or bfloat16, whose 10 bits are too few for covariances."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
