"""The measures as they are usually computed: all fingerprints are held, and pairs are compared one after another.

`in_pairs` is a function of two fingerprints, called for each pair: the form in which the paper's code has them, in our words.
`once` computes what concerns one channel alone only once. Both give information, S, NMI and VI in bits.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from atom_hf.fragments import Channel

Measures = dict[str, Tensor]


def fingerprint(channel: Channel) -> Tensor:
    """B [N, N] of values under noise, or of a Gaussian channel with independent dimensions."""
    if channel.noise is not None:
        return torch.exp(-(channel.mean.unsqueeze(1) - channel.mean).square().sum(2) / (8 * channel.noise**2))
    mean, variance = channel.mean, channel.log_variance.exp()
    middle = (variance.unsqueeze(1) + variance) / 2
    squared = (mean.unsqueeze(1) - mean).square() / middle
    logs = channel.log_variance.unsqueeze(1) + channel.log_variance
    return torch.exp(-(squared / 8 + (middle.log() - logs / 2) / 2).sum(2))


def information(fingerprint: Tensor) -> Tensor:
    """I(X;U) of a fingerprint, or I(X;U,V) of the product of two, in bits."""
    return -fingerprint.mean(1).log().mean() / math.log(2)


def compare_pair(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """S, NMI and VI of two fingerprints."""
    of_u, of_v = information(u), information(v)
    own, other = 2 * of_u - information(u * u), 2 * of_v - information(v * v)
    shared = of_u + of_v - information(u * v)
    return shared, shared / (own * other).sqrt(), own + other - 2 * shared


def in_pairs(channels: Sequence[Channel]) -> Measures:
    """Each pair on its own."""
    fingerprints = [fingerprint(channel) for channel in channels]
    found = torch.empty(3, len(channels), len(channels), dtype=torch.float64)
    for i, u in enumerate(fingerprints):
        for j, v in enumerate(fingerprints[: i + 1]):
            found[:, i, j] = found[:, j, i] = torch.stack(compare_pair(u, v))
    return {"information": torch.stack([information(u) for u in fingerprints]), **_named(found)}


def once(channels: Sequence[Channel]) -> Measures:
    """What concerns one channel is computed once: a product, its row means and their logarithms are left for each pair."""
    fingerprints = [fingerprint(channel) for channel in channels]
    alone = torch.stack([information(u) for u in fingerprints])
    shared = torch.empty(len(channels), len(channels), dtype=torch.float64)
    for i, u in enumerate(fingerprints):
        for j, v in enumerate(fingerprints[: i + 1]):
            shared[i, j] = shared[j, i] = alone[i] + alone[j] - information(u * v)
    own = shared.diagonal()
    nmi, vi = shared / torch.outer(own, own).sqrt(), own.unsqueeze(1) + own - 2 * shared
    return {"information": alone, **_named(torch.stack([shared, nmi, vi]))}


def _named(found: Tensor) -> Measures:
    return dict(zip(("shared", "nmi", "vi"), found, strict=True))
