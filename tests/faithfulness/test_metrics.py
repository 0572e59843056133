"""Metrics against their definitions, one token at a time, and on a function whose attribution is known."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from atom_hf.faithfulness import metrics

WEIGHTS = np.array([0.05, -0.1, 0.3, 0.0, 0.12, -0.02, 0.2, 0.01, -0.04, 0.08])


def linear(weights=WEIGHTS, start=0.3):
    """Values of a sample each of whose tokens adds its weight."""
    return lambda keep: start + keep @ weights


def masking_metrics_by_hand(attribution, value, steps):
    """The four measures of one sample, by sets of tokens."""
    tokens = len(attribution)
    order = sorted(range(tokens), key=lambda token: (-attribution[token], token))

    def of(kept):
        return value(np.array([[token in kept for token in range(tokens)]]))[0]

    everything = set(range(tokens))
    counts = [max(1, math.ceil(tokens * percent / 100)) for percent in (1, 5, 10, 20, 50)]
    gone = [of(everything) - of(everything - set(order[:count])) for count in counts]
    alone = [of(everything) - of(set(order[:count])) for count in counts]
    points = [round(i * tokens / min(tokens, steps)) for i in range(min(tokens, steps) + 1)]
    areas = []
    for kept in ([everything - set(order[:k]) for k in points], [set(order[:k]) for k in points]):
        curve = [of(part) for part in kept]
        widths = [(b - a) / tokens for a, b in itertools.pairwise(points)]
        areas.append(sum(width * (a + b) / 2 for width, (a, b) in zip(widths, itertools.pairwise(curve), strict=True)))
    return {
        "comprehensiveness": np.mean(gone),
        "sufficiency": np.mean(alone),
        "deletion": areas[0],
        "insertion": areas[1],
    }


@pytest.mark.parametrize("tokens", [1, 2, 7, 20, 33, 150])
@pytest.mark.parametrize("steps", [4, 20])
def test_masking_metrics_are_their_definition(tokens, steps):
    rng = np.random.default_rng(tokens)
    attribution, mixing = rng.normal(size=tokens).round(1), rng.normal(size=(tokens, 3))

    def value(keep):
        return 1 / (1 + np.exp(-np.tanh(keep @ mixing).sum(1)))

    found = metrics.masking_metrics(attribution, value, steps)
    for name, expected in masking_metrics_by_hand(attribution.tolist(), value, steps).items():
        assert found[name] == pytest.approx(expected, abs=1e-12), name
    curves = found["deletion_curve"], found["insertion_curve"]
    assert [len(curve) for curve in curves] == [min(tokens, steps) + 1] * 2
    assert curves[0][0] == curves[1][-1] and curves[0][-1] == curves[1][0]


def test_a_bin_has_at_least_one_token_and_no_half_ones():
    assert metrics.bin_counts(3) == [1, 1, 1, 1, 2]
    assert metrics.bin_counts(20) == [1, 1, 2, 4, 10]
    assert metrics.bin_counts(100) == [1, 5, 10, 20, 50]
    assert metrics.bin_counts(101) == [2, 6, 11, 21, 51]


def test_of_a_known_function_the_truth_is_best_and_its_reverse_worst():
    """Oracle > random (on average) > inverse, in each measure in its own direction."""
    rng = np.random.default_rng(0)
    off = metrics.random_subsets(len(WEIGHTS), 200, seed=0)

    def measured(attribution):
        return metrics.masking_metrics(attribution, linear()) | {
            "infidelity": metrics.infidelity(attribution, linear(), off, normalize=False)
        }

    truth, reverse = measured(WEIGHTS), measured(-WEIGHTS)
    chance = [measured(rng.permutation(WEIGHTS)) for _ in range(40)]
    for name, sign in (
        ("comprehensiveness", 1),
        ("sufficiency", -1),
        ("deletion", -1),
        ("insertion", 1),
        ("infidelity", -1),
    ):
        middle = np.mean([found[name] for found in chance])
        assert sign * truth[name] > sign * middle > sign * reverse[name], name
    assert truth["infidelity"] == pytest.approx(0, abs=1e-12)
    half = metrics.infidelity(WEIGHTS / 2, linear(), off, normalize=False)
    assert half > 1e-4 and metrics.infidelity(WEIGHTS / 2, linear(), off, normalize=True) == pytest.approx(0, abs=1e-12)


def test_infidelity_is_its_definition():
    rng = np.random.default_rng(1)
    attribution, off = rng.normal(size=6), metrics.random_subsets(6, 25, seed=3)

    def value(keep):
        return np.tanh(keep @ np.arange(6) / 5)

    for normalize in (False, True):
        accounts = [sum(a for a, gone in zip(attribution, row, strict=True) if gone) for row in off]
        changes = [value(np.ones((1, 6)))[0] - value(~row[None])[0] for row in off]
        scale = 1.0
        if normalize:
            pairs = list(zip(accounts, changes, strict=True))
            scale = np.mean([a * c for a, c in pairs]) / np.mean([a * a for a, _ in pairs])
        expected = np.mean([(scale * a - c) ** 2 for a, c in zip(accounts, changes, strict=True)])
        assert metrics.infidelity(attribution, value, off, normalize=normalize) == pytest.approx(expected)
        assert metrics.infidelity_of(accounts, changes, normalize=normalize) == pytest.approx(expected)
    nothing = metrics.infidelity(np.zeros(6), value, off, normalize=True)
    assert nothing == pytest.approx(np.mean(np.square(changes)))


def test_random_subsets_are_of_every_size_and_never_empty():
    off = metrics.random_subsets(5, 4000, seed=0)
    sizes, shares = np.bincount(off.sum(1), minlength=6) / 4000, off.mean(0)
    assert sizes[0] == 0 and np.allclose(sizes[1:], 0.2, atol=0.03) and np.allclose(shares, 0.6, atol=0.04)
    assert (off == metrics.random_subsets(5, 4000, seed=0)).all()
    assert (off != metrics.random_subsets(5, 4000, seed=1)).any()


def test_sensitivity_is_captums():
    torch.manual_seed(0)
    mixing, points = torch.randn(5, 5), torch.randn(3, 4, 5)

    def explain(x):
        return torch.sin(x @ mixing).sum(-1)

    found = metrics.sensitivity_max(explain, points, radius=0.1, samples=6, seed=2)
    generator, expected = torch.Generator().manual_seed(2), []
    noise = (torch.rand(18, 4, 5, generator=generator) * 2 - 1) * 0.1
    for sample in range(3):
        given = explain(points[sample])
        moved = [explain(points[sample] + noise[6 * sample + i]) for i in range(6)]
        expected.append(max(float((each - given).norm() / given.norm()) for each in moved))
        assert metrics.sensitivity_of([each.tolist() for each in moved], given.tolist()) == pytest.approx(expected[-1])
    assert found.tolist() == pytest.approx(expected, rel=1e-5)
    twice = metrics.sensitivity_max(explain, points, radius=0.1, samples=6, seed=2)
    assert torch.equal(found, twice)
    assert metrics.sensitivity_max(lambda x: torch.ones(len(x), 4), points, radius=0.1).tolist() == [0, 0, 0]


def test_rank_correlations():
    rng = np.random.default_rng(0)
    given = [rng.normal(size=9).tolist() for _ in range(3)]
    expected = [stats.spearmanr(a, b).statistic for a, b in itertools.combinations(given, 2)]
    assert metrics.agreement(given) == pytest.approx(np.mean(expected))
    assert metrics.agreement([given[0], (np.array(given[0]) ** 3).tolist()]) == pytest.approx(1)
    assert math.isnan(metrics.agreement([given[0], [1.0] * 9])) and math.isnan(metrics.rank_correlation([1], [2]))
    one, other = np.array(given[0]), -np.array(given[0])
    assert metrics.randomization(one, other) == pytest.approx({"signed": -1, "absolute": 1})


def test_an_area_is_by_trapezoids():
    assert metrics.area([1, 0]) == pytest.approx(0.5)
    assert metrics.area([1, 1, 0], [0, 0.25, 1]) == pytest.approx(0.25 + 0.375)
