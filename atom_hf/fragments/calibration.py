"""Noise for deterministic values: the one at which they hold as many bits as are wanted, and ranks as normal scores.

Deterministic values h under Gaussian noise s are a channel, whose information falls as s grows. `bits=` finds s, so that
channels of different scales are compared at the same information.
"""

import functools
import math

import torch
from scipy import optimize, stats
from torch import Tensor

from ..errors import AtomError

TOLERANCE = 1e-9  # bits

CLOSE = 1e-3  # share of what values with ties can hold at most, by which they may stay below it

_BLOCK = 2**17  # numbers held at a time


def normal_scores(values: Tensor) -> Tensor:
    """Replace each dimension of `values` [N, d] by the normal quantiles of its ranks; ties share the mean of their ranks.

    The scores do not change under any increasing map of a dimension.
    """
    ranks = stats.rankdata(values.cpu().numpy(), method="average", axis=0)
    return torch.as_tensor(stats.norm.ppf((ranks - 0.5) / len(ranks)), dtype=torch.float64, device=values.device)


def score_noise(points: int, bits: float) -> float:
    """The noise at which normal scores of `points` values without ties hold `bits`."""
    return calibrate_noise(normal_scores(torch.arange(points, dtype=torch.float64).unsqueeze(1)), bits)


def calibrate_noise(values: Tensor, bits: float) -> float:
    """The noise s at which deterministic values hold `bits` of information, by Brent's method on ln s.

    Args:
        values: float64 [N, d].
        bits: above 0 and below log2 N, the most that N points can tell.

    Returns:
        s, in the units of the values. Ties may keep values below `bits` at any noise: s is then one at which they hold all
        but a thousandth of what they can; of constant values it is 1.

    Raises:
        AtomError: bits that no N points can hold.
    """
    points = len(values)
    check_bits(bits, points)
    values = values - values.mean(0)
    scale = float(values.square().sum(1).mean().sqrt())
    if not scale:
        return 1.0
    values = values / scale
    counts = torch.unique(values, dim=0, return_counts=True)[1].double()
    most = float((counts / points * (points / counts).log2()).sum())
    bits = min(bits, (1 - CLOSE) * most)

    @functools.cache
    def excess(log_noise: float) -> float:
        return noise_information(values, math.exp(log_noise)) - bits

    low = high = math.log(0.5)
    while excess(low) < 0:
        low -= 2.0
    while excess(high) > 0:
        high += 2.0
    return scale * math.exp(optimize.brentq(excess, low, high, xtol=TOLERANCE) if low < high else low)


def check_bits(bits: float, points: int) -> None:
    """Raise `AtomError` for bits that no `points` data points can hold."""
    if not 0 < bits < math.log2(points):
        raise AtomError(
            f"bits must be above 0 and below log2 N = {math.log2(points):.4g}, the most that N = {points} data points can "
            f"tell; got {bits}"
        )


def noise_information(values: Tensor, noise: float) -> float:
    """I(X;U) in bits of values [N, d] under Gaussian noise, from fingerprints: a block of rows at a time, each pair once."""
    points, dimensions = values.shape
    scaled = values / noise
    at_once = max(1, _BLOCK // (points * dimensions))
    sums = values.new_zeros(points)
    for first in range(0, points, at_once):
        rows = scaled[first : first + at_once]
        differences = rows.unsqueeze(1) - scaled[first:]
        squared = differences.mul_(differences).sum(2) if dimensions > 1 else differences.mul_(differences).squeeze(2)
        fingerprints = squared.mul_(-1 / 8).expm1_()
        sums[first : first + at_once] += fingerprints.sum(1)
        sums[first + at_once :] += fingerprints[:, len(rows) :].sum(0)
    return -float(sums.div_(points).log1p_().mean()) / math.log(2)
