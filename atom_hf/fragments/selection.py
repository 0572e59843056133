"""Select runs of an ensemble without labels: those that share the most information with the others."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import AtomError
from .channel import Channel
from .compare import check_channels, compare_channels

DRAWS = 100  # of random runs


def select_runs(channels: Sequence[Channel], k: int, *, estimator: str = "auto") -> list[int]:
    """The k runs with the largest mean S to all others.

    Args:
        channels: one of each run, of the same points, such as a classifier's probabilities (`Channel.soft`).
        k: how many, from 1 to the number of channels.
        estimator: as of `compare_channels`.

    Returns:
        Indices, the largest mean first.

    Raises:
        AtomError: more runs than there are, or several channels of a run.
    """
    channels = list(channels)
    check_channels(channels)
    runs = [channel.run for channel in channels if channel.run]
    twice = next((run for run in runs if runs.count(run) > 1), None)
    if twice is not None:
        raise AtomError(f"channels must be one of each run, got {runs.count(twice)} of {twice!r}")
    if not 1 <= k <= len(channels):
        raise AtomError(f"k must be from 1 to the number of runs, {len(channels)}; got {k}")
    shared = compare_channels(channels, estimator=estimator).shared
    others = shared.fill_diagonal_(0).sum(1) / max(1, len(channels) - 1)
    return others.argsort(descending=True, stable=True)[:k].tolist()


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
    """The accuracy of ensembles of k runs, selected without labels and in three other ways, on points not used to select.

    Args:
        channels: one soft channel of each run, by which runs are selected.
        k: how many.
        channel_labels: int64 [N], the classes of the points of `channels`, by which the most accurate runs are found.
        probabilities: [runs, n, K], of other points.
        labels: int64 [n], their classes.
        draws: of k random runs.
        seed: of the draws.

    Returns:
        selected: the runs that `select_runs` takes; and accuracies of ensembles: by_information (of the selected), random (of k
        random runs, the mean over draws), all (of all runs), by_labels (of the k most accurate runs).

    Raises:
        AtomError: as `select_runs`; channels that are not soft, or probabilities of another number of runs.
    """
    channels = list(channels)
    selected = select_runs(channels, k)
    if not all(channel.kind == "soft" for channel in channels):
        raise AtomError("channels must be soft, the probabilities of classifiers")
    if len(probabilities) != len(channels):
        raise AtomError(f"probabilities must be of the {len(channels)} runs, got {len(probabilities)}")
    single = [ensemble_accuracy(channel.probabilities.unsqueeze(0), channel_labels) for channel in channels]
    most_accurate = torch.tensor(single).argsort(descending=True, stable=True)[:k]
    generator = torch.Generator().manual_seed(seed)
    random = [torch.randperm(len(channels), generator=generator)[:k] for _ in range(draws)]
    return {
        "selected": selected,
        "by_information": ensemble_accuracy(probabilities[selected], labels),
        "random": sum(ensemble_accuracy(probabilities[some], labels) for some in random) / draws,
        "all": ensemble_accuracy(probabilities, labels),
        "by_labels": ensemble_accuracy(probabilities[most_accurate], labels),
    }
