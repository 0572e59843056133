"""Atom loss: the energy of a batch and two constraints that keep charges in use (ours)."""

from typing import NamedTuple

import torch
from torch import Tensor

from .closed_form import WithGradient, mean_over_pairs
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
) -> AtomLoss:
    """The energy and two constraints that keep charges in use (ours: without them charges shrink to 0).

        loss = energy_weight * L_A + neutrality * mean_A (Z+ - Z-)^2
               + charge_floor_weight * mean_A max(0, charge_floor - (Z+ + Z-))^2

    With charges averaged over tokens, `Z+ - Z-` is the net charge per token and `Z+ + Z-` the mean |importance|.
    """

    def compute(wanted: bool, positive: Tensor, negative: Tensor, center: Tensor, radius: Tensor) -> tuple:
        energy, distance, pulls = mean_over_pairs(positive, negative, center, radius, softening, wanted)
        exists = (radius >= 0).to(center.dtype)
        share = exists / exists.sum().clamp(min=1)
        net = positive - negative
        missing = (charge_floor - (positive + negative)).clamp(min=0)
        constraint = torch.dot(neutrality * net.square() + charge_floor_weight * missing.square(), share)
        loss = energy_weight * energy + constraint
        if wanted:
            even, grow = 2 * neutrality * net * share, 2 * charge_floor_weight * missing * share
            charges = torch.stack([even, -even], dim=1) - grow.unsqueeze(1)
            pulls = (torch.add(charges, pulls[0], alpha=energy_weight), *(energy_weight * pull for pull in pulls[1:]))
        return loss, energy, constraint, distance, pulls

    return AtomLoss(*WithGradient.apply(compute, *atoms))


def loss_of(atoms: Atoms, config: AtomConfig) -> AtomLoss:
    """The atom loss with the options of a configuration."""
    return atom_loss(
        atoms,
        softening=config.softening,
        neutrality=config.neutrality,
        charge_floor=config.charge_floor,
        charge_floor_weight=config.charge_floor_weight,
        energy_weight=config.energy_weight,
    )
