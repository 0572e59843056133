"""Measure one method on the samples of one model."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import metrics
from .classifier import Inputs, repeated
from .cost import measure
from .methods import Method
from .randomization import randomized
from .samples import WINDOW, Samples

COST_SAMPLES = 4

RADIUS = 0.05
"""Half the width of the cube that sensitivity draws from, in standard deviations of the word embeddings or pixels."""


def measure_samples(
    method: Method, samples: Samples, numbers: Sequence[int], *, steps: int, perturbations: int
) -> Iterator[dict[str, Any]]:
    """A line for each of some samples: its attribution, and the metrics of it."""
    for start in range(0, len(numbers), WINDOW):
        window = numbers[start : start + WINDOW]
        attributions = _attributions(method, samples, window)
        off = {n: metrics.random_subsets(len(its), perturbations, seed=n) for n, its in attributions.items()}
        samples.prepare(
            {n: np.concatenate([metrics.masking_sets(its, steps), ~off[n]]) for n, its in attributions.items()}
        )
        for number, attribution in attributions.items():
            values = samples.values[number]
            line = {
                "kind": "sample",
                "sample": number,
                "tokens": len(attribution),
                "predicted": samples.targets[number],
                "probability": samples.probabilities[number],
                **metrics.masking_metrics(attribution, values, steps),
                "infidelity_normalized": metrics.infidelity(attribution, values, off[number], normalize=True),
            }
            if method.has_scale:
                line["infidelity"] = metrics.infidelity(attribution, values, off[number], normalize=False)
            yield rounded({**line, "attribution": attribution.tolist()})


def _attributions(method: Method, samples: Samples, numbers: Sequence[int]) -> dict[int, np.ndarray]:
    """The attributions of some samples, those that do not depend on the strategy once for all of them."""
    if method.depends_on_masking(samples.classifier):
        return dict(samples.attributions(method, numbers))
    known = samples.shared.setdefault(method.name, {})
    known |= dict(samples.attributions(method, [number for number in numbers if number not in known]))
    return {number: known[number] for number in numbers}


def measure_cost(method: Method, samples: Samples) -> dict[str, Any]:
    """A line with the cost of the method on the first few samples."""
    if method.name not in samples.costs or method.depends_on_masking(samples.classifier):
        cost = measure(method, samples.classifier, *samples.batch(list(samples.rows)[:COST_SAMPLES]))
        line = {"kind": "cost", "forward": cost.forward, "backward": cost.backward, "time": cost.time}
        samples.costs[method.name] = rounded(line)
    return samples.costs[method.name]


def check_samples(method: Method, samples: Samples, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Lines of the method's sensitivity to changes of the input and to random parameters, on the first `count` samples."""
    numbers = list(samples.rows)[:count]
    lines = []
    for number in numbers:
        inputs, target = samples.batch([number])
        points = samples.classifier.points(inputs)

        def explain(moved: Tensor, inputs: Inputs = inputs, target: Tensor = target) -> Tensor:
            found = method(samples.classifier, repeated(inputs, len(moved)), target.expand(len(moved)), moved)
            return found.nan_to_num(0.0)

        changed = metrics.sensitivity_max(explain, points, radius=RADIUS * float(points.std()), seed=number)
        lines.append({"kind": "check", "sample": number, "sensitivity_max": float(changed[0]), "randomization": {}})
    original = dict(samples.attributions(method, numbers))
    with randomized(samples.classifier.model, seed) as levels:
        for level in levels:
            found = dict(samples.attributions(method, numbers))
            for line in lines:
                alike = metrics.randomization(original[line["sample"]], found[line["sample"]])
                line["randomization"][level] = [alike["signed"], alike["absolute"]]
    return [rounded(line) for line in lines]


def weights_of(model: Any) -> str:
    """A hash of a model's weights: sixteen hexadecimal digits."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def rounded(value: Any) -> Any:
    """Numbers to six digits, NaN as None, which is JSON."""
    if isinstance(value, dict):
        return {name: rounded(part) for name, part in value.items()}
    if isinstance(value, list):
        return [rounded(part) for part in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
