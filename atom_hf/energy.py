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
from torch.utils.checkpoint import checkpoint

from .errors import AtomError

# Above this many entries a pair matrix is built in blocks of rows that the backward pass computes again.
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
        with torch.autocast(importance.device.type, enabled=False):
            dtype = torch.promote_types(torch.promote_types(importance.dtype, position.dtype), torch.float32)
            q, p = _wide(importance, dtype), _wide(position, dtype)
            if mask is None:
                mask = torch.ones_like(q, dtype=torch.bool)
            q = q.masked_fill(~mask, 0)
            p = p.masked_fill(~mask.unsqueeze(-1), 0)
            count = mask.sum(1)
            n = count.clamp(min=1).to(q.dtype)

            electron = (-q).clamp(min=0)  # 1 - m_i, and so m_i = 1 - electron: Eq. 11
            weight = 1 - electron
            center = torch.einsum("bn,bnh->bh", weight, p) / n.unsqueeze(-1)  # Eq. 9
            # vector_norm has gradient 0, not NaN, for a token that sits on the centre.
            radius = (electron * torch.linalg.vector_norm(p - center.unsqueeze(1), dim=-1)).sum(1) / n  # Eq. 10

            positive, negative = q.clamp(min=0).sum(1), electron.sum(1)
            if token_reduction == "mean":
                positive, negative = positive / n, negative / n
            return cls(positive, negative, center, torch.where(count > 0, radius, -1.0))

    @property
    def exists(self) -> Tensor:
        """bool [B]: False for a sample without a token. Such a sample takes part in no pair."""
        return self.radius >= 0

    def pack(self) -> Tensor:
        """[B, h + 3]: all that has to leave `forward`, cross a device boundary or be cached."""
        return torch.cat([torch.stack([self.positive, self.negative, self.radius], dim=1), self.center], dim=1)

    @classmethod
    def unpack(cls, packed: Tensor) -> "Atoms":
        """The inverse of `pack`."""
        return cls(packed[:, 0], packed[:, 1], packed[:, 3:], packed[:, 2])


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

    Memory: O(B^2) up to 4,096 atoms; beyond, blocks of rows are computed again in the backward pass, and the peak grows as
    O(B h) plus a few blocks of 64 MiB.
    """
    center = atoms.center
    # A large common offset would ruin distances taken by a matrix product; no distance depends on it.
    exists = atoms.exists
    count = exists.sum()
    mean = (center * exists.unsqueeze(1)).sum(0) / count.clamp(min=1)
    atoms = atoms._replace(center=center - mean.detach())

    size = len(center)
    rows = max(1, BLOCK_ENTRIES // max(1, size))
    if rows >= size:
        sums = _pair_sums(atoms, atoms, 0, softening)
    else:
        sums = sum(
            checkpoint(_pair_sums, Atoms(*(t[i : i + rows] for t in atoms)), atoms, i, softening, use_reentrant=False)
            for i in range(0, size, rows)
        )
    pairs = (count * (count - 1)).clamp(min=1)
    energy, distance = sums / pairs
    return PairMeans(energy, distance.detach())


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


def _pair_sums(rows: Atoms, columns: Atoms, offset: int, softening: float) -> Tensor:
    """[2]: the sums of U_AB and D_AB over A in `rows`, B in `columns`, A != B. Row 0 is column `offset`."""
    like = torch.outer(rows.positive, columns.positive) + torch.outer(rows.negative, columns.negative)
    opposite = torch.outer(rows.positive, columns.negative) + torch.outer(rows.negative, columns.positive)

    smallest = torch.finfo(rows.center.dtype).eps ** 2
    squared = _squared_distances(rows.center, columns.center) + softening**2
    distance = squared.clamp(min=smallest).sqrt()  # Eq. 7
    radius = (rows.radius.clamp(min=0).unsqueeze(1) + columns.radius.clamp(min=0)) / 2
    energy = like / distance - opposite / (distance + radius)  # Eq. 8 in Eq. 5

    pairs = torch.outer(rows.exists, columns.exists)
    pairs.diagonal(offset).zero_()  # A != B
    return torch.stack([(energy * pairs).sum(), (distance.detach() * pairs).sum()])


def _squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """[A, B] from [A, h] and [B, h]: by differences while they fit, which is exact; else by a matrix product."""
    if len(a) * len(b) * a.shape[1] <= BLOCK_ENTRIES:
        return (a.unsqueeze(1) - b.unsqueeze(0)).square().sum(-1)
    return torch.addmm(a.square().sum(1, keepdim=True) + b.square().sum(1), a, b.T, alpha=-2).clamp(min=0)


def _wide(x: Tensor, dtype: torch.dtype) -> Tensor:
    """`x` in `dtype`. A gradient too large for a narrower `x` saturates instead of becoming infinite."""
    if x.dtype == dtype:
        return x
    wide = x.to(dtype)
    if wide.requires_grad:
        largest = torch.finfo(x.dtype).max
        wide.register_hook(lambda gradient: gradient.clamp(-largest, largest))
    return wide


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
