"""Exact measures of discrete channels, in O(N K L) for clusters K and L: I(U;V) is the mutual information of a table P'Q/N."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .channel import Channel
from .estimate import Estimate

COLUMNS = 4096  # clusters on the right of a table: more channels than these take several


def from_tables(
    channels: Sequence[Channel],
    others: Sequence[Channel] | None,
    groups: Sequence[Tensor],
    *,
    device: torch.device | str,
) -> Estimate:
    """Exact information of discrete channels.

    Args:
        channels: C, soft or hard, of the same N points.
        others: D; None for the channels themselves.
        groups: G disjoint tensors of indices, together all points; none for no jackknife.
        device: where to compute.
    """
    points = channels[0].points
    everything = torch.arange(points)
    kept = [everything, *(everything[~torch.isin(everything, group)] for group in groups)]
    left = [_probabilities(channel).to(device) for channel in channels]
    right = left if others is None else [_probabilities(channel).to(device) for channel in others]
    parts = []
    for rows in kept:
        rows = rows.to(device)
        mine = [probabilities[rows] for probabilities in left]
        theirs = mine if others is None else [probabilities[rows] for probabilities in right]
        parts.append(_measure(mine, theirs))
    return Estimate(*(torch.stack(part).cpu() for part in zip(*parts, strict=True)))


def _measure(left: list[Tensor], right: list[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """I, S_uu of both sides, and S of all pairs, in nats."""
    shared = _shared(left, right)
    if left is right:
        own = other = shared.diagonal().clone()
        shared = (shared + shared.T) / 2
    else:
        own, other = (torch.cat([_shared([p], [p])[0] for p in side]) for side in (left, right))
    information, other_information = (torch.stack([_information(p) for p in side]) for side in (left, right))
    return information, other_information, own, other, shared


def _shared(left: list[Tensor], right: list[Tensor]) -> Tensor:
    """I(U;V) of each of C with each of D, [C, D]: the tables of one of C with many of D are one product."""
    found = []
    for start, stop in _blocks(right):
        q = torch.cat(right[start:stop], 1)
        which = torch.repeat_interleave(torch.tensor([p.shape[1] for p in right[start:stop]], device=q.device))
        q_mean = q.mean(0)
        q_excess = q - q_mean
        rows = []
        for p in left:
            p_mean = p.mean(0)
            terms = _divergence(p.T @ q / len(p), torch.outer(p_mean, q_mean), (p - p_mean).T @ q_excess / len(p))
            rows.append(terms.new_zeros(stop - start).index_add_(0, which, terms.sum(0)))
        found.append(torch.stack(rows))
    return torch.cat(found, 1)


def _blocks(channels: list[Tensor]) -> Iterator[tuple[int, int]]:
    """Ranges of channels, of at most COLUMNS clusters together if they are more than one channel."""
    start, columns = 0, 0
    for index, p in enumerate(channels):
        columns += p.shape[1]
        if columns > COLUMNS and index > start:
            yield start, index
            start, columns = index, p.shape[1]
    yield start, len(channels)


def _probabilities(channel: Channel) -> Tensor:
    """[N, K] of a discrete channel."""
    if channel.probabilities is not None:
        return channel.probabilities
    return F.one_hot(channel.labels).double()


def _information(p: Tensor) -> Tensor:
    """I(X;U) = H(mean p) - mean H(p_i), as the mean divergence of the p_i from their mean: no difference of entropies."""
    mean = p.mean(0)
    return _divergence(p, mean.expand_as(p), p - mean).sum() / len(p)


def _divergence(values: Tensor, expected: Tensor, excess: Tensor) -> Tensor:
    """values ln(values / expected), where excess = values - expected is known better than their difference says."""
    there = values > 0
    relative = torch.where(there, excess / expected.masked_fill(~there, 1.0), 0.0)
    near = relative > -1 / 2
    ratio = torch.where(there & ~near, values / expected.masked_fill(~there, 1.0), 1.0)
    return values * torch.where(near, relative.masked_fill(~near, 0.0).log1p(), ratio.log())
