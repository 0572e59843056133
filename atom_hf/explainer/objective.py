"""What an explainer minimises: FastSHAP's loss (arXiv 2107.07436, Eq. 5) for several classes and masking strategies."""

import math

import torch
from torch import Tensor, nn

from ..atoms.explainer_head import ExplainerHead
from .masked_samples import MaskedSamples

SIGN = 0.1
"""The weight of the squared gaps: it settles the sign, and keeps the parts near the sum that efficiency asks for."""

START = 3.0
"""The scale at the start, in mean parts of a token: a token may have several times the mean."""

OTHERS = 1.0
"""The weight of all other classes of a sample together, beside that of the predicted one."""


class Objective(nn.Module):
    """The errors of an explainer on masked samples.

    Args:
        head: the explainer.
        masked: the samples that it is fitted to.
        train: the items among them that the scale starts from.
    """

    def __init__(self, head: ExplainerHead, masked: MaskedSamples, train: Tensor):
        super().__init__()
        self.head, self.masked = head, masked
        self.device = head.outer.weight.device
        count = masked.mask[train].sum(1, keepdim=True)
        # The mean part of a token under each strategy, if all were alike: [S].
        unit = (masked.whole[train, :, 0].abs() / count).mean(0).clamp(min=1e-6)
        self.register_buffer("unit", unit.to(self.device))
        self.log_scale = nn.Parameter(torch.full_like(self.unit, math.log(START)))

    @property
    def scale(self) -> Tensor:
        """[S]: what the importance of a token is multiplied by to be its part of the probability."""
        return self.unit * self.log_scale.exp()

    def forward(self, rows: Tensor, dropout: float = 0.0) -> tuple[Tensor, Tensor]:
        """Of some items, the squared errors [b, K, M] and the squared gaps [b, S, M], in squares of the mean part of a token.

        The remainder of the efficiency is shared equally among the tokens, as FastSHAP's additive efficient normalisation does.
        """
        names = ("tokens", "mask", "real", "classes", "keep", "strategy", "change", "whole")
        tokens, mask, real, classes, keep, strategy, change, whole = (
            getattr(self.masked, name)[rows].to(self.device) for name in names
        )
        # Heads of old have one importance for all strategies.
        importance = self.head(tokens.float(), real, classes, dropout).expand(-1, -1, len(self.unit), -1)
        parts = importance * mask[:, :, None, None] * self.scale[:, None]  # [b, N, S, M]
        missing = whole - parts.sum(1)
        kept = keep.to(parts.dtype)
        share = kept.sum(-1) / mask.sum(1, keepdim=True)
        place = strategy[:, None, :, None].expand(-1, 1, -1, parts.shape[3])
        told = torch.einsum("bkn,bnsm->bskm", kept, parts) + missing[:, :, None] * share[:, None, :, None]
        told = told.gather(1, place)[:, 0]
        unit = self.unit[strategy][..., None]
        return ((change - told) / unit).square(), (missing / self.unit[:, None]).square()

    def loss(self, rows: Tensor, dropout: float) -> Tensor:
        """What is minimised: the mean over samples, sets and classes of the errors, and SIGN times that of the gaps."""
        error, gap = self(rows, dropout)
        weights = torch.full((error.shape[-1],), OTHERS / error.shape[-1], device=error.device)
        weights[0] = 1.0
        weights = weights / weights.sum()
        return (error.mean((0, 1)) * weights).sum() + SIGN * (gap.mean((0, 1)) * weights).sum()

    @torch.no_grad()
    def explained(self, rows: Tensor, size: int) -> float:
        """The share of the changes of some items, beyond an equal change for each token, that the parts explain.

        Of the predicted classes; strategies count alike.
        """
        left, total = self._left(rows, size)
        return _share(float(left.sum()), float(total.sum()))

    def explained_each(self, rows: Tensor, size: int) -> list[float]:
        """The same under each masking strategy alone."""
        return [_share(*each) for each in zip(*(part.tolist() for part in self._left(rows, size)), strict=True)]

    @torch.no_grad()
    def _left(self, rows: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """[S] and [S]: what the parts leave of the squared changes under each strategy, and all that there is."""
        part = [self.masked.change[rows, :, 0], self.masked.whole[rows, :, 0], self.masked.strategy[rows]]
        change, whole, strategy = (value.to(self.device) for value in part)
        share = self.masked.keep[rows].sum(-1) / self.masked.mask[rows].sum(1, keepdim=True)
        flat = (change - whole.gather(1, strategy) * share.to(self.device)) / self.unit[strategy]
        error = torch.cat([self(some)[0][..., 0] for some in rows.split(size)])
        found = torch.zeros(2, len(self.unit), dtype=torch.double, device=self.device)
        for row, values in enumerate((error, flat.square())):
            found[row].index_add_(0, strategy.flatten(), values.flatten().double())
        return found[0], found[1]


def _share(left: float, total: float) -> float:
    return 1 - left / total if total > 1e-12 else 0.0  # a model whose answer never changes
