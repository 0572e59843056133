"""95 % confidence intervals, the paired t-test, Holm's correction; the effective rank of vectors."""

import math
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

NO_SPREAD = 1e-12  # a standard error at or below it is rounding


class Interval(NamedTuple):
    """A mean and its 95 % t interval."""

    mean: float
    low: float
    high: float


def t_interval(values: Sequence[float] | np.ndarray) -> Interval:
    """The mean of independent values with its 95 % t interval.

    The bounds of fewer than two values are NaN, and so is everything if a value is NaN; values without spread have an interval
    of no width.
    """
    if len(values) < 2:
        mean = float(values[0]) if len(values) else math.nan
        return Interval(mean, math.nan, math.nan)
    return _t_test(values)[0]


def paired_t_test(first: Sequence[float], second: Sequence[float]) -> tuple[Interval, float]:
    """The mean of second - first with its 95 % t interval, and the p value of the paired t-test.

    Both bounds and p are NaN where there is no spread to judge the mean by: with fewer than two pairs, with a value that is
    not finite, and where all pairs have the same difference. If that is 0, p is 1.
    """
    with np.errstate(invalid="ignore"):
        differences = np.subtract(second, first)
    if len(differences) < 2:
        return t_interval(differences), math.nan
    interval, p = _t_test(differences)
    if np.isfinite(differences).all() and differences.std(ddof=1) / math.sqrt(len(differences)) > NO_SPREAD:
        return interval, p
    return (interval, 1.0) if interval.mean == 0 else (Interval(interval.mean, math.nan, math.nan), math.nan)


def _t_test(values: Any) -> tuple[Interval, float]:
    from scipy import stats

    # Values that are nearly identical have an interval that is nearly a point, and those that are not finite have NaN.
    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        warnings.filterwarnings("ignore", "Precision loss occurred", RuntimeWarning)
        test = stats.ttest_1samp(values, 0.0)
        low, high = test.confidence_interval(0.95)
        return Interval(float(np.mean(values)), float(low), float(high)), float(test.pvalue)


def median_interval(values: Sequence[float] | np.ndarray, resamples: int = 10_000) -> tuple[float, float]:
    """The bounds of the 95 % percentile bootstrap interval of the median; the same values always give the same bounds."""
    # Not scipy.stats.bootstrap, which draws in another order: published intervals must not change.
    drawn = np.random.default_rng(0).choice(values, (resamples, len(values)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    return float(low), float(high)


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's (1979) step-down correction of p values, in their order; NaN stays and does not count."""
    # By hand: SciPy does not have it, and statsmodels would be a heavy dependency for eight lines.
    order = sorted((i for i, p in enumerate(ps) if not math.isnan(p)), key=ps.__getitem__)
    corrected, largest = [math.nan] * len(ps), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * ps[i]))
        corrected[i] = largest
    return corrected


def effective_rank(latent: np.ndarray) -> float:
    """exp of the entropy of the normalised singular values of centred latents [n, h] (Roy and Vetterli, 2007, Eq. 4)."""
    from scipy import stats

    if not np.isfinite(latent).all():
        return float("nan")
    values = np.linalg.svd(latent - latent.mean(0), compute_uv=False)
    return float(np.exp(stats.entropy(values))) if values.any() else 1.0
