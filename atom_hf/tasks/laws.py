"""Equality in law, `~`: the energy distance (Szekely and Rizzo, 2013) between rows of two sides, of each class."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import AtomError
from ..utils.distributed import gather_rows
from .wires import Simplex, Value

WIDE = 32
"""Rows of more numbers are compared by matrix products."""


def energy_distance(system: Sequence[Value], specification: Sequence[Value], where: str) -> Tensor:
    """2 E|X - Y| - E|X - X'| - E|Y - Y'| of rows X of the one side and Y of the other, by Euclidean distances.

    A U-statistic: no row is compared with itself, nor with the row of the other side that may come from the same datum. Where
    a wire is a class of which both sides have ids, rows are compared within each class, and the distance is the mean over
    classes, by how often the specification has them; classes with less than two rows on a side are left out. Over several
    processes rows are those of all.

    Args:
        system, specification: the wires of a side.
        where: begins the error.

    Raises:
        AtomError: less than two rows, or no class with two rows on each side.
    """
    grouped = [
        isinstance(a, Simplex) and isinstance(b, Simplex) and a.ids is not None and b.ids is not None
        for a, b in zip(system, specification, strict=True)
    ]
    if all(grouped):  # nothing else to compare: the classes themselves
        grouped = [False] * len(grouped)
    sides = [
        [_numbers(wire) for wire, group in zip(side, grouped, strict=True) if not group]
        for side in (system, specification)
    ]
    rows = [gather_rows(torch.cat(parts, dim=1)) for parts in sides]
    groups = [_groups(side, grouped, like=row) for side, row in zip((system, specification), rows, strict=True)]
    found, counts = _by_class(*rows, *_same_codes(*groups))
    if found is None:
        many = "a class with two rows" if any(grouped) else "two rows"
        raise AtomError(
            f"{where}: ~ needs {many} on either side, and this batch has {len(rows[0])} rows; give a larger batch"
        )
    return (found * counts).sum() / counts.sum()


def _numbers(wire: Value) -> Tensor:
    values = wire.point if isinstance(wire, Simplex) else wire
    return values.reshape(len(values), -1).float()


def _groups(side: Sequence[Value], grouped: Sequence[bool], like: Tensor) -> Tensor:
    """[B, k] ids of the classes that rows are compared within."""
    ids = [wire.ids for wire, group in zip(side, grouped, strict=True) if group]
    if not ids:
        return like.new_zeros(len(like), 1)
    # As floats, which gather_rows takes; exact below 2^24.
    return gather_rows(torch.stack(ids, dim=1).to(like.dtype))


def _same_codes(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """One code for each combination of classes: [n, C] and [m, C], one-hot."""
    _, codes = torch.cat([first, second]).unique(dim=0, return_inverse=True)
    hot = torch.nn.functional.one_hot(codes).to(first.dtype)
    return hot[: len(first)], hot[len(first) :]


def _by_class(x: Tensor, y: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor | None, Tensor]:
    """The distance of each class that can be compared, and its rows on the second side; None if there is none."""
    across, of_x, of_y = _mean(x, y, first, second), _mean(x, x, first, first), _mean(y, y, second, second)
    usable = (first.sum(0) > 1) & (second.sum(0) > 1)
    if not usable.any():
        return None, usable
    return (2 * across - of_x - of_y)[usable], second.sum(0)[usable]


def _mean(x: Tensor, y: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """The mean distance [C] between rows of one class, without that of a row and the one of its number."""
    others = 1 - torch.eye(len(x), len(y), dtype=x.dtype, device=x.device)
    # Of wide rows by a matrix product, many times faster; about their mean, since distances lose precision under an offset.
    wide = x.shape[1] > WIDE
    middle = y.detach().mean(0) if wide else 0.0
    mode = f"{'' if wide else 'donot_'}use_mm_for_euclid_dist"
    distances = torch.cdist(x - middle, y - middle, compute_mode=mode) * others
    total = torch.einsum("ic,ij,jc->c", first, distances, second)
    pairs = torch.einsum("ic,ij,jc->c", first, others, second)
    return total / pairs.clamp(min=1)
