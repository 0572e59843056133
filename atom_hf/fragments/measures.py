"""From estimates of information to NMI and VI, and the jackknife over groups of points."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .estimate import Estimate

EMPTY = 1e-6 * math.log(2)  # nats, 1e-6 bits, below which a channel says nothing


class Measures(NamedTuple):
    """Measures of C and D channels and of their pairs, in nats. Errors are None where nothing was left out."""

    information: Tensor
    """[C]"""
    other_information: Tensor
    """[D]"""
    shared: Tensor
    """[C, D], as all that follow but for `information_error`."""
    nmi: Tensor
    vi: Tensor
    information_error: Tensor | None = None
    """[C]"""
    shared_error: Tensor | None = None
    nmi_error: Tensor | None = None
    vi_error: Tensor | None = None

    def in_bits(self) -> "Measures":
        """The same in bits; NMI has no unit."""
        units = [1.0 if name.startswith("nmi") else math.log(2) for name in self._fields]
        return Measures(*(value if value is None else value / unit for value, unit in zip(self, units, strict=True)))

    def put(self, rows: Tensor, columns: Tensor, part: "Measures") -> None:
        """Overwrite what concerns some of the channels: int64 [c] and [d]."""
        for name, whole, new in zip(self._fields, self, part, strict=True):
            if whole is not None:
                if whole.dim() == 2:
                    whole[rows.unsqueeze(1), columns] = new
                else:
                    whole[columns if name.startswith("other") else rows] = new


def measures_of(estimate: Estimate, same: Tensor) -> Measures:
    """The measures, with jackknife errors if groups of points were left out in turn.

    Args:
        estimate: with a first axis of 1, or of 1 + G.
        same: bool [C, D], where both are the same channel: their NMI is 1.
    """
    silent = estimate.information[0].unsqueeze(1) < EMPTY
    silent = silent | (estimate.other_information[0] < EMPTY)

    def pairs(index: int) -> tuple[Tensor, Tensor, Tensor]:
        shared, own, other = (part[index] for part in (estimate.shared, estimate.own, estimate.other))
        nmi, vi = nmi_and_vi(shared, own, other, silent)
        return shared, nmi.masked_fill(same, 1.0), vi

    found = estimate.information[0], estimate.other_information[0], *pairs(0)
    groups = len(estimate.information) - 1
    if not groups:
        return Measures(*found)
    information = jackknife(groups, lambda group: (estimate.information[1 + group],), found[:1])
    return Measures(*found, *information, *jackknife(groups, lambda group: pairs(1 + group), found[2:]))


def nmi_and_vi(shared: Tensor, own: Tensor, other: Tensor, silent: Tensor) -> tuple[Tensor, Tensor]:
    """NMI and VI of pairs.

    Args:
        shared: [C, D], S_uv.
        own: [C], S_uu.
        other: [D], S_vv, in the unit of S_uv.
        silent: bool [C, D], the pairs of which one channel says nothing: their NMI is 0, as where S_uu or S_vv is not above 0.
    """
    own, other = own.unsqueeze(1), other.unsqueeze(0)
    root = own.clamp(min=0).sqrt() * other.clamp(min=0).sqrt()
    silent = silent | (root == 0)
    nmi = (shared / root.masked_fill(silent, 1.0)).masked_fill(silent, 0.0)
    return nmi, own + other - 2 * shared


def jackknife(
    groups: int, without: Callable[[int], tuple[Tensor, ...]], whole: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """Standard errors: sqrt((G - 1)/G sum_g (t_g - mean_g t_g)^2), where t_g leaves out group g.

    Args:
        groups: G.
        without: the statistics without a group.
        whole: the same of everything, from which differences are summed.
    """
    sums = [torch.zeros_like(value) for value in whole]
    squares = [torch.zeros_like(value) for value in whole]
    for group in range(groups):
        for value, all_of_it, total, square in zip(without(group), whole, sums, squares, strict=True):
            difference = value - all_of_it
            total += difference
            square += difference.square()
    return tuple(
        ((square - total.square() / groups).clamp(min=0) * (groups - 1) / groups).sqrt()
        for total, square in zip(sums, squares, strict=True)
    )
