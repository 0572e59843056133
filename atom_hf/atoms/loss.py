"""Atom loss: the energy of a batch and two constraints that keep charges in use (ours)."""

from typing import NamedTuple

import torch
from torch import Tensor

from .closed_form import GroupLoss, Objective
from .config import AtomConfig
from .energy import Atoms


class AtomLoss(NamedTuple):
    """The atom loss of a batch and its parts, all scalars. The loss may have a gradient; the rest is for the log."""

    loss: Tensor
    energy: Tensor
    constraint: Tensor
    distance: Tensor
    positive: Tensor
    """Mean of `Z+` over the atoms."""
    negative: Tensor
    """Mean of `Z-`."""
    radius: Tensor
    """Mean of `r`."""


def atom_loss(
    atoms: Atoms,
    *,
    softening: float,
    neutrality: float,
    charge_floor: float,
    charge_floor_weight: float,
    energy_weight: float = 1.0,
    net_charge: float = 0.0,
    relative: bool = False,
    constrained: bool = True,
) -> AtomLoss:
    """The energy and two constraints that keep charges in use (ours: without them charges shrink to 0).

        loss = energy_weight * L_A + neutrality * mean_A (Z+ - Z- - net_charge)^2
               + charge_floor_weight * mean_A max(0, charge_floor - (Z+ + Z-))^2

    With charges averaged over tokens, `Z+ - Z-` is the net charge per token and `Z+ + Z-` the mean |importance|.

    Args:
        atoms: of the whole pair batch, over all processes.
        softening: see `energy.pair_means`; of relative distances it is in units of their scale.
        neutrality, charge_floor, charge_floor_weight, energy_weight, net_charge: see `AtomConfig`.
        relative: whether distances and radii are divided by `s = sqrt(mean over A != B of ||mu_A - mu_B||^2)` first, which
            has its part in the gradient: the energy then falls only as the centres become even, not as they grow (ours).
        constrained: False leaves the two constraints out, for charges that are not learned.
    """
    objective = Objective(
        softening=softening,
        relative=relative,
        energy_weight=energy_weight,
        neutrality=neutrality if constrained else 0.0,
        net_charge=net_charge,
        charge_floor=charge_floor,
        charge_floor_weight=charge_floor_weight if constrained else 0.0,
    )
    packed = atoms.pack()
    loss, *parts = GroupLoss.apply(packed, (atoms.center.shape[1],), (objective,))
    return _parts(*(part.to(packed.dtype) for part in parts))._replace(loss=loss)


# The two heads' own objective, where the energy trains neither on the content tokens: the paper form's loss at its defaults,
# with a weight that leaves the budget of max_grad_norm to the model (Adam's steps do not depend on it).
HEADS_ALONE = {"softening": 0.1, "neutrality": 1.0, "charge_floor": 0.5, "charge_floor_weight": 10.0}
HEADS_WEIGHT = 0.01


class StepAtoms(NamedTuple):
    """The atoms of a forward pass: those of the energy, and where the heads train apart, those of the content tokens."""

    energy: Atoms
    heads: Atoms | None

    def pack(self) -> Tensor:
        """[B, d + 3] or [B, d + 3 + h + 3]: all that has to leave `forward`, cross a device boundary or be cached."""
        return self.energy.pack() if self.heads is None else torch.cat([self.energy.pack(), self.heads.pack()], dim=1)

    @classmethod
    def unpack(cls, packed: Tensor, config: AtomConfig) -> "StepAtoms":
        """The inverse of `pack`."""
        parts = [Atoms.unpack(part) for part in packed.split([3 + width for width in _widths(packed, config)], dim=1)]
        return cls(parts[0], parts[1] if config.trains_heads_apart else None)

    @property
    def shown(self) -> Atoms:
        """The atoms that the heads make, which pages and the log show."""
        return self.energy if self.heads is None else self.heads


def step_loss(packed: Tensor, config: AtomConfig) -> tuple[Tensor, AtomLoss]:
    """(what joins the task loss, the parts of the atom loss) of a step's packed atoms (`StepAtoms.pack`).

    The first is a scalar with its gradient: the weight times the atom loss, and the objective of heads that train apart. The
    second has none; its charges and radius are those of the atoms that the heads make (`StepAtoms.shown`).
    """
    learned = config.charges == "learned"
    energy = Objective(
        weight=config.weight,
        softening=config.softening,
        relative=config.distance == "relative",
        energy_weight=config.energy_weight,
        neutrality=config.neutrality if learned else 0.0,
        net_charge=config.net_charge,
        charge_floor=config.charge_floor,
        charge_floor_weight=config.charge_floor_weight if learned else 0.0,
    )
    heads = (Objective(weight=HEADS_WEIGHT, **HEADS_ALONE),) if config.trains_heads_apart else ()
    term, *parts = GroupLoss.apply(packed, _widths(packed, config), (energy, *heads))
    return term, _parts(*parts)


def _parts(losses: Tensor, energies: Tensor, constraints: Tensor, distances: Tensor, means: Tensor) -> AtomLoss:
    """The parts of the first group's loss, and the charges and radius of the last."""
    first = (part[0] for part in (losses, energies, constraints, distances))
    return AtomLoss(*first, *means[-1].unbind())


def _widths(packed: Tensor, config: AtomConfig) -> tuple[int, ...]:
    """The width of each group of packed atoms."""
    if not config.trains_heads_apart:
        return (packed.shape[1] - 3,)
    return packed.shape[1] - config.hidden_size - 6, config.hidden_size
