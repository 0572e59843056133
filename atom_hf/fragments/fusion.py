"""Fusion of weak learners: one representation that agrees with many channels, learned without labels from their fingerprints.

A free Gaussian for each data point, of mean mu and variance s^2 [N, d], is a channel U, whose fingerprint is fitted to those of
the K learners V_k by gradient ascent on

    vi            mean_k exp(-VI(U, V_k))
    information   mean_k S(U, V_k)
    nmi           mean_k NMI(U, V_k)

in nats. With `bits` (ours), what U may hold is bounded: `nmi` alone lets it collapse, and `information` alone makes it tell all
points apart. Two fusions of all learners need no fit, and stand beside it: the mean of the fingerprints (the message of one
learner drawn at random), and their product (the messages of all).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..errors import AtomError
from ..utils.bounds import COUNT, SEED, Bound, check_bounds
from .calibration import check_bits
from .channel import Channel
from .compare import check_channels, compare_channels
from .fingerprint import Fingerprints

OBJECTIVES = ("vi", "information", "nmi")

OPTIMIZERS = {"adam": (torch.optim.Adam, 0.05), "sgd": (torch.optim.SGD, 3.0)}
"""With the learning rate of each."""

PENALTY = 3.0

TINY = 1e-300

EMPTY = 1e-6  # bits

MOST_BYTES = 8e9  # of the fingerprints of all learners

FEW = 100  # steps: no progress is shown

START_SPREAD = 0.05  # standard deviation of the means at the start, whose variances are 1

NEIGHBORS = 4  # of each point, by the learners, of which continuity is measured

QUANTILE = 0.9

_BOUNDS = {"dimensions": COUNT, "steps": Bound(0, 2**31 - 1, whole=True), "seed": SEED}


@dataclass(frozen=True, eq=False)
class Fusion:
    """A fused representation, and what it holds of what the learners say. Measures are from fingerprints, in bits."""

    channel: Channel
    """Gaussian [N, d]."""
    mean_fingerprint: Channel
    """In closed form: one learner drawn at random for each message."""
    product: Channel
    """In closed form: the messages of all learners together."""
    history: Tensor
    """[steps + 1], in nats: the objective less the penalty for missing `bits`; larger is better."""
    information: float
    """I(X;U)."""
    coverage: float
    """The share of the learners' information that the fusion has: I(U;V_all) / I(V_all)."""
    excess: float
    """What it says beyond the learners: I(U,V_all) - I(V_all)."""
    continuity: float
    """Largest over 90th percentile of the distances between the means of neighbours: well above 1 where it is torn."""
    bits: float | None
    """The bound on information; None without one."""


def fuse(
    channels: Sequence[Channel],
    *,
    objective: str = "vi",
    dimensions: int = 2,
    bits: str | float | None = "best",
    steps: int = 1500,
    optimizer: str = "adam",
    learning_rate: float | None = None,
    start: tuple[Tensor, Tensor] | None = None,
    seed: int = 0,
) -> Fusion:
    """Fuse K weak learners into one representation.

    It holds the fingerprints of all learners: 8 K N^2 bytes.

    Args:
        channels: K channels of the same N points.
        objective: "vi" bounds itself; "information" and "nmi" need `bits`.
        dimensions: d, of the fused representation.
        bits: what "nmi" may not fall below and "information" not exceed: "best" is the largest information of a learner; None
            is as published. "vi" has none.
        steps: of the optimizer.
        optimizer: "adam" or "sgd".
        learning_rate: 0.05 for Adam and 3 for SGD if None.
        start: mean and log variance [N, d]; small random means and variances of 1 if None.
        seed: of the start.

    Returns:
        A `Fusion`.

    Raises:
        AtomError: an argument that is not known or out of range, `bits` of log2 N or more, or fingerprints of more than 8 GB.
    """
    channels = list(channels)
    check_channels(channels)
    _check_size(len(channels), channels[0].points)
    numbers = {"dimensions": dimensions, "steps": steps, "learning_rate": learning_rate, "seed": seed}
    _check(objective, optimizer, numbers)
    limit = _limit(channels, objective, bits)
    device = channels[0].data.device
    mean, log_variance = _start(start, channels[0].points, dimensions, seed, device)
    fingerprints = Fingerprints(channels, device=device)
    whole = _whole(fingerprints, fingerprints.rows)
    learners = _Learners.of(whole)
    method, usual_rate = OPTIMIZERS[optimizer]
    ascent = method([mean, log_variance], lr=usual_rate if learning_rate is None else learning_rate, maximize=True)
    history = []
    for step in tqdm(range(steps + 1), desc="fusing", unit="step", leave=False, disable=steps < FEW):
        value = _value(mean, log_variance, learners, objective, limit)
        history.append(value.detach())
        if step < steps:
            ascent.zero_grad()
            value.backward()
            ascent.step()
    channel = Channel.gaussian(mean, log_variance, name="fusion", ids=channels[0].ids)
    return _describe(channel, channels, whole, torch.stack(history).cpu(), limit)


def continuity(mean: Tensor, neighbors: Tensor) -> float:
    """How torn a representation is: the largest over the 90th percentile of the distances between neighbours.

    Args:
        mean: [N, d].
        neighbors: int64 [N, k], of each point.
    """
    distances = (mean.unsqueeze(1) - mean[neighbors]).norm(dim=2).flatten()
    largest, usual = float(distances.max()), float(distances.quantile(QUANTILE))
    return largest / usual if usual else math.inf if largest else 1.0


