"""Atoms and the energy between them: Eqs. 5 to 11 of arXiv 2210.03728, in closed form, in pure torch.

A sample is an atom. Its tokens carry an importance `q` in [-1, 1] (a charge) and a position `p` in R^h:

    nuclear weight    m_i   = 1 - max(-q_i, 0)                                                       (Eq. 11)
    centre            mu_A  = (1/N_A) sum_i m_i p_i                                                  (Eq. 9)
    radius            r_A   = (1/N_A) sum_i (1 - m_i) ||p_i - mu_A||                                 (Eq. 10)
    atomic distance   D_AB  = ||mu_A - mu_B||                                                        (Eq. 7)
    token distance    d_ij  = D_AB + (r_A + r_B)/2 * step(-q_i q_j),  step(0) = 0                    (Eq. 8)
    energy            L_A   = mean over A != B of  sum_{i in A, j in B} q_i q_j / d_ij               (Eq. 5)

`d_ij` depends on the token pair only through the sign of `q_i q_j`. So with `Z+ = sum max(q, 0)`, `Z- = sum max(-q, 0)` the
double sum over tokens collapses exactly, from O(B^2 N^2) to O(B N h) for the atoms and O(B^2 h) for their pairs:

    like_AB     = Z+_A Z+_B + Z-_A Z-_B
    opposite_AB = Z+_A Z-_B + Z-_A Z+_B
    U_AB        = like_AB / D_AB - opposite_AB / (D_AB + (r_A + r_B)/2)

The signs in Eqs. 8 and 11 are the ones that the paper's own statements demand (README, "What is the paper's and what is
ours"). The closed form, the softening, the averages over tokens and both constraints are this library's.

Everything is computed in float32 or wider, with autocast off: sums of squares overflow in float16.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .errors import AtomError

# Above this many entries a pair matrix is built in blocks of rows.
BLOCK_ENTRIES = 2**24
# On a CPU positions are gone through in blocks of samples of about this many entries, which stay in its cache.
CACHED_ENTRIES = 2**20

TOKEN_REDUCTIONS = ("sum", "mean")


class Atoms(NamedTuple):
    """What the energy knows of a batch of samples: h + 3 numbers each, all float32 (float64 if made from float64)."""

    positive: Tensor
    """`Z+` [B]: the positive importance, summed over tokens (or averaged: `token_reduction`)."""
    negative: Tensor
    """`Z-` [B]: the size of the negative importance, likewise."""
    center: Tensor
    """`mu` [B, h]: Eq. 9, in the units of the positions."""
    radius: Tensor
    """`r` [B]: Eq. 10, in the units of the positions; -1 marks a sample without tokens, which is not an atom."""

    @classmethod
    def from_tokens(
        cls, importance: Tensor, position: Tensor, mask: Tensor | None = None, *, token_reduction: str = "sum"
    ) -> "Atoms":
        """The atoms of a batch (Eqs. 9 to 11).

        Args:
            importance: [B, N], `q` in [-1, 1] (Eq. 6).
            position: [B, N, h], `p` (Eq. 12).
            mask: bool [B, N], which entries are tokens of their atom; all of them if None. What stands at the others
                is never read, not even a NaN.
            token_reduction: "sum" is the paper's Eq. 5; "mean" divides the charges by the number of tokens, so that the
                energy does not grow with the length of a sample (ours).

        Raises:
            AtomError: shapes that do not fit, or an unknown `token_reduction`.
        """
        _check_tokens(importance, position, mask, token_reduction)
        if mask is None:
            mask = torch.ones_like(importance, dtype=torch.bool)
        return cls(*_Describe.apply(importance, position, mask, token_reduction == "mean"))

    @property
    def exists(self) -> Tensor:
        """bool [B]: False for a sample without a token. Such a sample takes part in no pair."""
        return self.radius >= 0

    def pack(self) -> Tensor:
        """[B, h + 3]: all that has to leave `forward`, cross a device boundary or be cached."""
        scalars = (self.positive, self.negative, self.radius)
        return torch.cat([*(scalar.unsqueeze(1) for scalar in scalars), self.center], dim=1)

    @classmethod
    def unpack(cls, packed: Tensor) -> "Atoms":
        """The inverse of `pack`."""
        positive, negative, radius, center = packed.split([1, 1, 1, packed.shape[1] - 3], dim=1)
        return cls(positive.squeeze(1), negative.squeeze(1), center, radius.squeeze(1))


class PairMeans(NamedTuple):
    """Means over the ordered pairs of distinct atoms; both 0, and still attached to the graph, where there is no pair."""

    energy: Tensor
    """Eq. 5."""
    distance: Tensor
    """Eq. 7, detached: for the log."""


class AtomLoss(NamedTuple):
    """The atom loss of a batch and its parts, all scalars. The loss has a gradient; the parts are for the log."""

    loss: Tensor
    energy: Tensor
    constraint: Tensor
    distance: Tensor


def pair_means(atoms: Atoms, softening: float = 0.0) -> PairMeans:
    """The mean pair energy (Eqs. 5, 7 and 8) and distance.

    `softening` is Plummer's, the usual cure of N-body codes for coincident bodies: `D = sqrt(||mu_A - mu_B||^2 +
    softening^2)`, in the units of the positions. At 0 the formula is the paper's; distances under the machine epsilon are
    then taken as that, so that coincident atoms stay finite.

    Memory: O(B^2) up to 4,096 atoms; beyond, blocks of rows, so that the peak grows as O(B h) plus a few blocks of 64 MiB.
    """
    energy, distance = _WithGradient.apply(lambda atoms, wanted: _pairs(atoms, softening, wanted), *atoms)
    return PairMeans(energy, distance)


def atomic_energy(
    importance: Tensor,
    position: Tensor,
    mask: Tensor | None = None,
    *,
    softening: float = 0.0,
    token_reduction: str = "sum",
) -> Tensor:
    """L_A, Eq. 5 of arXiv 2210.03728: the mean energy over ordered pairs of distinct samples.

    Args:
        importance: [B, N], `q` in [-1, 1].
        position: [B, N, h], any floating dtype.
        mask: bool [B, N], True for the tokens of an atom; all if None.
        softening: see `pair_means`; 0 is the paper's formula.
        token_reduction: "sum" (the paper's) or "mean" over the tokens of each atom (what training uses by default).

    Returns:
        A scalar, float32 or wider; 0 and still differentiable where fewer than two samples have a token.

    Raises:
        AtomError: shapes that do not fit, or an option that does not exist.
    """
    if not 0 <= softening < float("inf"):
        raise AtomError(f"softening must be a finite number that is not negative, got {softening}")
    with torch.autocast(importance.device.type, enabled=False):
        atoms = Atoms.from_tokens(importance, position, mask, token_reduction=token_reduction)
        return pair_means(atoms, softening).energy


def atom_loss(
    atoms: Atoms,
    *,
    softening: float,
    neutrality: float,
    charge_floor: float,
    charge_floor_weight: float,
    energy_weight: float = 1.0,
) -> AtomLoss:
    """The energy and the two constraints that keep charges alive (ours: without them charges shrink to nothing).

        loss = energy_weight * L_A + neutrality * mean_A (Z+ - Z-)^2
               + charge_floor_weight * mean_A max(0, charge_floor - (Z+ + Z-))^2

    With charges averaged over tokens, `Z+ - Z-` is the net charge per token and `Z+ + Z-` the mean |importance|.
    """

    def compute(atoms: Atoms, wanted: bool) -> tuple:
        energy, distance, pulls = _pairs(atoms, softening, wanted)
        exists = atoms.exists.to(atoms.center.dtype)
        share = exists / exists.sum().clamp(min=1)
        net = atoms.positive - atoms.negative
        missing = (charge_floor - (atoms.positive + atoms.negative)).clamp(min=0)
        constraint = torch.dot(neutrality * net.square() + charge_floor_weight * missing.square(), share)
        loss = energy_weight * energy + constraint
        if wanted:
            even, grow = 2 * neutrality * net * share, 2 * charge_floor_weight * missing * share
            charges = torch.stack([even, -even], dim=1) - grow.unsqueeze(1)
            pulls = (torch.add(charges, pulls[0], alpha=energy_weight), *(energy_weight * pull for pull in pulls[1:]))
        return loss, energy, constraint, distance, pulls

    return AtomLoss(*_WithGradient.apply(compute, *atoms))


class _Describe(torch.autograd.Function):
    """(Z+ [B], Z- [B], mu [B, h], r [B]) of tokens. Eqs. 9 to 11.

    The gradient is written out, because autograd's would keep three more tensors as large as the positions. With
    `w_i = (1 - m_i) / ||p_i - mu||`, `g` the incoming gradients and `G = g_mu - (g_r / N) sum_i w_i (p_i - mu)`, the whole
    gradient of the centre:

        dL/dp_i       = (g_r / N) w_i (p_i - mu) + (m_i / N) G
        dL/d(1 - m_i) = (g_r / N) ||p_i - mu|| - (1 / N) <G, p_i>
    """

    @staticmethod
    def forward(ctx, importance: Tensor, position: Tensor, mask: Tensor, mean: bool):
        with torch.autocast(importance.device.type, enabled=False):
            dtype = torch.promote_types(torch.promote_types(importance.dtype, position.dtype), torch.float32)
            hole = ~mask
            q = importance.to(dtype).masked_fill(hole, 0)
            count = mask.sum(1, keepdim=True)
            n = count.clamp(min=1).to(dtype)
            electron = torch.relu(-q)  # 1 - m_i, and so m_i = 1 - electron: Eq. 11
            weight = ((1 - electron) / n).masked_fill(hole, 0)
            center, distance = position.new_empty(len(q), 1, position.shape[2], dtype=dtype), torch.empty_like(q)
            for rows in _sample_blocks(position):
                p = _without_holes(position[rows], hole[rows], dtype)
                torch.bmm(weight[rows].unsqueeze(1), p, out=center[rows])  # Eq. 9
                torch.linalg.vector_norm(p.sub_(center[rows]), dim=2, out=distance[rows])
            radius = torch.bmm(electron.unsqueeze(1), distance.unsqueeze(2)).view(-1) / n.view(-1)  # Eq. 10
            radius = radius.masked_fill(count.view(-1) == 0, -1)
            charges = torch.relu(q).sum(1), electron.sum(1)
            if mean:
                charges = tuple(charge / n.view(-1) for charge in charges)
        ctx.save_for_backward(position, hole, q, n, electron, weight, center, distance, radius)
        ctx.mean, ctx.dtype = mean, importance.dtype
        return *charges, center.squeeze(1), radius

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, positive: Tensor, negative: Tensor, center: Tensor, radius: Tensor):
        position, hole, q, n, electron, weight, mu, distance, size = ctx.saved_tensors
        with torch.autocast(q.device.type, enabled=False):
            charges = torch.stack([positive, negative], dim=1)
            positive, negative = (charges / n if ctx.mean else charges).split(1, dim=1)
            outer = (radius * (size >= 0)).unsqueeze(1) / n
            # A token that sits on the centre is left there, whatever this weight is.
            pull = outer * electron / distance.clamp(min=torch.finfo(q.dtype).tiny ** 0.5)
            center, along, gradient = center.unsqueeze(1), torch.empty_like(q), torch.empty_like(position)
            for rows in _sample_blocks(position):
                offset = _without_holes(position[rows], hole[rows], q.dtype).sub_(mu[rows])
                whole = torch.baddbmm(center[rows], pull[rows].unsqueeze(1), offset, alpha=-1)  # G
                shift = torch.bmm(whole, mu[rows].mT)
                along[rows] = torch.baddbmm(shift, offset, whole.mT).squeeze(2)  # <G, p_i>
                offset.mul_(pull[rows].unsqueeze(2)).baddbmm_(weight[rows].unsqueeze(2), whole)
                gradient[rows] = _narrow(offset, position.dtype)
            electron = torch.addcmul(negative - along / n, outer, distance)
            importance = torch.where(q >= 0, positive, -electron).masked_fill(hole, 0)
        return _narrow(importance, ctx.dtype), gradient, None, None


class _WithGradient(torch.autograd.Function):
    """A function of atoms that computes its own gradient, made one that autograd knows.

    `compute(atoms, wanted)` returns values, the first of which has a gradient, and that gradient if it is wanted: with respect
    to the charges [B, 2], the centres and the radii. It costs little more than the value, and where it is computed along
    with it nothing of size [B, B] has to be kept.
    """

    @staticmethod
    def forward(ctx, compute: Callable[[Atoms, bool], tuple], *atoms: Tensor):
        wanted = any(ctx.needs_input_grad)
        with torch.autocast(atoms[0].device.type, enabled=False):
            *values, gradient = compute(Atoms(*atoms), wanted)
        if wanted:
            ctx.save_for_backward(*gradient)
        ctx.mark_non_differentiable(*values[1:])
        return tuple(values)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, scale: Tensor, *_rest: Tensor):
        charges, center, radius = (scale * gradient for gradient in ctx.saved_tensors)
        return None, charges[:, 0], charges[:, 1], center, radius


def _pairs(atoms: Atoms, softening: float, with_gradient: bool) -> tuple:
    """The mean energy and distance over ordered pairs A != B, and the gradient of the first. Eqs. 5, 7 and 8.

    The sum is symmetric in A and B, so the gradient of an atom is twice that of its row.
    """
    center, exists = atoms.center, atoms.exists.to(atoms.center.dtype)
    count = exists.sum()
    pairs = (count * (count - 1)).clamp(min=1)
    charge = torch.stack([atoms.positive, atoms.negative], dim=1)
    parts = (charge, center, atoms.radius.clamp(min=0) / 2, exists)
    size = len(center)
    rows = max(1, BLOCK_ENTRIES // max(1, size))
    if min(rows, size) * center.numel() > BLOCK_ENTRIES:
        # A large common offset would ruin distances taken by a matrix product; no distance depends on it.
        parts = (charge, center - exists @ center / count.clamp(min=1), *parts[2:])
    blocks = [
        _row_sums(tuple(part[i : i + rows] for part in parts), parts, i, softening, with_gradient)
        for i in range(0, max(1, size), rows)
    ]
    energies, distances, *gradient = zip(*blocks, strict=True)
    gradient = [torch.cat(part) * (2 / pairs) for part in gradient]
    return sum(energies) / pairs, sum(distances) / pairs, gradient


def _row_sums(rows: tuple, columns: tuple, offset: int, softening: float, with_gradient: bool) -> tuple:
    """The sums of U_AB and D_AB over A in `rows`, B in `columns`, A != B, and the first's gradient for each row.

    Atoms are (charges [., 2], centre [., h], half the radius [.], 1 or 0 [.] for whether they exist). Row 0 is column `offset`.
    """
    (charge, center, radius, exists), (charges, centers, radii, exist) = rows, columns
    swapped = charges.flip(1)
    pairs = torch.outer(exists, exist)
    pairs.diagonal(offset).zero_()  # A != B

    differences = None
    if len(center) * centers.numel() <= BLOCK_ENTRIES:
        differences = center.unsqueeze(1) - centers.unsqueeze(0)
        squared = torch.linalg.vector_norm(differences, dim=-1).square()
    else:
        squares = center.square().sum(1, keepdim=True) + centers.square().sum(1)
        squared = torch.addmm(squares, center, centers.T, alpha=-2).clamp_(min=0)
    squared = squared + softening**2
    smallest = torch.finfo(center.dtype).eps ** 2
    distance = squared.clamp(min=smallest).sqrt()  # Eq. 7
    near = pairs / distance
    far = pairs / (distance + (radius.unsqueeze(1) + radii))  # Eq. 8
    like, opposite = charge @ charges.T * near, charge @ swapped.T * far
    sums = (like - opposite).sum(), (distance * pairs).sum()  # Eq. 5
    if not with_gradient:
        return sums

    outer = opposite * far  # dU/d(token distance) of opposite charges
    slope = (outer - like * near) / distance * (squared > smallest)  # dU/dD, over D
    if differences is None:
        pull = slope.sum(1, keepdim=True) * center - slope @ centers
    else:
        pull = torch.bmm(slope.unsqueeze(1), differences).squeeze(1)
    return *sums, torch.addmm(near @ charges, far, swapped, alpha=-1), pull, outer.sum(1) / 2


def _sample_blocks(position: Tensor) -> list[slice]:
    """Which samples of [B, N, h] are gone through at once."""
    size = len(position)
    rows = size if position.device.type != "cpu" else CACHED_ENTRIES // max(1, position[:1].numel())
    return [slice(i, i + max(1, rows)) for i in range(0, size, max(1, rows))]


def _without_holes(position: Tensor, hole: Tensor, dtype: torch.dtype) -> Tensor:
    """A copy that is 0 where there is no token."""
    if position.device.type != "cpu":  # an index would make an accelerator wait
        return position.to(dtype).masked_fill(hole.unsqueeze(2), 0)
    copy = position.to(dtype, copy=True)
    copy[hole.nonzero(as_tuple=True)] = 0
    return copy


def _narrow(gradient: Tensor, dtype: torch.dtype) -> Tensor:
    """A gradient in the dtype of its input. One too large for that saturates instead of becoming infinite."""
    if gradient.dtype == dtype:
        return gradient
    largest = torch.finfo(dtype).max
    return gradient.clamp(-largest, largest).to(dtype)


def _check_tokens(importance: Tensor, position: Tensor, mask: Tensor | None, token_reduction: str) -> None:
    if importance.dim() != 2 or position.dim() != 3 or position.shape[:2] != importance.shape:
        raise AtomError(
            "importance must be [B, N] and position [B, N, h], "
            f"got {tuple(importance.shape)} and {tuple(position.shape)}"
        )
    if mask is not None and (mask.dtype != torch.bool or mask.shape != importance.shape):
        raise AtomError(
            f"mask must be a bool tensor of importance's shape {tuple(importance.shape)}, "
            f"got {mask.dtype} {tuple(mask.shape)}"
        )
    if token_reduction not in TOKEN_REDUCTIONS:
        raise AtomError(f"token_reduction must be one of {', '.join(TOKEN_REDUCTIONS)}; got {token_reduction!r}")
