"""Statistics over runs, and hotspots by regularization."""

import math

import pytest
import torch

from atom_hf import AtomError
from atom_hf.fragments import Channel, by_regularization
from atom_hf.fragments.ensemble import mean_over_runs, median_nearest
from helpers.fragments import ensemble

RUNS = ["a", "a", "b", "c", "c"]
VALUES = torch.rand(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def jackknife(statistic):
    without = [statistic([i for i, name in enumerate(RUNS) if name != run]) for run in "abc"]
    mean = sum(without) / 3
    return math.sqrt(2 / 3 * sum((value - mean) ** 2 for value in without))


def test_a_mean_over_pairs_of_runs():
    def mean(kept):
        pairs = [VALUES[i, j].item() for i in kept for j in kept if RUNS[i] != RUNS[j]]
        return sum(pairs) / len(pairs)

    assert mean_over_runs(VALUES, RUNS) == pytest.approx((mean(range(5)), jackknife(mean)))


def test_the_nearest_channel_of_another_run():
    def median(kept):
        nearest = [max(VALUES[i, j].item() for j in kept if RUNS[i] != RUNS[j]) for i in kept]
        return sorted(nearest)[(len(nearest) - 1) // 2]

    assert median_nearest(VALUES, RUNS) == pytest.approx((median(range(5)), jackknife(median)))


def test_too_few_runs_have_no_mean_or_no_error():
    assert all(map(math.isnan, mean_over_runs(VALUES, ["a"] * 5)))
    mean, error = median_nearest(VALUES, ["a", "a", "b", "b", "b"])
    assert 0 < mean < 1 and math.isnan(error)


def test_errors_are_true_deviations_where_pairs_share_runs():
    draw, found = torch.Generator().manual_seed(0), []
    for _ in range(300):
        effects = torch.randn(10, 1, generator=draw, dtype=torch.float64)
        found.append(mean_over_runs(effects + effects.T, [str(run) for run in range(10)]))
    means, errors = torch.tensor(found).T
    assert (errors.square().mean().sqrt() / means.std()).item() == pytest.approx(1, abs=0.15)


def test_each_strength_has_its_row():
    strong, _ = ensemble(runs=5, factors=2, own=1)
    silent = [
        Channel.gaussian(torch.zeros(80, 1), torch.zeros(80, 1), name=c.name, run=c.run.replace("run", "silent"))
        for c in strong
    ]
    strengths = {c.run: 4.0 for c in silent} | {c.run: 1.0 for c in strong}
    none, some = by_regularization([*silent, *strong], strengths)[::-1]
    assert some == {
        "strength": 1.0,
        "runs": 5,
        "channels": 15,
        "informative": 15,
        "hotspots": 2,
        "size": pytest.approx(5, abs=0.51),
        "bits": pytest.approx(1.0, abs=0.2),
        "nearest": pytest.approx(0.75, abs=0.2),
        "nearest_error": pytest.approx(0.02, abs=0.02),
    }
    assert none == {
        "strength": 4.0,
        "runs": 5,
        "channels": 15,
        "informative": 0,
        "hotspots": 0,
        "size": None,
        "bits": None,
        "nearest": None,
        "nearest_error": None,
    }


def test_a_run_without_a_strength():
    channels, _ = ensemble(runs=2, factors=1, own=0)
    with pytest.raises(AtomError, match="strengths must have a number for each run; 'run 1' has none"):
        by_regularization(channels, {"run 0": 1.0})
