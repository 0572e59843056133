"""Runs selected without labels."""

import pytest
import torch

from atom_hf import AtomError
from atom_hf.fragments import Channel, compare_channels, select_runs
from atom_hf.fragments.selection import ensemble_accuracy, selection_report


@pytest.fixture(scope="module")
def classifiers():
    """Six classifiers of four classes, the later the worse: probabilities [6, N, 4] of the same points, and their labels."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (120,), generator=draw)
    signal = 3 * torch.nn.functional.one_hot(labels, 4).double()
    noise = torch.tensor([0.7, 1.0, 1.5, 3.0, 5.0, 9.0]).view(6, 1, 1)
    return (signal + noise * torch.randn(6, 120, 4, generator=draw, dtype=torch.float64)).softmax(2), labels


def channels_of(probabilities):
    return [Channel.soft(p, run=f"seed-{seed}") for seed, p in enumerate(probabilities)]


def test_the_runs_that_share_most_with_the_others(classifiers):
    channels = channels_of(classifiers[0])
    shared = compare_channels(channels).shared
    means = [sum(shared[i, j].item() for j in range(6) if j != i) / 5 for i in range(6)]
    assert select_runs(channels, 6) == sorted(range(6), key=means.__getitem__, reverse=True)
    assert set(select_runs(channels, 3)) == {0, 1, 2}
    assert select_runs(channels[::-1], 1) == [5 - select_runs(channels, 1)[0]]
    assert select_runs(channels[:1], 1) == [0]


def test_the_report_has_all_baselines(classifiers):
    probabilities, labels = classifiers
    channels, rest = channels_of(probabilities[:, :60]), probabilities[:, 60:]
    report = selection_report(channels, 2, labels[:60], rest, labels[60:], draws=50)

    def accuracy(runs):
        return (rest[runs].mean(0).argmax(1) == labels[60:]).double().mean().item()

    assert report["selected"] == select_runs(channels, 2)
    assert report["by_information"] == accuracy(report["selected"])
    assert report["all"] == accuracy(list(range(6)))
    single = [ensemble_accuracy(p[None, :60], labels[:60]) for p in probabilities]
    assert report["by_labels"] == accuracy(sorted(range(6), key=single.__getitem__, reverse=True)[:2])
    pairs = [accuracy([i, j]) for i in range(6) for j in range(i)]
    assert report["random"] == pytest.approx(sum(pairs) / 15, abs=0.06)
    assert report["random"] < report["by_information"]


def test_bad_input(classifiers):
    probabilities, labels = classifiers
    channels = channels_of(probabilities)
    for given, k, message in (
        (channels, 7, "k must be from 1 to the number of runs, 6; got 7"),
        (channels, 0, "k must be from 1 to the number of runs, 6; got 0"),
        ([*channels, channels[0]], 2, "channels must be one of each run, got 2 of 'seed-0'"),
        ([], 1, "channels must be one or more of Channel, got none"),
    ):
        with pytest.raises(AtomError) as error:
            select_runs(given, k)
        assert str(error.value) == message
    hard = [Channel.hard(labels, run=str(run)) for run in range(6)]
    with pytest.raises(AtomError, match="channels must be soft, the probabilities of classifiers"):
        selection_report(hard, 2, labels, probabilities, labels)
    with pytest.raises(AtomError, match="probabilities must be of the 6 runs, got 5"):
        selection_report(channels, 2, labels, probabilities[1:], labels)
