"""Means of the parts of the atom loss, logged beside the loss."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..atoms.loss import AtomLoss

LOGGED = (
    *("task_loss", "atom_loss", "atom_energy", "atom_constraint", "atom_importance", "atom_positive_share"),
    *("atom_negative_share", "atom_distance", "atom_radius", "atom_net_charge"),
)

# Batches are kept as they come, and their means taken of so many at a time: a step then launches next to no operation for
# the log, and what is kept are a few numbers a batch and one a token.
KEPT = 32


class LossLog:
    """Means of `LOGGED` over the batches since the last log."""

    def __init__(self) -> None:
        self._kept: list[tuple[Tensor, int, AtomLoss, Tensor]] = []
        self._sums: Tensor | None = None
        self._count = 0

    def __bool__(self) -> bool:
        return self._count > 0

    def add(self, task: Tensor, divisor: int, parts: AtomLoss, importance: Tensor) -> None:
        """Add a batch: its task loss divided by `divisor`, the parts of its atom loss, the importance [B, N] of its tokens."""
        self._kept.append((task.detach(), divisor, parts, importance.detach()))
        self._count += 1
        if len(self._kept) == KEPT:
            self._sum()

    def take(self, reduce: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Return the means and reset. `reduce` averages a tensor over processes."""
        self._sum()
        means = reduce(self._sums / self._count)
        self.__init__()
        return dict(zip(LOGGED, means.tolist(), strict=True))

    @torch.no_grad()
    def _sum(self) -> None:
        """Add up the batches that are kept."""
        if not self._kept:
            return
        tasks, divisors, parts, importance = zip(*self._kept, strict=True)
        self._kept = []
        task = torch.stack([task.float() for task in tasks])
        if set(divisors) != {1}:
            task = task * torch.tensor(divisors, device=task.device)
        # [7, S]
        loss, energy, constraint, distance, positive, negative, radius = (
            torch.stack([value for values in parts for value in values]).view(len(parts), -1).float().mT
        )
        # Sums and counts, not indexing by masks, which would synchronize an accelerator.
        charge = pad_sequence([rows.flatten() for rows in importance], batch_first=True, padding_value=float("nan"))
        tokens = charge.isnan().logical_not().sum(1).clamp(min=1)
        shares = (value.sum(1) / tokens for value in (charge.nan_to_num(0.0).abs(), charge > 0, charge < 0))
        values = (task, loss, energy, constraint, *shares, distance, radius, positive - negative)
        sums = torch.stack(values).sum(1)
        self._sums = sums if self._sums is None else self._sums + sums
