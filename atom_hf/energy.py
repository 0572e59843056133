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

from typing import NamedTuple

import torch
from torch import Tensor

from .errors import AtomError

# Above this many entries a pair matrix is built in blocks of rows.
BLOCK_ENTRIES = 2**24

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
        positive, negative, center, radius = _Describe.apply(importance, position, mask)
        if token_reduction == "mean":
            count = mask.sum(1).clamp(min=1)
            positive, negative = positive / count, negative / count
        return cls(positive, negative, center, radius)

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
    """The atom loss of a batch and its parts, all scalars."""

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
    exists = atoms.exists
    count = exists.sum()
    with torch.autocast(atoms.center.device.type, enabled=False):
        energy, distance = _PairSums.apply(*atoms, softening)
    pairs = (count * (count - 1)).clamp(min=1)
    return PairMeans(energy / pairs, distance / pairs)


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
    with torch.autocast(atoms.center.device.type, enabled=False):
        energy, distance = pair_means(atoms, softening)
        exists = atoms.exists
        n = exists.sum().clamp(min=1)
        net = (atoms.positive - atoms.negative).square()
        missing = (charge_floor - atoms.positive - atoms.negative).clamp(min=0).square()
        constraint = ((neutrality * net + charge_floor_weight * missing) * exists).sum() / n
        return AtomLoss(energy_weight * energy + constraint, energy, constraint, distance)


class _Describe(torch.autograd.Function):
    """(Z+ [B], Z- [B], mu [B, h], r [B]) of tokens. Eqs. 9 to 11.

    The gradient is written out, because autograd's would keep three more tensors as large as the positions. With
    `w_i = (1 - m_i) / ||p_i - mu||`, `g` the incoming gradients and `G = g_mu - (g_r / N) sum_i w_i (p_i - mu)`, the whole
    gradient of the centre:

        dL/dp_i       = (g_r / N) w_i (p_i - mu) + (m_i / N) G
        dL/d(1 - m_i) = (g_r / N) ||p_i - mu|| - (1 / N) <G, p_i>
    """

    @staticmethod
    def forward(ctx, importance: Tensor, position: Tensor, mask: Tensor):
        with torch.autocast(importance.device.type, enabled=False):
            q, p = _wide_tokens(importance, position, mask)
            count = mask.sum(1)
            n = count.clamp(min=1).to(q.dtype)
            electron = (-q).clamp(min=0)  # 1 - m_i, and so m_i = 1 - electron: Eq. 11
            center = torch.bmm((1 - electron).unsqueeze(1), p).squeeze(1) / n.unsqueeze(1)  # Eq. 9
            distance = torch.linalg.vector_norm(p.sub_(center.unsqueeze(1)), dim=-1)
            radius = torch.where(count > 0, (electron * distance).sum(1) / n, -1.0)  # Eq. 10
        ctx.save_for_backward(importance, position, mask, center, distance)
        return q.clamp(min=0).sum(1), electron.sum(1), center, radius

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, positive: Tensor, negative: Tensor, center: Tensor, radius: Tensor):
        importance, position, mask, mu, distance = ctx.saved_tensors
        with torch.autocast(importance.device.type, enabled=False):
            q, p = _wide_tokens(importance, position, mask)
            n = mask.sum(1, keepdim=True).clamp(min=1).to(q.dtype)
            electron = (-q).clamp(min=0)
            radius = (radius.unsqueeze(1) / n).masked_fill(~mask.any(1, keepdim=True), 0)
            # A token that sits on the centre is left there: the subgradient 0.
            pull = radius * torch.where(distance > 0, electron / distance, 0)
            offset = p.sub_(mu.unsqueeze(1))
            center = center.unsqueeze(1) - torch.bmm(pull.unsqueeze(1), offset)  # G [B, 1, h]
            along = (torch.bmm(offset, center.mT) + torch.bmm(mu.unsqueeze(1), center.mT)).squeeze(2)
            electron_gradient = negative.unsqueeze(1) + radius * distance - along / n
            charge = (q >= 0) * positive.unsqueeze(1) - (q <= 0) * electron_gradient
            weight = ((1 - electron) / n).masked_fill(~mask, 0)
            offset.mul_(pull.unsqueeze(2)).baddbmm_(weight.unsqueeze(2), center)
            charge = charge.masked_fill(~mask, 0)
        return _narrow(charge, importance.dtype), _narrow(offset, position.dtype), None


