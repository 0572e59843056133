"""Monte Carlo estimates: draw a point x, then two independent messages of each channel, u and u', and average

    I(X;U) :  ln p(u|x) / p(u)
    S_uu   :  ln p(u,u') / p(u) p(u')
    S_uv   :  ln p(u,v) / p(u) p(v)

where the mixtures p(u), p(u,u'), p(u,v) average over all N points, x included. All terms of a draw are of the same x, so errors
follow from their joint covariance, by the delta method.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from .channel import Channel
from .densities import Density, density_of
from .estimate import Estimate

BLOCK = 2**21  # logarithms of densities held at a time

LONG = 10**9  # logarithms of densities, some seconds: beyond, progress is shown


class Errors(NamedTuple):
    """Standard errors of the draws: in nats, but for NMI."""

    information_error: Tensor
    """[C]."""
    shared_error: Tensor
    """[C, D]."""
    nmi_error: Tensor
    """[C, D]; infinite where S_uu or S_vv is not above 0."""
    vi_error: Tensor
    """[C, D]."""


def from_draws(
    channels: Sequence[Channel],
    others: Sequence[Channel] | None,
    *,
    samples: int,
    seed: int,
    device: torch.device | str,
) -> tuple[Estimate, Errors]:
    """The estimate from `samples` draws of a point, and its errors.

    Args:
        channels: C, of the same N points, none of kind "fingerprint".
        others: D; None for the channels themselves.
        samples: draws, at least 2.
        seed: of the draws.
        device: where to compute.
    """
    generator = torch.Generator(device).manual_seed(seed)
    left = [density_of(channel, device) for channel in channels]
    right = left if others is None else [density_of(channel, device) for channel in others]
    points = channels[0].points
    held = points * 2 * (len(left) + (0 if right is left else len(right)))
    at_once = max(1, BLOCK // held)
    slow = samples * points * len(left) * len(right) > LONG
    moments = _Moments()
    with tqdm(total=samples, desc="drawing", unit="draw", leave=False, disable=not slow) as bar:
        for first in range(0, samples, at_once):
            count = min(at_once, samples - first)
            moments.add(*_terms(left, right, points, count, generator))
            bar.update(count)
    return moments.estimate(), moments.errors()


class _Terms(NamedTuple):
    """The terms of s draws for the channels of one side."""

    log_density: list[Tensor]
    """C of [s, N], of u."""
    log_mixture: Tensor
    """[C, s], ln p(u)."""
    information: Tensor
    """[C, s]."""
    own: Tensor
    """[C, s], of S_uu."""


def _side(densities: Sequence[Density], drawn: Tensor, points: int, generator: torch.Generator) -> _Terms:
    kept, mixtures, information, own = [], [], [], []
    for density in densities:
        first, second = (density.log_density(density.draw(drawn, generator)) for _ in range(2))
        one, two = (_log_mean(logs) for logs in (first, second))
        kept.append(first)
        mixtures.append(one)
        information.append(first.gather(1, drawn.unsqueeze(1)).squeeze(1) - one)
        own.append(_log_mean(first + second) - one - two)
    return _Terms(kept, torch.stack(mixtures), torch.stack(information), torch.stack(own))


def _terms(
    left: Sequence[Density], right: Sequence[Density], points: int, count: int, generator: torch.Generator
) -> tuple[_Terms, _Terms, Tensor]:
    """The terms of `count` draws: of both sides, and those of S_uv, [C, D, s]."""
    drawn = torch.randint(points, (count,), generator=generator, device=generator.device)
    mine = _side(left, drawn, points, generator)
    theirs = mine if right is left else _side(right, drawn, points, generator)
    shared = mine.own.new_empty(len(left), len(right), count)
    for c, logs in enumerate(mine.log_density):
        for d, other_logs in enumerate(theirs.log_density):
            if mine is not theirs or c < d:
                shared[c, d] = _log_mean(logs + other_logs) - mine.log_mixture[c] - theirs.log_mixture[d]
            else:
                shared[c, d] = mine.own[c] if c == d else shared[d, c]
    return mine, theirs, shared


def _log_mean(logs: Tensor) -> Tensor:
    """ln of the mean over points, [s] of [s, N]."""
    return logs.logsumexp(1) - math.log(logs.shape[1])


class _Moments:
    """Sums over draws of the terms a of S_uu, b of S_vv and c of S_uv, and of their products."""

    def __init__(self) -> None:
        self._count = 0
        self._sums: dict[str, Tensor] = {}

    def add(self, mine: _Terms, theirs: _Terms, c: Tensor) -> None:
        a, b = mine.own, theirs.own
        sums = {
            "i": mine.information.sum(1),
            "ii": mine.information.square().sum(1),
            "other_i": theirs.information.sum(1),
            "a": a.sum(1),
            "b": b.sum(1),
            "c": c.sum(2),
            "aa": a.square().sum(1),
            "bb": b.square().sum(1),
            "cc": c.square().sum(2),
            "ab": a @ b.T,
            "ac": torch.einsum("cs,cds->cd", a, c),
            "bc": torch.einsum("ds,cds->cd", b, c),
        }
        self._count += c.shape[2]
        self._sums = {name: self._sums[name] + value if self._sums else value for name, value in sums.items()}

    def _mean(self, name: str) -> Tensor:
        return self._sums[name].cpu() / self._count

    def estimate(self) -> Estimate:
        return Estimate(*(self._mean(name).unsqueeze(0) for name in ("i", "other_i", "a", "b", "c")))

    def errors(self) -> Errors:
        a, b, c = self._mean("a").unsqueeze(1), self._mean("b"), self._mean("c")
        aa = self._mean("aa").unsqueeze(1) - a.square()
        bb = self._mean("bb") - b.square()
        cc = self._mean("cc") - c.square()
        ab, ac, bc = self._mean("ab") - a * b, self._mean("ac") - a * c, self._mean("bc") - b * c
        vi = aa + bb + 4 * cc + 2 * ab - 4 * ac - 4 * bc
        known = (a > 0) & (b > 0)
        product = (a * b).masked_fill(~known, 1.0)
        ratio = c / product.sqrt()
        # NMI = c / sqrt(a b), so d NMI = dc / sqrt(a b) - NMI/2 (da / a + db / b)
        a, b = (mean.expand_as(c).masked_fill(~known, 1.0) for mean in (a, b))
        nmi = (
            cc / product
            + ratio.square() / 4 * (aa / a.square() + bb / b.square() + 2 * ab / product)
            - ratio / product.sqrt() * (ac / a + bc / b)
        )
        information = self._mean("ii") - self._mean("i").square()
        nmi_error = self._error(nmi).masked_fill(~known, math.inf)
        return Errors(self._error(information), self._error(cc), nmi_error, self._error(vi))

    def _error(self, variance: Tensor) -> Tensor:
        """The standard error of a mean. Rounding may leave a variance just below 0."""
        return (variance.clamp(min=0) / (self._count - 1)).sqrt()
