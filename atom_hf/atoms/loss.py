"""Atom loss: the energy of a batch and two constraints that keep charges in use (ours)."""

from typing import NamedTuple

import torch
from torch import Tensor

from .closed_form import WithGradient, mean_over_pairs, relative_to_scale, through_scale
from .config import AtomConfig
from .energy import Atoms


class AtomLoss(NamedTuple):
    """The atom loss of a batch and its parts, all scalars. The loss has a gradient; the parts are for the log."""

    loss: Tensor
    energy: Tensor
    constraint: Tensor
    distance: Tensor


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

    def compute(wanted: bool, positive: Tensor, negative: Tensor, center: Tensor, radius: Tensor) -> tuple:
        scale = None
        if relative:
            center, radius, scale = relative_to_scale(center, radius)
        energy, distance, pulls = mean_over_pairs(positive, negative, center, radius, softening, wanted)
        if scale is not None:
            distance = distance * scale
            if wanted:
                pulls = (pulls[0], *through_scale(*pulls[1:], center, radius, scale))
        if not constrained:
            pulls = tuple(energy_weight * pull for pull in pulls)
            return energy_weight * energy, energy, torch.zeros_like(energy), distance, pulls
        exists = (radius >= 0).to(center.dtype)
        share = exists / exists.sum().clamp(min=1)
        net = positive - negative - net_charge
        missing = (charge_floor - (positive + negative)).clamp(min=0)
        constraint = torch.dot(neutrality * net.square() + charge_floor_weight * missing.square(), share)
        loss = energy_weight * energy + constraint
        if wanted:
            even, grow = 2 * neutrality * net * share, 2 * charge_floor_weight * missing * share
            charges = torch.stack([even, -even], dim=1) - grow.unsqueeze(1)
            pulls = (torch.add(charges, pulls[0], alpha=energy_weight), *(energy_weight * pull for pull in pulls[1:]))
        return loss, energy, constraint, distance, pulls

    return AtomLoss(*WithGradient.apply(compute, *atoms))


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
        if not config.trains_heads_apart:
            return cls(Atoms.unpack(packed), None)
        width = packed.shape[1] - config.hidden_size - 3
        return cls(Atoms.unpack(packed[:, :width]), Atoms.unpack(packed[:, width:]))

    @property
    def shown(self) -> Atoms:
        """The atoms that the heads make, which pages and the log show."""
        return self.energy if self.heads is None else self.heads


def step_loss(atoms: StepAtoms, config: AtomConfig) -> tuple[Tensor, AtomLoss]:
    """(what joins the task loss, the parts of the atom loss) of a step.

    The first is a scalar with its gradient: the weight times the atom loss, and the objective of heads that train apart.
    """
    parts = loss_of(atoms.energy, config)
    term = config.weight * parts.loss
    if atoms.heads is not None:
        term = term + HEADS_WEIGHT * atom_loss(atoms.heads, **HEADS_ALONE).loss
    return term, parts


def loss_of(atoms: Atoms, config: AtomConfig) -> AtomLoss:
    """The atom loss with the options of a configuration."""
    return atom_loss(
        atoms,
        net_charge=config.net_charge,
        relative=config.distance == "relative",
        constrained=config.charges == "learned",
        softening=config.softening,
        neutrality=config.neutrality,
        charge_floor=config.charge_floor,
        charge_floor_weight=config.charge_floor_weight,
        energy_weight=config.energy_weight,
    )
