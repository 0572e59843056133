"""Select runs of an ensemble without labels: by the information they share, or by how close they come to what all say."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import AtomError
from .channel import Channel
from .compare import check_channels, compare_channels

DRAWS = 100  # of random runs
RULES = ("shared", "consensus")


def select_runs(channels: Sequence[Channel], k: int, *, by: str = "shared", estimator: str = "auto") -> list[int]:
    """The k runs of an ensemble to keep, without labels.

    Runs that share the most information with the others are good ones, and much alike. Runs that complement each other make
    the better ensemble, which is what `by="consensus"` is for (ours): it takes one run after another, each time the one with
    which the mean probability p of those taken comes closest to that of all runs, q, in the mean of KL(q || p) over points.

    Args:
        channels: one of each run, of the same points, such as a classifier's probabilities (`Channel.soft`).
        k: how many, from 1 to the number of channels.
        by: "shared" for those with the largest mean S to all others, of any kind of channel; "consensus", of soft channels.
        estimator: as of `compare_channels`, for "shared".

    Returns:
        Indices, the first choice first.

    Raises:
        AtomError: more runs than there are, several channels of a run, another rule, channels that are not soft.
    """
    if by not in RULES:
        raise AtomError(f"by must be {' or '.join(map(repr, RULES))}, got {by!r}")
    channels = list(channels)
    check_channels(channels)
    runs = [channel.run for channel in channels if channel.run]
    twice = next((run for run in runs if runs.count(run) > 1), None)
    if twice is not None:
        raise AtomError(f"channels must be one of each run, got {runs.count(twice)} of {twice!r}")
    if not 1 <= k <= len(channels):
        raise AtomError(f"k must be from 1 to the number of runs, {len(channels)}; got {k}")
    if by == "consensus":
        return _consensus(soft_probabilities(channels), k)
    shared = compare_channels(channels, estimator=estimator).shared
    others = shared.fill_diagonal_(0).sum(1) / max(1, len(channels) - 1)
    return others.argsort(descending=True, stable=True)[:k].tolist()


def _consensus(probabilities: Tensor, k: int) -> list[int]:
    """Greedily, the k of probabilities [R, N, K] whose mean is closest to that of all, in KL divergence."""
    aim, tiny = probabilities.mean(0), torch.finfo(probabilities.dtype).tiny
    chosen: list[int] = []
    total = torch.zeros_like(aim)
    for size in range(1, k + 1):
        # The cross-entropy differs from the divergence by the same entropy of `aim` for all.
        means = ((total + probabilities) / size).clamp(min=tiny)
        closeness = (aim * means.log()).sum(2).mean(1)
        closeness[chosen] = -torch.inf
        chosen.append(int(closeness.argmax()))
        total += probabilities[chosen[-1]]
    return chosen


def soft_probabilities(channels: Sequence[Channel]) -> Tensor:
    """Probabilities [R, N, K] of soft channels. Raises `AtomError` for others."""
    if not all(channel.kind == "soft" for channel in channels):
        raise AtomError("channels must be soft, the probabilities of classifiers")
    sizes = {channel.probabilities.shape[1] for channel in channels}
    if len(sizes) > 1:
        raise AtomError(f"channels must be of the same classes, got {' and '.join(map(str, sorted(sizes)))} of them")
    return torch.stack([channel.probabilities for channel in channels])


def ensemble_accuracy(probabilities: Tensor, labels: Tensor) -> float:
    """The accuracy of the mean probability of some runs: probabilities [k, N, K], labels int64 [N]."""
    return float((probabilities.mean(0).argmax(1) == labels).double().mean())


def selection_report(
    channels: Sequence[Channel],
    k: int,
    channel_labels: Tensor,
    probabilities: Tensor,
    labels: Tensor,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, float | list[int]]:
    """The accuracy of ensembles of k runs, selected without labels in two ways, and in three others, on points not used for it.

    Args:
        channels: one soft channel of each run, by which runs are selected.
        k: how many.
        channel_labels: int64 [N], the classes of the points of `channels`, by which the most accurate runs are found.
        probabilities: [runs, n, K], of other points.
        labels: int64 [n], their classes.
        draws: of k random runs.
        seed: of the draws.

    Returns:
        selected, consensus: the runs that `select_runs` takes by either rule; and accuracies of ensembles: by_information and
        by_consensus (of those), random (of k random runs, the mean over draws), all (of all runs), by_labels (of the k most
        accurate runs).

    Raises:
        AtomError: as `select_runs`; channels that are not soft, or probabilities of another number of runs.
    """
    channels = list(channels)
    soft_probabilities(channels)
    selected, consensus = (select_runs(channels, k, by=rule) for rule in RULES)
    if len(probabilities) != len(channels):
        raise AtomError(f"probabilities must be of the {len(channels)} runs, got {len(probabilities)}")
    single = [ensemble_accuracy(channel.probabilities.unsqueeze(0), channel_labels) for channel in channels]
    most_accurate = torch.tensor(single).argsort(descending=True, stable=True)[:k]
    generator = torch.Generator().manual_seed(seed)
    random = [torch.randperm(len(channels), generator=generator)[:k] for _ in range(draws)]
    return {
        "selected": selected,
        "consensus": consensus,
        "by_information": ensemble_accuracy(probabilities[selected], labels),
        "by_consensus": ensemble_accuracy(probabilities[consensus], labels),
        "random": sum(ensemble_accuracy(probabilities[some], labels) for some in random) / draws,
        "all": ensemble_accuracy(probabilities, labels),
        "by_labels": ensemble_accuracy(probabilities[most_accurate], labels),
    }
