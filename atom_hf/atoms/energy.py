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

The signs in Eqs. 8 and 11 are the ones that the paper's own statements demand (`docs/method.md`, "Whose is what").
The closed form, the softening, the averages over tokens and both constraints are this library's.

describe.py makes the atoms, closed_form.py their energy, each with its gradient.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import AtomError
from .closed_form import Existing, WithGradient, mean_over_pairs
from .describe import Describe

TOKEN_REDUCTIONS = ("sum", "mean")


class Atoms(NamedTuple):
    """The atoms of a batch of samples: h + 3 numbers each, all float32 (float64 if made from float64)."""

    positive: Tensor
    """`Z+` [B]: the positive importance, summed over tokens (or averaged: `token_reduction`)."""
    negative: Tensor
    """`Z-` [B]: the magnitude of the negative importance, likewise."""
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
            mask: bool [B, N], True for the tokens of an atom; all if None. Other entries are never read, not even NaN.
            token_reduction: "sum" is the paper's Eq. 5; "mean" divides the charges by the number of tokens, so that the
                energy does not grow with the length of a sample (ours).

        Raises:
            AtomError: shapes that do not fit, or an unknown `token_reduction`.
        """
        return cls.unpack(pack_atoms(importance, position, mask, token_reduction=token_reduction))

    @property
    def exists(self) -> Tensor:
        """bool [B]: False for a sample without a token. Such a sample takes part in no pair."""
        return self.radius >= 0

    def pack(self) -> Tensor:
        """Pack into one tensor [B, h + 3], to return from `forward`, to gather over processes or to cache."""
        scalars = (self.positive, self.negative, self.radius)
        return torch.cat([*(scalar.unsqueeze(1) for scalar in scalars), self.center], dim=1)

    @classmethod
    def unpack(cls, packed: Tensor) -> "Atoms":
        """The inverse of `pack`."""
        positive, negative, radius, center = packed.split([1, 1, 1, packed.shape[1] - 3], dim=1)
        return cls(positive.squeeze(1), negative.squeeze(1), center, radius.squeeze(1))


def pack_atoms(
    importance: Tensor, position: Tensor, mask: Tensor | None = None, *, token_reduction: str = "sum"
) -> Tensor:
    """`Atoms.from_tokens(...).pack()`, [B, h + 3], without taking apart and putting together again."""
    _check_tokens(importance, position, mask, token_reduction)
    if mask is None and not importance.shape[1]:
        mask = torch.ones_like(importance, dtype=torch.bool)  # no token, so no atom
    return Describe.apply(importance, position, mask, token_reduction == "mean")


class PairMeans(NamedTuple):
    """Means over the ordered pairs of distinct atoms; both 0, and still differentiable, if there is no pair."""

    energy: Tensor
    """Eq. 5."""
    distance: Tensor
    """Eq. 7, detached: for the log."""


def pair_means(atoms: Atoms, softening: float = 0.0) -> PairMeans:
    """The mean pair energy (Eqs. 5, 7 and 8) and distance.

    `softening` is Plummer's, as in N-body codes for coincident bodies: `D = sqrt(||mu_A - mu_B||^2 + softening^2)`, in the
    units of the positions. At 0 the formula is the paper's; distances below the machine epsilon are then clamped to it, so
    that the energy of coincident atoms stays finite.

    Memory: O(B^2) up to 4,096 atoms; beyond, blocks of rows, so that the peak grows as O(B h) plus a few blocks of 64 MiB.
    """

    def compute(wanted: bool, packed: Tensor) -> tuple:
        return mean_over_pairs(packed, Existing.among(packed, complete=False), (softening,), wanted)

    return PairMeans(*(values[0] for values in WithGradient.apply(compute, atoms.pack().unsqueeze(0))))


def rest_distance(atoms: Atoms, softening: float = 0.0) -> Tensor:
    """[B, B]: the distance between the centres of two atoms at which their energy `U_AB` is least (ours, from Eqs. 5 to 8).

        D*_AB = R / (sqrt(opposite_AB / like_AB) - 1),   R = (r_A + r_B)/2

    where opposite > like, that is where their net charges `Z+ - Z-` have opposite signs: below this distance they repel each
    other, above it they attract each other. inf where they repel each other at every distance; nan for an atom with itself,
    for a sample without a token, and for a pair without any charge. In the units of the positions; `softening` as in
    `pair_means`: the energy then depends on `sqrt(D^2 + softening^2)`.
    """
    positive, negative = atoms.positive.double(), atoms.negative.double()
    like = torch.outer(positive, positive) + torch.outer(negative, negative)
    net = positive - negative
    # opposite - like; the formula is rearranged to avoid cancellation where both are nearly equal.
    excess = -torch.outer(net, net)
    reach = (atoms.radius.unsqueeze(0) + atoms.radius.unsqueeze(1)).double() / 2
    rest = reach * ((like * (like + excess)).clamp(min=0).sqrt() + like) / excess
    rest = (rest.square() - softening**2).clamp(min=0).sqrt()
    rest = torch.where(excess > 0, rest, torch.full_like(rest, float("inf")))
    none = (like == 0) & (excess <= 0) | ~torch.outer(atoms.exists, atoms.exists)
    return rest.masked_fill(none.fill_diagonal_(True), float("nan")).to(atoms.center.dtype)


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
        A scalar, float32 or wider; 0 and still differentiable if fewer than two samples have a token.

    Example:
        >>> importance, position = torch.tanh(torch.randn(4, 7)), torch.randn(4, 7, 16)
        >>> atomic_energy(importance, position, softening=0.1, token_reduction="mean").shape
        torch.Size([])

    Raises:
        AtomError: shapes that do not fit, or an invalid option.
    """
    if not 0 <= softening < float("inf"):
        raise AtomError(f"softening must be a finite number that is not negative, got {softening}")
    with torch.autocast(importance.device.type, enabled=False):
        atoms = Atoms.from_tokens(importance, position, mask, token_reduction=token_reduction)
        return pair_means(atoms, softening).energy


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
