"""Intervals and tests by their formulas, and what they are of too few, equal or missing values."""

import math

import numpy as np
import pytest
from scipy import stats

from atom_hf.utils.statistics import effective_rank, holm, median_interval, paired_t_test, t_interval

NAN, INF = math.nan, math.inf


def naive_t_interval(values):
    n = len(values)
    mean = sum(values) / n
    half = stats.t.ppf(0.975, n - 1) * math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1) / n)
    return mean, mean - half, mean + half


def naive_p(values):
    mean, low, _ = naive_t_interval(values)
    error = (mean - low) / stats.t.ppf(0.975, len(values) - 1)
    return 2 * stats.t.sf(abs(mean) / error, len(values) - 1)


# The t interval


@pytest.mark.parametrize("count", [2, 3, 10, 200])
def test_the_interval_is_students(count):
    values = np.random.default_rng(count).normal(0.3, 2, count)
    assert t_interval(values) == t_interval(values.tolist()) == pytest.approx(naive_t_interval(values))


def test_the_interval_by_hand():
    # Mean 2, standard deviation 1; t(2) at 97.5 % is 4.302653.
    half = 4.302652729911275 / math.sqrt(3)
    assert t_interval([1.0, 2.0, 3.0]) == pytest.approx((2.0, 2.0 - half, 2.0 + half))


def test_fewer_than_two_values_have_no_bounds():
    assert t_interval([2.0]) == pytest.approx((2.0, NAN, NAN), nan_ok=True)
    assert t_interval([]) == pytest.approx((NAN, NAN, NAN), nan_ok=True)


@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, 1e6])
def test_values_without_spread_have_an_interval_of_no_width(value):
    assert t_interval([value] * 4) == pytest.approx((value, value, value))


def test_values_that_are_nearly_equal_have_a_narrow_interval():
    near = [0.25, 0.25 + 2**-54]
    assert t_interval(near) == pytest.approx(naive_t_interval(near), rel=1e-12)


@pytest.mark.parametrize("values", [[1.0, NAN, 2.0], [NAN, NAN], [INF, -INF, 1.0]])
def test_a_value_that_is_none_leaves_no_interval(values):
    assert all(map(math.isnan, t_interval(values)))


def test_an_infinite_value_leaves_no_bounds():
    assert t_interval([1.0, INF, 2.0]) == pytest.approx((INF, NAN, NAN), nan_ok=True)


# The paired test


@pytest.mark.parametrize("count", [2, 3, 10, 200])
def test_the_paired_test_is_that_of_the_differences(count):
    first, second = np.random.default_rng(count).normal([[0.0], [0.2]], 1, (2, count)).tolist()
    differences = [b - a for a, b in zip(first, second, strict=True)]
    found, p = paired_t_test(first, second)
    assert found == pytest.approx(naive_t_interval(differences)) and p == pytest.approx(naive_p(differences))
    related = stats.ttest_rel(second, first)
    assert (*found[1:], p) == pytest.approx((*related.confidence_interval(), related.pvalue))
    # The null hypothesis is rejected just where the interval excludes 0.
    assert (p < 0.05) == (not found.low <= 0 <= found.high)


def test_a_difference_without_spread_is_not_tested():
    for second in ([0.5, 1.5, 2.5], [0.9, 1.9, 2.9]):  # the second with rounding
        found, p = paired_t_test([1.0, 2.0, 3.0], second)
        assert found.mean == pytest.approx(second[0] - 1) and all(map(math.isnan, (found.low, found.high, p)))


def test_equal_pairs_have_a_p_of_one():
    assert paired_t_test([1.0, 2.0], [1.0, 2.0]) == ((0.0, 0.0, 0.0), 1.0)


def test_one_pair_is_not_tested():
    assert [*paired_t_test([1.0], [1.5])[0]] == pytest.approx([0.5, NAN, NAN], nan_ok=True)
    assert math.isnan(paired_t_test([1.0], [1.0])[1]) and math.isnan(paired_t_test([], [])[1])


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_a_pair_that_is_not_finite_leaves_no_test(bad):
    found, p = paired_t_test([1.0, 2.0, 3.0], [0.5, bad, 2.4])
    assert not math.isfinite(found.mean) and all(map(math.isnan, (found.low, found.high, p)))
    assert math.isnan(paired_t_test([1.0, INF, 3.0], [0.5, INF, 2.4])[0].mean)


# The bootstrap


def test_the_bootstrap_is_over_resampled_medians():
    values = np.random.default_rng(3).normal(size=7).tolist()
    rng = np.random.default_rng(0)
    medians = sorted(np.median(rng.choice(values, 7)) for _ in range(400))
    # Between the 10th and 11th, and the 390th and 391st, at 0.975 and 0.025 of the way.
    low = medians[9] + 0.975 * (medians[10] - medians[9])
    high = medians[389] + 0.025 * (medians[390] - medians[389])
    assert median_interval(values, 400) == pytest.approx((low, high))


def test_the_draws_of_the_bootstrap_are_always_the_same():
    """Published intervals depend on them."""
    assert median_interval([1.1, 1.0, 1.5, 1.2, 1.3]) == median_interval([1.1, 1.0, 1.5, 1.2, 1.3])
    assert median_interval([0.1, 0.2, 0.4, 0.8, 1.6, 3.2], 11) == pytest.approx((0.3375, 1.6))


def test_the_median_of_equal_values_has_no_width():
    assert median_interval([2.0, 2.0, 2.0]) == (2.0, 2.0) == median_interval([2.0])


def test_the_median_of_a_missing_value_has_no_interval():
    assert all(map(math.isnan, median_interval([1.0, NAN] * 20)))


# Holm


def naive_holm(ps):
    """The smallest level at which the step-down test rejects: by trying every level that can be the answer."""
    n = len(ps)

    def rejected(level):
        done = set()
        for rank, i in enumerate(sorted(range(n), key=lambda i: ps[i])):
            if ps[i] * (n - rank) > level * (1 + 1e-12):
                break
            done.add(i)
        return done

    levels = sorted({min(1.0, p * factor) for p in ps for factor in range(1, n + 1)} | {1.0})
    return [min((level for level in levels if i in rejected(level)), default=1.0) for i in range(n)]


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == [] and holm([0.2]) == [0.2] and holm([0.9, 0.8]) == [1.0, 1.0]


@pytest.mark.parametrize("seed", range(5))
def test_holm_is_the_step_down_test(seed):
    rng = np.random.default_rng(seed)
    ps = (rng.random(7) ** 3).tolist()
    ps[3] = ps[1]
    assert holm(ps) == pytest.approx(naive_holm(ps))


def test_a_p_that_is_nan_stays_and_does_not_count():
    found = holm([0.01, math.nan, 0.02])
    assert found[::2] == [0.02, 0.02] and math.isnan(found[1])


def test_effective_rank():
    values = np.random.default_rng(0).standard_normal((500, 5)) * [1, 0.2, 0.05, 0, 3]
    eigenvalues = np.linalg.eigvalsh(np.cov(values.T)).clip(0)
    shares = np.sqrt(eigenvalues) / np.sqrt(eigenvalues).sum()
    assert effective_rank(values) == pytest.approx(math.exp(-sum(p * math.log(p) for p in shares if p > 0)), rel=1e-4)
    assert effective_rank(np.outer(np.arange(9.0), [1, 2, 3])) == pytest.approx(1)
    assert effective_rank(np.concatenate([np.eye(6), -np.eye(6)])) == pytest.approx(6)
    assert effective_rank(np.ones((5, 3))) == 1 and math.isnan(effective_rank(np.array([[1, NAN], [0, 1]])))
