"""Faithfulness metrics, from attributions and from the model's values after tokens were masked.

A value is the probability of the class that the model predicts on the whole input. An attribution has a number for each of the
n tokens of a sample: the support that the token gives to that class. Tokens are ranked by it with its sign, the most supportive
first; of equal ones, the first in the text.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

BINS = (0.01, 0.05, 0.1, 0.2, 0.5)
"""The shares of tokens that ERASER masks: arXiv 1911.03429, section 4.2."""

STEPS = 20
"""The most points of a deletion or insertion curve, but for the first."""

Values = Callable[[np.ndarray], np.ndarray]
"""Keep-vectors bool [K, n] -> values [K] of the sample with those tokens alone."""


def ranking(attribution: np.ndarray) -> np.ndarray:
    """The places [n] of the tokens, the most supportive first."""
    return np.argsort(-np.asarray(attribution, dtype=np.float64), kind="stable")


def bin_counts(tokens: int) -> list[int]:
    """How many of n tokens are in each of ERASER's bins: that share rounded up, so at least one."""
    # 0.05 * 20 is 1.0000000000000002 in floating point, and one token.
    return [max(1, math.ceil(share * tokens - 1e-9)) for share in BINS]


def step_counts(tokens: int, steps: int = STEPS) -> list[int]:
    """How many of n tokens are gone at each point of a curve: from 0 to n, one by one or in at most `steps` even steps."""
    return [int(count) for count in np.round(np.linspace(0, tokens, min(tokens, steps) + 1))]