class _PairSums(torch.autograd.Function):
    """(sum of U_AB, sum of D_AB) over the ordered pairs A != B. Eqs. 5, 7 and 8.

    Both sums are symmetric in A and B, so the gradient of an atom is twice that of its row. It costs little more than the
    energy, and is computed along with it: nothing of size [B, B] is kept.
    """

    @staticmethod
    def forward(ctx, positive: Tensor, negative: Tensor, center: Tensor, radius: Tensor, softening: float):
        exists = radius >= 0
        charge = torch.stack([positive, negative], dim=1)
        # A large common offset would ruin distances taken by a matrix product; no distance depends on it.
        mean = (center * exists.unsqueeze(1)).sum(0) / exists.sum().clamp(min=1)
        atoms = (charge, center - mean, radius.clamp(min=0), exists.to(center.dtype))
        size = len(center)
        rows = min(size, max(1, BLOCK_ENTRIES // max(1, size)))
        blocks = [
            _row_sums(tuple(t[i : i + rows] for t in atoms), atoms, i, softening, any(ctx.needs_input_grad))
            for i in range(0, size, max(1, rows))
        ]
        if not blocks:
            blocks = [(center.sum(), center.sum(), charge, center, radius)]
        energies, distances, *gradients = zip(*blocks, strict=True)
        if any(ctx.needs_input_grad):
            charge, center, radius = (torch.cat(gradient) for gradient in gradients)
            ctx.save_for_backward(charge[:, 0], charge[:, 1], center, radius)
        distance = sum(distances)
        ctx.mark_non_differentiable(distance)
        return sum(energies), distance

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, energy: Tensor, _distance: Tensor):
        return *(energy * gradient for gradient in ctx.saved_tensors), None


def _row_sums(rows: tuple, columns: tuple, offset: int, softening: float, with_gradient: bool) -> tuple:
    """The sums over A in `rows`, B in `columns`, A != B, and the gradient of the first for the whole of each row's atom.

    Atoms are (charges [., 2], centre [., h], radius [.], 1 or 0 [.] for whether they exist). Row 0 is column `offset`.
    """
    (charge, center, radius, exists), (charges, centers, radii, exist) = rows, columns
    pairs = torch.outer(exists, exist)
    pairs.diagonal(offset).zero_()  # A != B
    like, opposite = charge @ charges.T, charge @ charges.flip(1).T

    differences = None
    if len(center) * centers.numel() <= BLOCK_ENTRIES:
        differences = center.unsqueeze(1) - centers.unsqueeze(0)
        squared = differences.square().sum(-1)
    else:
        squares = center.square().sum(1, keepdim=True) + centers.square().sum(1)
        squared = torch.addmm(squares, center, centers.T, alpha=-2).clamp_(min=0)
    squared = squared + softening**2
    smallest = torch.finfo(center.dtype).eps ** 2
    distance = squared.clamp(min=smallest).sqrt()  # Eq. 7
    near = pairs / distance
    far = pairs / (distance + (radius.unsqueeze(1) + radii) / 2)  # Eq. 8
    energy = torch.sum(like * near - opposite * far)  # Eq. 5
    total = torch.sum(distance * pairs)
    if not with_gradient:
        return energy, total, charge, center, radius

    outer = opposite * far.square()  # dU/d(token distance) of opposite charges
    slope = (outer - like * near.square()) / distance * (squared > smallest)  # dU/dD, over D
    if differences is None:
        centers = slope.sum(1, keepdim=True) * center - slope @ centers
    else:
        centers = torch.bmm(slope.unsqueeze(1), differences).squeeze(1)
    return energy, total, 2 * (near @ charges - far @ charges.flip(1)), 2 * centers, outer.sum(1)


def _wide_tokens(importance: Tensor, position: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float32 or wider, 0 where there is no token; copies, which may be written to."""
    dtype = torch.promote_types(torch.promote_types(importance.dtype, position.dtype), torch.float32)
    return importance.to(dtype).masked_fill(~mask, 0), position.to(dtype).masked_fill(~mask.unsqueeze(-1), 0)


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
