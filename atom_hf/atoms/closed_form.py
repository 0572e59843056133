"""The loss of packed atoms: the pairs of energy.py (Eqs. 5, 7 and 8) and the constraints, with a hand-written gradient.

Everything is computed in float32 or wider, with autocast off: sums of squares overflow in float16. (Where TF32 is enabled,
a GPU's matrix products in float32 use it.)
"""

# Gradients by hand rather than by autograd, which would save tensors of size [B, B] several times over, and launch many more
# operations: of a small model these are what a step with atoms costs.

import functools
from typing import NamedTuple

import torch
from torch import Tensor

# Pair matrices with more entries than this are built in blocks of rows.
BLOCK_ENTRIES = 2**24


class Objective(NamedTuple):
    """What the atoms of one group add to a loss: `weight` times the loss of `loss.atom_loss`, which has the other options."""

    weight: float = 1.0
    softening: float = 0.0
    relative: bool = False
    energy_weight: float = 1.0
    neutrality: float = 0.0
    net_charge: float = 0.0
    charge_floor: float = 0.0
    charge_floor_weight: float = 0.0


class GroupLoss(torch.autograd.Function):
    """The loss of packed atoms, with its gradient computed along. Eqs. 5, 7 and 8, and the constraints of `loss.atom_loss`.

    The atoms of a row may be of several groups, each with its own energy; the groups are computed together. Nothing of size
    [B, B] has to be saved for the backward pass.

    Args:
        packed: [B, K]: the packed atoms of the groups, side by side.
        widths: h of each group.
        objectives: one a group.

    Returns:
        The sum of the groups' losses, each times its weight: a scalar, which has the gradient. Without a gradient, and in
        float32 or wider: [G] the losses, the energies, the constraints and the distances, and [G, 3] the means of Z+, Z- and r
        over the atoms that exist.
    """

    @staticmethod
    def forward(ctx, packed: Tensor, widths: tuple[int, ...], objectives: tuple[Objective, ...]):
        with torch.autocast(packed.device.type, enabled=False):
            total, *parts, gradient = _losses(packed, widths, objectives, ctx.needs_input_grad[0])
        if gradient is not None:
            ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(*parts)
        ctx.set_materialize_grads(False)  # zeros for each of the parts
        return total, *parts

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, scale: Tensor, *_rest: Tensor):
        return scale * ctx.saved_tensors[0], None, None


