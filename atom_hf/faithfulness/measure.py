"""Measure one method on the samples of one model."""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import metrics
from .classifier import Classifier, Inputs, repeated
from .cost import measure
from .methods import Method
from .randomization import randomized

BATCH = 8

COST_SAMPLES = 4

RADIUS = 0.05
"""Half the width of the cube that sensitivity draws from, in standard deviations of the word embeddings or pixels."""


class Samples:
    """The samples of one model under one masking strategy, each encoded by itself, with its values cached.

    Args:
        classifier: the model.
        rows: of a data set. Those without a token to mask are left out.
    """

    def __init__(self, classifier: Classifier, rows: Sequence[dict[str, Any]]):
        self.classifier, self.rows = classifier, {}
        self.targets: dict[int, int] = {}
        self.probabilities: dict[int, float] = {}
        self.values: dict[int, Callable[[np.ndarray], np.ndarray]] = {}
        for number, row in enumerate(rows):
            inputs = classifier.encode([row])
            if not classifier.tokens(inputs).any():
                continue
            target, probability = classifier.predict(inputs)
            self.rows[number] = row
            self.targets[number] = int(target)
            self.probabilities[number] = float(probability)
            self.values[number] = classifier.values(inputs, int(target))

    def batch(self, numbers: Sequence[int]) -> tuple[Inputs, Tensor]:
        """The inputs of some samples and the classes that are predicted of them."""
        inputs = self.classifier.encode([self.rows[number] for number in numbers])
        targets = [self.targets[number] for number in numbers]
        return inputs, torch.tensor(targets, device=self.classifier.model.device)

    def attributions(self, method: Method, numbers: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """(sample, [n]) for each of some samples."""
        for start in range(0, len(numbers), BATCH):
            part = numbers[start : start + BATCH]
            inputs, targets = self.batch(part)
            found = method(self.classifier, inputs, targets)
            for number, row, real in zip(part, found, self.classifier.tokens(inputs), strict=True):
                yield number, row[real].cpu().numpy()


def measure_samples(
    method: Method, samples: Samples, numbers: Sequence[int], *, steps: int, perturbations: int
) -> Iterator[dict[str, Any]]:
    """A line for each of some samples: its attribution, and the metrics of it."""
    for number, attribution in samples.attributions(method, numbers):
        values = samples.values[number]
        off = metrics.random_subsets(len(attribution), perturbations, seed=number)
        line = {
            "kind": "sample",
            "sample": number,
            "tokens": len(attribution),
            "predicted": samples.targets[number],
            "probability": samples.probabilities[number],
            **metrics.masking_metrics(attribution, values, steps),
            "infidelity_normalized": metrics.infidelity(attribution, values, off, normalize=True),
        }
        if method.has_scale:
            line["infidelity"] = metrics.infidelity(attribution, values, off, normalize=False)
        yield rounded({**line, "attribution": attribution.tolist()})


def measure_cost(method: Method, samples: Samples) -> dict[str, Any]:
    """A line with the cost of the method on the first few samples."""
    cost = measure(method, samples.classifier, *samples.batch(list(samples.rows)[:COST_SAMPLES]))
    return rounded({"kind": "cost", "forward": cost.forward, "backward": cost.backward, "time": cost.time})


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
