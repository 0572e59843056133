"""What a measurement takes, before it starts: forward passes, and seconds by the time of a few of them."""

import statistics
import time
from typing import Any, NamedTuple

import numpy as np
import torch

from . import metrics
from .classifier import Classifier
from .cost import FEW, HUNDREDS, MANY, MANY_PASSES, count_passes
from .measure import COST_SAMPLES
from .methods import KERNEL_SAMPLES, PERMUTATIONS, Method
from .randomization import cascade

TRIED = 8
"""How many samples are tried."""

MOVED = 5
"""How often a method is asked for one sample's sensitivity."""


class Estimate(NamedTuple):
    """What measuring one model takes."""

    passes: float
    """Single samples that go through the model; a backward pass counts as two forward passes."""
    seconds: float


def estimate(
    classifier: Classifier, methods: dict[Method, int], rows: Any, *, steps: int, perturbations: int, checks: int
) -> Estimate:
    """What measuring some methods on the rows of a data set takes, if the others are like the first few.

    Args:
        classifier: the model.
        methods: under how many masking strategies each is to be measured.
        rows: of the data set.
        steps: the most points of a curve.
        perturbations: how many sets infidelity masks.
        checks: how many samples are checked for sensitivity and by random parameters.
    """
    if not methods:
        return Estimate(0, 0)
    tried = [rows[number] for number in range(min(TRIED, len(rows)))]
    inputs = classifier.encode(tried)
    tokens, (target, _) = classifier.tokens(inputs), classifier.predict(inputs)
    count = max(1, round(tokens.sum(1).float().mean().item()))
    asked = len(np.unique(metrics.masking_sets(np.arange(count), steps), axis=0))
    passes = max(methods.values()) * len(rows) * perturbations
    for method, times in methods.items():
        each = _passes(method, classifier, tried[0], count)
        calls = len(rows) + COST_SAMPLES * (1 + (1 if each > HUNDREDS else MANY if each > MANY_PASSES else FEW))
        passes += times * len(rows) * asked + (times if method.depends_on_masking(classifier) else 1) * calls * each
        if checks and not method.is_sampled:
            passes += min(checks, len(rows)) * each * (MOVED + 1 + len(cascade(classifier.model)))
    sample = torch.arange(len(tried), device=tokens.device).repeat_interleave(8)
    keep = torch.rand(len(sample), tokens.shape[1], generator=torch.Generator().manual_seed(0)).to(tokens.device) < 0.5
    times = []
    for _ in range(3):
        start = time.perf_counter()
        classifier.masked(inputs, target, sample, keep).tolist()
        times.append(time.perf_counter() - start)
    return Estimate(passes, passes * statistics.median(times) / len(sample))


def _passes(method: Method, classifier: Classifier, row: dict[str, Any], count: int) -> float:
    """Of one sample, in forward passes."""
    if method.is_sampled:
        return PERMUTATIONS * count + 1 if method.name == "shapley_sampling" else KERNEL_SAMPLES
    inputs = classifier.encode([row])
    forward, backward = count_passes(method, classifier, inputs, classifier.predict(inputs)[0])
    return forward + 2 * backward