def keep_top(order: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """For each count the keep-vector of the first so many tokens of an order: bool [counts, n]."""
    rank = np.empty(len(order), dtype=int)
    rank[order] = np.arange(len(order))
    return rank[None] < np.asarray(counts)[:, None]


def comprehensiveness(full: float, without: Sequence[float]) -> float:
    """How much the probability falls when the most supportive tokens are masked. More is better.

    ERASER (arXiv 1911.03429), Eq. 1 and the area over the perturbation curve of its section 4.2: the mean over the bins of
    m(x)_j - m(x without r_k)_j. (The paper's sum begins with an empty bin, whose term is 0: its number is 5/6 of this one.)

    Args:
        full: m(x)_j, of the whole input.
        without: m(x without r_k)_j, for each bin.
    """
    return float(np.mean(full - np.asarray(without, dtype=np.float64)))


def sufficiency(full: float, alone: Sequence[float]) -> float:
    """How much the probability falls when the most supportive tokens alone are kept. Less is better; below 0 it rises.

    ERASER (arXiv 1911.03429), Eq. 2: the mean over the bins of m(x)_j - m(r_k)_j.

    Args:
        full: m(x)_j, of the whole input.
        alone: m(r_k)_j, for each bin.
    """
    return float(np.mean(full - np.asarray(alone, dtype=np.float64)))


def area(curve: Sequence[float], shares: Sequence[float] | None = None) -> float:
    """The area under a curve of values over the share of tokens, 0 to 1, by trapezoids.

    RISE (arXiv 1806.07421), section 4.1. Under a deletion curve (tokens go, the most supportive first) less is better, under an
    insertion curve (they come, in the same order, to an input with none) more is.

    Args:
        curve: values, one at each share.
        shares: ascending; evenly from 0 to 1 if not given.
    """
    from scipy import integrate

    shares = np.linspace(0, 1, len(curve)) if shares is None else np.asarray(shares, dtype=np.float64)
    return float(integrate.trapezoid(np.asarray(curve, dtype=np.float64), shares))


def masking_sets(attribution: np.ndarray, steps: int = STEPS) -> np.ndarray:
    """The keep-vectors bool [K, n] that `masking_metrics` asks for, in its order."""
    order = ranking(attribution)
    kept = keep_top(order, bin_counts(len(order)))
    inserted = keep_top(order, step_counts(len(order), steps))
    return np.concatenate([np.ones((1, len(order)), bool), ~kept, kept, ~inserted, inserted])


def masking_metrics(attribution: np.ndarray, values: Values, steps: int = STEPS) -> dict[str, float | list[float]]:
    """Comprehensiveness, sufficiency, and the deletion and insertion curves with their areas, of one sample.

    Args:
        attribution: [n].
        values: the sample's values.
        steps: the most points of a curve, but for the first.
    """
    bins, points = bin_counts(len(attribution)), step_counts(len(attribution), steps)
    found = values(masking_sets(attribution, steps))
    full, without, alone, deletion, insertion = np.split(found, np.cumsum([1, len(bins), len(bins), len(points)]))
    shares = np.asarray(points) / len(attribution)
    return {
        "comprehensiveness": comprehensiveness(full[0], without),
        "sufficiency": sufficiency(full[0], alone),
        "deletion": area(deletion, shares),
        "insertion": area(insertion, shares),
        "deletion_curve": [float(value) for value in deletion],
        "insertion_curve": [float(value) for value in insertion],
    }


def random_subsets(tokens: int, count: int, seed: int) -> np.ndarray:
    """`count` sets of tokens to switch off, bool [count, n]: of a size drawn evenly from 1 to n, then evenly of that size."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, tokens + 1, count)
    return rng.random((count, tokens)).argsort(1).argsort(1) < sizes[:, None]


def infidelity(attribution: np.ndarray, values: Values, off: np.ndarray, *, normalize: bool) -> float:
    """The mean squared error of an attribution as a prediction of what switching off tokens changes. Less is better.

    Yeh et al. (arXiv 1901.09392), definition 2.1, by `captum.metrics.infidelity`: E_I (I . a - (f(x) - f(x - I)))^2, where x is
    the keep-vector, all ones, and I is 1 at the tokens of a random set.

    Args:
        attribution: [n].
        values: the sample's values.
        off: the sets I, bool [K, n].
        normalize: the attribution is scaled first as fits best: for those whose scale says nothing. The best factor may be
            negative, so that a sign that is wrong throughout goes unpunished; Captum's `normalize`.
    """
    from captum import metrics

    kept = torch.ones(1, off.shape[1], dtype=torch.float64)

    def forward(keep: Tensor) -> Tensor:
        return torch.from_numpy(values(keep.numpy() > 0.5).astype(np.float64))

    def perturb(inputs: Tensor) -> tuple[Tensor, Tensor]:
        perturbation = torch.from_numpy(off.astype(np.float64))
        return perturbation, inputs - perturbation

    given = torch.from_numpy(np.asarray(attribution, dtype=np.float64))[None]
    # Captum divides by the mean square of I . a.
    normalize = normalize and bool((given != 0).any())
    found = metrics.infidelity(forward, perturb, kept, given, n_perturb_samples=len(off), normalize=normalize)
    return float(found[0])


def infidelity_of(accounts: Sequence[float], changes: Sequence[float], *, normalize: bool = False) -> float:
    """`infidelity` of what is known already: I . a and f(x) - f(x - I), for each of the sets I."""
    account, change = np.asarray(accounts, dtype=np.float64), np.asarray(changes, dtype=np.float64)
    if normalize and account.any():
        account = account * (account @ change) / (account @ account)
    return float(np.mean((account - change) ** 2))


def sensitivity_max(
    explain: Callable[[Tensor], Tensor], points: Tensor, *, radius: float, samples: int = 4, seed: int = 0
) -> Tensor:
    """How much an attribution changes, at most, when its input changes a little. Less is better.

    Yeh et al. (arXiv 1901.09392), definition 3.1, by `captum.metrics.sensitivity_max`: the largest of ||a(x + d) - a(x)|| /
    ||a(x)|| over d drawn evenly from a cube of half-width `radius`.

    Args:
        explain: x [B, ...] -> attributions [B, N] without NaN.
        points: x, word embeddings or pixels.
        radius: half of the cube's width.
        samples: how many d are drawn for each sample.
        seed: of that drawing.

    Returns:
        [B].
    """
    from captum import metrics

    generator = torch.Generator().manual_seed(seed)

    def perturb(x: Tensor) -> Tensor:
        noise = torch.rand(x.shape, generator=generator) * 2 - 1
        return x + radius * noise.to(x)

    def explained(x: Tensor | tuple[Tensor, ...]) -> tuple[Tensor]:
        return (explain(x[0] if isinstance(x, tuple) else x),)  # Captum iterates over what it gets

    return metrics.sensitivity_max(explained, points, perturb, n_perturb_samples=samples)


def sensitivity_of(moved: Sequence[Sequence[float]], given: Sequence[float]) -> float:
    """`sensitivity_max` of what is known already: the attributions [K, n] of moved inputs, and that of the input itself [n]."""
    moved, given = np.asarray(moved, dtype=np.float64), np.asarray(given, dtype=np.float64)
    return float(np.linalg.norm(moved - given, axis=1).max() / (np.linalg.norm(given) or 1.0))


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float:
    """Spearman's, of two attributions of the same tokens: 1 same order, -1 the reverse; NaN where one is constant."""
    from scipy import stats

    one, other = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if len(one) < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return math.nan
    return float(stats.spearmanr(one, other).statistic)


def agreement(attributions: Sequence[Sequence[float]]) -> float:
    """The mean rank correlation of the attributions of one sample [models, n], over each pair of models."""
    pairs = [(a, b) for i, a in enumerate(attributions) for b in attributions[i + 1 :]]
    return mean([rank_correlation(a, b) for a, b in pairs])


def mean(values: Sequence[float]) -> float:
    """Of the values that are not NaN; NaN of none."""
    found = [value for value in values if not math.isnan(value)]
    return float(np.mean(found)) if found else math.nan


def randomization(original: Sequence[float], randomized: Sequence[float]) -> dict[str, float]:
    """How like an attribution is to that of the model with random parameters. Nearer 0 is better.

    Adebayo et al. (arXiv 1810.03292), section 3.2: Spearman's rank correlation of the two, and of their absolute values.
    """
    one, other = np.asarray(original, dtype=np.float64), np.asarray(randomized, dtype=np.float64)
    return {"signed": rank_correlation(one, other), "absolute": rank_correlation(np.abs(one), np.abs(other))}
