"""Channels of every kind, and the measures of arXiv 2405.21042 in loops, as their formulas read."""

import math

import numpy as np
import torch

from atom_hf.fragments import Channel


def random_channels(points, seed=0):
    """A channel of each kind, by its name, and two more of a kind that are stacked."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    factors = normal(points, 2, 2)
    values = normal(points)
    covariance = torch.tensor([[0.5, 0.2], [0.2, 0.3]], dtype=torch.float64)
    return {
        "one dimension": Channel.gaussian(normal(points, 1), normal(points, 1) - 1),
        "three dimensions": Channel.gaussian(normal(points, 3), normal(points, 3) / 2),
        "full": Channel.gaussian(normal(points, 2), covariance=factors @ factors.mT + 0.2 * torch.eye(2)),
        "unit": Channel.deterministic(normal(points), noise=0.4),
        "soft": Channel.soft((2 * normal(points, 4)).softmax(1)),
        "shared": Channel.gaussian(normal(points, 2), covariance=covariance),
        "hard": Channel.hard(torch.randint(0, 3, (points,), generator=draw)),
        "another of three": Channel.gaussian(normal(points, 3), normal(points, 3) / 2),
        "space": Channel.deterministic(normal(points, 4), noise=0.9),
        "fingerprint": Channel.from_fingerprint((-(values.unsqueeze(1) - values).square()).expm1()),
    }


def naive_distance(channel, i, j):
    """The Bhattacharyya distance of two points, in nats."""
    if channel.kind == "fingerprint":
        return -math.log1p(float(channel.fingerprint[i, j]))
    if channel.kind == "hard":
        return 0.0 if channel.labels[i] == channel.labels[j] else math.inf
    if channel.kind == "soft":
        p, q = channel.probabilities[i].tolist(), channel.probabilities[j].tolist()
        return -math.log(sum(math.sqrt(a * b) for a, b in zip(p, q, strict=True)))
    d = (channel.mean[i] - channel.mean[j]).numpy()
    one, other = (naive_covariance(channel, point) for point in (i, j))
    middle = (one + other) / 2
    logs = [np.linalg.slogdet(s)[1] for s in (middle, one, other)]
    return d @ np.linalg.inv(middle) @ d / 8 + (logs[0] - logs[1] / 2 - logs[2] / 2) / 2


def naive_covariance(channel, point):
    """The covariance matrix of one point's messages."""
    if channel.kind == "deterministic":
        return channel.noise**2 * np.eye(channel.mean.shape[1])
    if channel.covariance is None:
        return np.diag(np.exp(channel.log_variance[point].numpy()))
    return (channel.covariance if channel.covariance.dim() == 2 else channel.covariance[point]).numpy()


def naive_fingerprint(channel):
    """B, [N, N]."""
    points = range(channel.points)
    return np.array([[math.exp(-naive_distance(channel, i, j)) for j in points] for i in points])


def naive_information(fingerprint):
    """I(X;U) in bits."""
    return -np.mean([math.log2(np.mean(row)) for row in fingerprint])


def naive_shared(one, other):
    """S in bits."""
    return np.mean([math.log2(np.mean(u * v) / (np.mean(u) * np.mean(v))) for u, v in zip(one, other, strict=True)])


def naive_measures(channels, others):
    """information [C], and shared, nmi, vi [C, D], in bits: a function of two whole fingerprints for each pair."""
    left, right = ([naive_fingerprint(channel) for channel in side] for side in (channels, others))
    shared = np.array([[naive_shared(u, v) for v in right] for u in left])
    own, other = ([naive_shared(u, u) for u in side] for side in (left, right))
    return {
        "information": np.array([naive_information(u) for u in left]),
        "shared": shared,
        "nmi": shared / np.sqrt(np.outer(own, other)),
        "vi": np.add.outer(own, other) - 2 * shared,
    }


def ensemble(runs, factors, own, points=80, seed=0, noise=0.3):
    """Channels of some runs: each has one noisy copy of each of the factors [N], and `own` that no other run has."""
    draw = torch.Generator().manual_seed(seed)

    def normal():
        return torch.randn(points, generator=draw, dtype=torch.float64)

    known = [normal() for _ in range(factors)]
    channels = []
    for run in range(runs):
        learned = [factor + noise * normal() for factor in known] + [normal() for _ in range(own)]
        order = torch.randperm(len(learned), generator=draw).tolist()
        channels += [
            Channel.deterministic(learned[place], noise=0.5, name=f"factor {place}", run=f"run {run}")
            for place in order
        ]
    return channels, known