def _losses(packed: Tensor, widths: tuple[int, ...], objectives: tuple[Objective, ...], wanted: bool) -> tuple:
    """What `GroupLoss` returns, and the gradient of the first with respect to `packed`, None if not `wanted`."""
    atoms, products = _widened(_side_by_side(packed, widths))
    const = _constants(objectives, atoms.shape[2], atoms.device, atoms.dtype, torch.finfo(packed.dtype).eps)
    charge, radius, center, body = atoms[..., :2], atoms[..., 2], atoms[..., 3:], atoms[..., 2:]
    exists = torch.ge(radius, 0, out=torch.empty_like(radius))
    sizes = (exists.sum(1).view(-1, 1, 1) - const.zero_one).clamp_(min=1)
    share, among = (exists.unsqueeze(2) / sizes).unbind(2)  # 1 / n and 1 / (n - 1) for each of the n atoms that exist
    means = torch.bmm(share.unsqueeze(1), atoms)
    # A common offset, on which no distance depends, would cost precision.
    center.addcmul_(exists.unsqueeze(2), means[..., 3:], value=-1)
    squares = torch.linalg.vecdot(center, center)
    scale = None
    if any(objective.relative for objective in objectives):
        # s^2 is twice the variance of the centres times n / (n - 1). Where all coincide it is next to 0, and so is mu / s.
        variance = torch.linalg.vecdot(squares, among).view(-1, 1, 1)
        square = torch.addcmul(const.absolute, const.relative, variance).clamp_(min=torch.finfo(atoms.dtype).tiny)
        scale = square.sqrt()
        body.div_(scale)
        squares.div_(square.squeeze(2))
    radius.clamp_(min=0)

    gradient = torch.empty_like(atoms) if wanted else None
    signed = torch.matmul(charge.unsqueeze(1), const.kinds).flatten(1, 2)
    size = atoms.shape[1]
    rows = max(1, BLOCK_ENTRIES // max(1, len(atoms) * size))
    sums = []
    for i in range(0, max(1, size), rows):
        here = slice(i, i + rows)
        pairs = share[:, here].unsqueeze(2) * among.unsqueeze(1)
        pairs.diagonal(i, 1, 2).zero_()  # A != B
        if products:
            squared = squares[:, here].unsqueeze(2) + squares.unsqueeze(1)
            squared.baddbmm_(center[:, here], center.mT, alpha=-2)
        else:
            squared = torch.cdist(center[:, here], center, compute_mode="donot_use_mm_for_euclid_dist").square_()
        these, all_of = (charge[:, here], radius[:, here], center[:, here]), (signed, radius, center)
        part = None if gradient is None else gradient[:, here]
        sums.append(_row_sums(these, all_of, pairs, squared, const, part))
    energy, distance = (sum(part) for part in zip(*sums, strict=True))
    if scale is not None:
        distance = distance * scale.view(-1)
    if wanted:
        gradient.mul_(const.factors)
        if scale is not None:
            _through_scale(gradient[..., 2:], body, scale, sizes[..., 1], const)
    constraint = torch.zeros_like(energy)
    if const.constrained:
        missed = torch.baddbmm(const.target, charge, const.net_and_floor)
        missed[..., 1].clamp_(min=0)
        weighted = missed * (share.unsqueeze(2) * const.strengths)
        constraint = torch.linalg.vecdot(missed.flatten(1), weighted.flatten(1))
        if wanted:
            gradient[..., :2].baddbmm_(weighted, const.back)
    losses = torch.addcmul(constraint, const.energy_weight, energy)
    total = torch.dot(const.weight, losses).to(packed.dtype)
    pulls = _joined(gradient, packed, widths) if wanted else None
    return total, losses, energy, constraint, distance, means[:, 0, :3], pulls


def _row_sums(
    rows: tuple, columns: tuple, pairs: Tensor, squared: Tensor, const: "_Constants", gradient: Tensor | None
):
    """The means of U_AB and D_AB over A in `rows`, B in `columns`, A != B; the gradient of the first goes to `gradient`.

    The sum is symmetric in A and B, so an atom's gradient is twice that of its row; `_Constants.factors` see to that.

    Args:
        rows: charges [G, R, 2], radii [G, R] and centres [G, R, h].
        columns: the charges of like sign, and less those of opposite sign, [G, 2 B, 2], radii [G, B], centres [G, B, h].
        pairs: [G, R, B], the weight of each pair in the mean.
        squared: [G, R, B], the squared distances, which are used up.
        gradient: [G, R, 3 + h], or None if it is not wanted.
    """
    (charge, radius, center), (signed, radii, centers) = rows, columns
    # Where the rounding of a product leaves a square below 0 it is 0.
    distance = squared.add_(const.softening).clamp_(min=const.smallest).sqrt_()  # Eq. 7
    reach = radius.unsqueeze(2) + radii.unsqueeze(1)
    # Eq. 8 for token pairs of like and of opposite charges, [G, R, 2, B].
    d = torch.addcmul(distance.unsqueeze(2), const.step, reach.unsqueeze(2))
    inverse = pairs.unsqueeze(2) / d
    energies = torch.bmm(charge, signed.mT).view_as(d) * inverse  # Eq. 5
    sums = energies.sum((1, 2, 3)), torch.linalg.vecdot(distance.flatten(1), pairs.flatten(1))
    if gradient is None:
        return sums
    torch.bmm(inverse.flatten(2), signed, out=gradient[..., :2])
    falls = energies / d  # -dU/dd
    torch.sum(falls[:, :, 1], 2, out=gradient[..., 2])
    slope = falls.sum(2) / distance  # -dU/dD, over D
    if const.clamps:
        slope.mul_(distance > const.epsilon)
    torch.baddbmm(slope.sum(2, keepdim=True) * center, slope, centers, alpha=-1, out=gradient[..., 3:])
    return sums


def _through_scale(pulls: Tensor, body: Tensor, scale: Tensor, others: Tensor, const: "_Constants") -> None:
    """Turn gradients [G, B, 1 + h] with respect to r / s and mu / s into those with respect to r and mu, in place (ours).

        dL/dmu = (pull - 2 / (n - 1) * (sum_A <pull_A, mu_A / s> + push_A r_A / s) * mu / s) / s

    Args:
        body: [G, B, 1 + h], r / s and mu / s.
        scale: s [G, 1, 1], 1 for groups whose distances are not relative.
        others: n - 1 [G, 1], at least 1.
    """
    along = torch.linalg.vecdot(pulls, body).sum(1).view(-1, 1, 1)
    pulls[..., 1:].addcmul_(body[..., 1:], along * (const.relative / others.unsqueeze(2)), value=-1)
    pulls.div_(scale)


def _side_by_side(packed: Tensor, widths: tuple[int, ...]) -> Tensor:
    """[G, B, 3 + h]: the atoms of each group, the narrower ones padded with zeros, which change no distance."""
    if len(set(widths)) == 1:
        return packed.view(len(packed), len(widths), 3 + widths[0]).transpose(0, 1)
    parts = packed.split([3 + width for width in widths], dim=1)
    return torch.stack([torch.nn.functional.pad(part, (0, max(widths) - part.shape[1] + 3)) for part in parts])


def _joined(groups: Tensor, packed: Tensor, widths: tuple[int, ...]) -> Tensor:
    """The inverse, in the precision of `packed`."""
    joined = torch.empty_like(packed)
    if len(set(widths)) == 1:
        _side_by_side(joined, widths).copy_(groups)
        return joined
    return torch.cat([group[:, : 3 + width] for group, width in zip(groups, widths, strict=True)], 1, out=joined)


def _widened(atoms: Tensor) -> tuple[Tensor, bool]:
    """A copy of atoms [G, B, 3 + h] in the precision of the pairs; whether their distances are taken from matrix products.

    A product is many times as fast as differences [B, B, h], and loses half of the digits where two atoms come close. So few
    atoms are computed in float64, of which half is what float32 has; many in float32. What has no wider type (float64, and
    float32 on an MPS device) has its distances one by one, as long as they are few.
    """
    few = atoms.shape[1] * atoms.numel() <= BLOCK_ENTRIES
    if few and atoms.dtype != torch.float64 and atoms.device.type != "mps":
        return atoms.double(), True
    return atoms.to(torch.promote_types(atoms.dtype, torch.float32), copy=True), not few


class _Constants(NamedTuple):
    """The objectives of G groups as tensors, to compute with all groups at once."""

    softening: Tensor  # [G, 1, 1]: squared
    smallest: Tensor  # [G, 1, 1]: the least squared distance
    absolute: Tensor  # [G, 1, 1]: 1 where distances are not relative, else 0
    relative: Tensor  # [G, 1, 1]: 2 where they are, else 0
    weight: Tensor  # [G]
    energy_weight: Tensor  # [G]
    factors: Tensor  # [G, 1, 3 + h]: from a row's sums to the gradient of its atom
    net_and_floor: Tensor  # [G, 2, 2]: from Z+ and Z- to the net charge and what the floor is compared with
    target: Tensor  # [G, 1, 2]: what is added to these
    strengths: Tensor  # [G, 1, 2]: of neutrality and floor
    back: Tensor  # [G, 2, 2]: from the constraints to the gradient of Z+ and Z-
    kinds: Tensor  # [2, 2, 2]: the charges of like sign, and less those of opposite sign
    step: Tensor  # [2, 1]: half the step function of Eq. 8, for like and opposite signs
    zero_one: Tensor  # [2]
    epsilon: float
    constrained: bool
    clamps: bool  # whether distances may be under the machine epsilon


@functools.lru_cache(maxsize=64)
def _constants(
    objectives: tuple[Objective, ...], columns: int, device: torch.device, dtype: torch.dtype, epsilon: float
) -> _Constants:
    # Made once: each copy synchronizes an accelerator.
    def tensor(values: list) -> Tensor:
        return torch.tensor(values, dtype=dtype, device=device)

    each = lambda value: [value(objective) for objective in objectives]  # noqa: E731
    sums = [[1.0, -1.0], [-1.0, -1.0]]
    columns_of = [2.0, 2.0, -1.0] + [-2.0] * (columns - 3)
    with torch.inference_mode(False):
        return _Constants(
            softening=tensor(each(lambda o: [[o.softening**2]])),
            smallest=tensor(each(lambda o: [[max(o.softening, epsilon) ** 2]])),
            absolute=tensor(each(lambda o: [[float(not o.relative)]])),
            relative=tensor(each(lambda o: [[2.0 * o.relative]])),
            weight=tensor(each(lambda o: o.weight)),
            energy_weight=tensor(each(lambda o: o.energy_weight)),
            factors=tensor(each(lambda o: [[o.weight * o.energy_weight * value for value in columns_of]])),
            net_and_floor=tensor(each(lambda o: sums)),
            target=tensor(each(lambda o: [[-o.net_charge, o.charge_floor]])),
            strengths=tensor(each(lambda o: [[o.neutrality, o.charge_floor_weight]])),
            back=tensor(each(lambda o: [[2 * o.weight * value for value in row] for row in sums])),
            kinds=tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, -1.0], [-1.0, 0.0]]]),
            step=tensor([[0.0], [0.5]]),
            zero_one=tensor([0.0, 1.0]),
            epsilon=epsilon,
            constrained=any(o.neutrality or o.charge_floor_weight for o in objectives),
            clamps=any(o.softening <= epsilon for o in objectives),
        )
