"""Atom loss: the energy of a batch and two constraints that keep charges in use (ours)."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .closed_form import Existing, WithGradient, constant, mean_over_pairs, relative_mean_over_pairs
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

    objective = Objective(
        softening=softening,
        neutrality=neutrality if constrained else 0.0,
        charge_floor=charge_floor,
        charge_floor_weight=charge_floor_weight if constrained else 0.0,
        energy_weight=energy_weight,
        net_charge=net_charge,
        relative=relative,
    )
    return AtomLoss(*(values[0] for values in _losses(atoms.pack().unsqueeze(0), (objective,), complete=False)))


class Objective(NamedTuple):
    """The options of one set of atoms, which are those of `atom_loss`."""

    softening: float
    neutrality: float
    charge_floor: float
    charge_floor_weight: float
    energy_weight: float = 1.0
    net_charge: float = 0.0
    relative: bool = False

    @classmethod
    def of(cls, config: AtomConfig) -> "Objective":
        """That of the atoms of the energy. Constraints are left out where charges are not learned."""
        learned = config.charges == "learned"
        return cls(
            softening=config.softening,
            neutrality=config.neutrality if learned else 0.0,
            charge_floor=config.charge_floor,
            charge_floor_weight=config.charge_floor_weight if learned else 0.0,
            energy_weight=config.energy_weight,
            net_charge=config.net_charge,
            relative=config.distance == "relative",
        )


def _losses(packed: Tensor, objectives: tuple[Objective, ...], complete: bool) -> tuple[Tensor, ...]:
    """The loss, which has a gradient, the energy, the constraint and the distance, each [K], of K sets of atoms [K, B, h + 3].

    The sets are those of the same samples, computed together: at small sizes what an operation costs is its launch.

    Args:
        packed: `Atoms.pack` of each set.
        objectives: of each set.
        complete: whether it is known that every sample has a token.
    """
    softening, relative = (tuple(getattr(each, name) for each in objectives) for name in ("softening", "relative"))

    def compute(wanted: bool, packed: Tensor) -> tuple:
        existing = Existing.among(packed, complete)
        if any(relative):
            energy, distance, gradient = relative_mean_over_pairs(packed, existing, softening, relative, wanted)
        else:
            energy, distance, gradient = mean_over_pairs(packed, existing, softening, wanted)
        weights = tuple(each.energy_weight for each in objectives)
        if weights != (1.0,) * len(weights):
            weights = constant(weights, packed.dtype, packed.device)
            energies = energy * weights.view(-1)
            gradient = gradient * weights if wanted else None
        else:
            energies = energy
        constraint = _constraint(packed[..., :2], existing, objectives, gradient)
        return energies + constraint, energy, constraint, distance, gradient

    return WithGradient.apply(compute, packed)


def _constraint(
    charges: Tensor, existing: Existing, objectives: tuple[Objective, ...], gradient: Tensor | None
) -> Tensor:
    """The two constraints [K] of charges (Z+, Z-) [K, B, 2]; their gradient is added to the first two columns of `gradient`.

    Both are sums of squares: of the net charge Z+ - Z- about its aim, and of what Z+ + Z- lacks to the floor.
    """
    like = charges.dtype, charges.device
    signs = constant(((1.0, 1.0, -1.0, 1.0),) * len(objectives), *like).view(-1, 2, 2)  # to Z+ - Z- and Z+ + Z-
    aims = constant(tuple((-each.net_charge, -each.charge_floor) for each in objectives), *like)
    strength = constant(tuple((each.neutrality, each.charge_floor_weight) for each in objectives), *like)
    highest = constant(((float("inf"), 0.0),), *like)  # above the floor nothing is lacking
    off = torch.minimum(torch.baddbmm(aims, charges, signs), highest)
    pull = off * strength / existing.at_least_one()
    if existing.mask is not None:
        pull *= existing.mask.unsqueeze(2)
    if gradient is not None:
        gradient[..., :2].baddbmm_(pull, signs.mT, alpha=2)
    return (off * pull).sum((1, 2))


# The two heads' own objective, where the energy trains neither on the content tokens: the paper form's loss at its defaults,
# with a weight that leaves the budget of max_grad_norm to the model (Adam's steps do not depend on it).
HEADS_ALONE = {"softening": 0.1, "neutrality": 1.0, "charge_floor": 0.5, "charge_floor_weight": 10.0}
HEADS_WEIGHT = 0.01


class StepAtoms(NamedTuple):
    """The atoms of a forward pass: those of the energy, and where the heads train apart, those of the content tokens."""

    energy: Atoms
    heads: Atoms | None

    @staticmethod
    def pack(energy: Tensor, heads: Tensor | None) -> Tensor:
        """Packed atoms, [B, d + 3] or [B, d + 3 + h + 3]: what leaves `forward`, crosses devices and is cached.

        Args:
            energy: [B, d + 3], `Atoms.pack` of the atoms of the energy.
            heads: [B, h + 3], of those that the heads learn on where they train apart, else None.
        """
        return energy if heads is None else torch.cat([energy, heads], dim=1)

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


def step_loss(packed: Tensor, config: AtomConfig, complete: bool = False) -> tuple[Tensor, AtomLoss]:
    """(what joins the task loss, the parts of the atom loss) of a step.

    The first is a scalar with its gradient: the weight times the atom loss, and the objective of heads that train apart.

    Args:
        packed: [B, K], `StepAtoms.pack` of the whole pair batch, over all processes.
        config: of the model.
        complete: whether it is known that every sample has a token, which saves some operations.
    """
    if config.trains_heads_apart:
        sets, objectives = _both_sets(packed, config), (Objective.of(config), Objective(**HEADS_ALONE))
        weights = (config.weight, HEADS_WEIGHT)
    else:
        sets, objectives, weights = packed.unsqueeze(0), (Objective.of(config),), (config.weight,)
    losses, *others = _losses(sets, objectives, complete)
    term = torch.dot(losses, constant(weights, losses.dtype, losses.device).view(-1))
    return term, AtomLoss(*(values[0] for values in (losses.detach(), *others)))


def _both_sets(packed: Tensor, config: AtomConfig) -> Tensor:
    """[2, B, w + 3]: the atoms of the energy and those that the heads learn on. Zeros after the narrower one change nothing."""
    width = config.hidden_size + 3
    if packed.shape[1] == 2 * width:
        return packed.reshape(-1, 2, width).transpose(0, 1)
    atoms = packed.split([packed.shape[1] - width, width], dim=1)
    widest = max(part.shape[1] for part in atoms)
    return torch.stack([F.pad(part, (0, widest - part.shape[1])) for part in atoms])


def loss_of(atoms: Atoms, config: AtomConfig) -> AtomLoss:
    """The atom loss with the options of a configuration."""
    found = _losses(atoms.pack().unsqueeze(0), (Objective.of(config),), complete=False)
    return AtomLoss(*(values[0] for values in found))
