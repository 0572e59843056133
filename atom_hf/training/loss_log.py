"""Means of the parts of the atom loss, logged beside the loss."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..atoms.energy import Atoms
from ..atoms.loss import AtomLoss

LOGGED = (
    *("task_loss", "atom_loss", "atom_energy", "atom_constraint", "atom_importance", "atom_positive_share"),
    *("atom_negative_share", "atom_distance", "atom_radius", "atom_net_charge"),
)


class LossLog:
    """Means of `LOGGED` over the batches since the last log."""

    def __init__(self) -> None:
        self._sums: Tensor | None = None
        self._count = 0

    def __bool__(self) -> bool:
        return self._count > 0

    @torch.no_grad()
    def add(self, task: Tensor, parts: AtomLoss, atoms: Atoms, importance: Tensor) -> None:
        """Add a batch: its task loss, its atom loss, the atoms, and the importance [B, N] of the tokens."""
        # Sums and counts, not indexing by masks, which would synchronize an accelerator at every step.
        charge = importance.nan_to_num(0.0)
        tokens = (importance.numel() - importance.isnan().sum()).clamp(min=1)
        exists = atoms.exists
        count = exists.sum().clamp(min=1)
        values = (
            task,
            *(parts.loss, parts.energy, parts.constraint),
            *((value / tokens) for value in (charge.abs().sum(), (charge > 0).sum(), (charge < 0).sum())),
            *(parts.distance, (atoms.radius * exists).sum() / count, (atoms.positive - atoms.negative).sum() / count),
        )
        values = torch.stack([value.detach().float() for value in values])
        self._sums = values if self._sums is None else self._sums + values
        self._count += 1

    def take(self, reduce: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Return the means and reset. `reduce` averages a tensor over processes."""
        means = reduce(self._sums / self._count)
        self.__init__()
        return dict(zip(LOGGED, means.tolist(), strict=True))