class _Learners(NamedTuple):
    """What a fusion is fitted to."""

    deviation: Tensor
    """[N, K, N], (B - m) / (m N)."""
    own: Tensor
    """[K], S of each with itself, in nats."""

    @classmethod
    def of(cls, whole: Tensor) -> "_Learners":
        """From B - 1, [N, K, N]."""
        mean = whole.mean(2, keepdim=True)
        deviation = (whole - mean).div_(mean.add_(1))
        own = deviation.square().mean(2).log1p().mean(0)
        return cls(deviation.div_(whole.shape[2]), own)


def _whole(fingerprints: Fingerprints, rows: Callable[[int, int], Tensor]) -> Tensor:
    """All rows, [N, K, N], a block at a time."""
    points, at_once = fingerprints.points, fingerprints.rows_at_once
    return torch.cat([rows(first, min(first + at_once, points)) for first in range(0, points, at_once)])


def _value(mean: Tensor, log_variance: Tensor, learners: _Learners, objective: str, limit: float | None) -> Tensor:
    """The objective less the penalty, in nats."""
    variance = log_variance.exp()
    other = variance.unsqueeze(1)
    squared = (mean.unsqueeze(1) - mean).square() / (4 * (other + variance))
    spread = (other - variance).square() / (4 * other * variance)
    difference = (-(squared + spread.log1p() / 4).sum(2)).expm1()
    average = difference.mean(1, keepdim=True)
    information = -average.log1p().mean()
    deviation = (difference - average) / (1 + average)
    shared = torch.bmm(learners.deviation, deviation.unsqueeze(2)).squeeze(2).log1p().mean(0)
    own = deviation.square().mean(1).log1p().mean()
    if objective == "vi":
        return (2 * shared - own - learners.own).exp().mean()
    if objective == "information":
        over = 0.0 if limit is None else (information - limit).clamp(min=0)
        return shared.mean() - PENALTY * (over**2 + over)
    under = 0.0 if limit is None else (limit - information).clamp(min=0)
    # A learner that says nothing shares nothing: its NMI is 0.
    return (shared / (own * learners.own).clamp(min=TINY).sqrt()).mean() - PENALTY * under**2


def _describe(
    channel: Channel, channels: Sequence[Channel], whole: Tensor, history: Tensor, limit: float | None
) -> Fusion:
    """The fusion beside the closed forms. `whole`: B - 1 of the learners, [N, K, N]."""
    fingerprints = Fingerprints(channels, device=whole.device)
    distance = _whole(fingerprints, lambda *rows: fingerprints.distances(*rows).sum(1, keepdim=True)).squeeze(1)
    about = {"ids": channels[0].ids}
    mean = Channel.from_fingerprint(whole.mean(1), name="mean fingerprint", **about)
    product = Channel.from_fingerprint((-distance).expm1(), name="product", **about)
    comparison = compare_channels([channel], [product], estimator="fingerprint")
    everything, shared = float(comparison.other_information), float(comparison.shared)
    nearest = distance.fill_diagonal_(math.inf).topk(min(NEIGHBORS, len(distance) - 1), largest=False).indices
    return Fusion(
        channel=channel,
        mean_fingerprint=mean,
        product=product,
        history=history,
        information=float(comparison.information),
        coverage=shared / everything if everything > EMPTY else 0.0,
        excess=float(comparison.joint) - everything,
        continuity=continuity(channel.mean, nearest),
        bits=None if limit is None else limit / math.log(2),
    )


def _start(
    start: tuple[Any, Any] | None, points: int, dimensions: int, seed: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Mean and log variance [N, d], to be learned."""
    if start is None:
        generator = torch.Generator().manual_seed(seed)
        mean = START_SPREAD * torch.randn(points, dimensions, generator=generator, dtype=torch.float64)
        log_variance = torch.zeros_like(mean)
    else:
        begun = Channel.gaussian(*start)
        if begun.points != points:
            raise AtomError(f"start must be of the {points} data points, got {begun.points}")
        mean, log_variance = begun.mean, begun.log_variance
    return tuple(tensor.to(device, copy=True).requires_grad_() for tensor in (mean, log_variance))


def _limit(channels: Sequence[Channel], objective: str, bits: str | float | None) -> float | None:
    """The bound on information in nats; None for no bound."""
    if isinstance(bits, str) and bits != "best":
        raise AtomError(f"bits must be a number, 'best' or None; got {bits!r}")
    if objective == "vi":
        if bits not in ("best", None):
            raise AtomError(f"bits bound the objectives information and nmi; vi bounds itself, got bits={bits}")
        return None
    if bits is None:
        return None
    if bits == "best":
        bits = max(float(compare_channels([channel], estimator="fingerprint").information) for channel in channels)
    else:
        check_bits(bits, channels[0].points)
    return bits * math.log(2)


def _check_size(learners: int, points: int) -> None:
    size = 8 * learners * points**2
    if size > MOST_BYTES:
        raise AtomError(
            f"channels: a fusion holds the fingerprints of all learners, and those of {learners} of {points} data points take "
            f"{size / 1e9:.3g} GB, above {MOST_BYTES / 1e9:g}; give fewer channels or data points"
        )


def _check(objective: str, optimizer: str, numbers: dict[str, float | None]) -> None:
    for name, value, known in (("objective", objective, OBJECTIVES), ("optimizer", optimizer, tuple(OPTIMIZERS))):
        if value not in known:
            raise AtomError(f"{name} must be one of {', '.join(known)}; got {value!r}")
    check_bounds(numbers, _BOUNDS)
    rate = numbers["learning_rate"]
    if rate is not None and not rate > 0:
        raise AtomError(f"learning_rate must be above 0, got {rate}")
