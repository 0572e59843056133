"""Means of the parts of the atom loss, logged beside the loss."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..atoms.energy import Atoms
from ..atoms.loss import AtomLoss

LOGGED = (
    *("task_loss", "atom_loss", "atom_energy", "atom_constraint", "atom_importance", "atom_positive_share"),
    *("atom_negative_share", "atom_distance", "atom_radius", "atom_net_charge"),
)


# Batches are kept and reduced together, because at small sizes what an operation costs is its launch.
KEPT_BATCHES = 32


class LossLog:
    """Means of `LOGGED` over the batches since the last log."""

    def __init__(self) -> None:
        self._sums: Tensor | float = 0.0
        self._count = 0
        self._kept: list[tuple[Tensor, Tensor, Tensor]] = []

    def __bool__(self) -> bool:
        return self._count > 0

    @torch.no_grad()
    def add(self, task: Tensor, parts: AtomLoss, atoms: Atoms, importance: Tensor) -> None:
        """Add a batch: its task loss, its atom loss, the atoms, and the importance [B, N] of the tokens."""
        losses = torch.stack([value.detach().float() for value in (task, *parts)])
        of_atoms = torch.stack(
            [atoms.radius, atoms.positive - atoms.negative]
        )  # a copy, which does not hold the centres
        self._kept.append((losses, importance.flatten(), of_atoms))
        self._count += 1
        if len(self._kept) == KEPT_BATCHES:
            self._reduce()

    def take(self, reduce: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Return the means and reset. `reduce` averages a tensor over processes."""
        self._reduce()
        means = reduce(self._sums / self._count)
        self.__init__()
        return dict(zip(LOGGED, means.tolist(), strict=True))

    @torch.no_grad()
    def _reduce(self) -> None:
        """Add what is kept to the sums. A batch is a row here; those of smaller batches end with no token and no atom."""
        if not self._kept:
            return
        losses, importance, of_atoms = zip(*self._kept, strict=True)
        self._kept = []
        task, loss, energy, constraint, distance = torch.stack(losses).unbind(1)
        # Sums and counts, not indexing by masks, which would synchronize an accelerator.
        importance = _rows(importance, float("nan"))
        radius, net = _rows(of_atoms, -1).unbind(1)
        charge = importance.nan_to_num(0.0)
        tokens = (importance.shape[1] - importance.isnan().sum(1)).clamp(min=1)
        exists = radius >= 0
        count = exists.sum(1).clamp(min=1)
        shares = ((value.sum(1) / tokens) for value in (charge.abs(), charge > 0, charge < 0))
        values = (
            *(task, loss, energy, constraint),
            *shares,
            *(distance, *((value * exists).sum(1) / count for value in (radius, net))),
        )
        self._sums = torch.stack([value.float() for value in values]).sum(1) + self._sums


def _rows(parts: Sequence[Tensor], fill: float) -> Tensor:
    """Stack tensors, the shorter ones filled up at the end."""
    longest = max(part.shape[-1] for part in parts)
    return torch.stack(
        [
            part if part.shape[-1] == longest else F.pad(part, (0, longest - part.shape[-1]), value=fill)
            for part in parts
        ]
    )
