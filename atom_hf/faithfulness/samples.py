"""The samples that are measured: encoded, predicted and attributed in batches of like lengths, their values shared."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .classifier import Classifier, Inputs, Values, prepare
from .methods import Method

BATCH = 8
"""How many samples a method gets at once."""

WINDOW = 32
"""How many samples are measured together: texts of like lengths among them share a batch."""


class Samples:
    """The samples of one model under one masking strategy, with what is known of them.

    Args:
        classifier: the model.
        rows: of a data set. Those without a token to mask are left out.
        like: the same samples under another strategy, which share all that does not depend on it.
    """

    def __init__(self, classifier: Classifier, rows: Sequence[dict[str, Any]], like: "Samples | None" = None):
        self.classifier = classifier
        self.values: dict[int, Values] = {}
        if like is not None:
            self.rows, self.lengths, self.targets = like.rows, like.lengths, like.targets
            self.probabilities, self.shared, self.costs = like.probabilities, like.shared, like.costs
        else:
            self.rows: dict[int, dict[str, Any]] = {}
            self.lengths: dict[int, int] = {}
            self.targets: dict[int, int] = {}
            self.probabilities: dict[int, float] = {}
            self.shared: dict[str, dict[int, np.ndarray]] = {}
            """Attributions of methods that do not depend on the strategy, by the method's name."""
            self.costs: dict[str, dict[str, Any]] = {}
            self._read(rows)
        self.values = {number: Values() for number in self.rows}

    def _read(self, rows: Sequence[dict[str, Any]]) -> None:
        for start in range(0, len(rows), WINDOW):
            part = {start + place: rows[start + place] for place in range(min(WINDOW, len(rows) - start))}
            inputs = self.classifier.encode(list(part.values()))
            real = self.classifier.tokens(inputs).any(1).tolist()
            self.lengths |= dict(zip(part, lengths_of(inputs), strict=True))
            self.rows |= {number: row for (number, row), there in zip(part.items(), real, strict=True) if there}
        for part in self.buckets(list(self.rows), WINDOW):
            targets, probabilities = self.classifier.predict(self.encode(part))
            self.targets |= dict(zip(part, targets.tolist(), strict=True))
            self.probabilities |= dict(zip(part, probabilities.tolist(), strict=True))

    def buckets(self, numbers: Sequence[int], size: int = BATCH) -> Iterator[list[int]]:
        """The numbers of samples in batches of like lengths."""
        order = sorted(numbers, key=lambda number: self.lengths[number])
        for start in range(0, len(order), size):
            yield order[start : start + size]

    def encode(self, numbers: Sequence[int]) -> Inputs:
        """The inputs of some samples."""
        return self.classifier.encode([self.rows[number] for number in numbers])

    def batch(self, numbers: Sequence[int]) -> tuple[Inputs, Tensor]:
        """The inputs of some samples and the classes that are predicted of them."""
        targets = [self.targets[number] for number in numbers]
        return self.encode(numbers), torch.tensor(targets, device=self.classifier.model.device)

    def attributions(self, method: Method, numbers: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """(sample, [n]) for each of some samples, in their order."""
        for start in range(0, len(numbers), WINDOW):
            window, found = numbers[start : start + WINDOW], {}
            for part in self.buckets(window):
                inputs, targets = self.batch(part)
                rows = method(self.classifier, inputs, targets)
                for number, row, real in zip(part, rows, self.classifier.tokens(inputs), strict=True):
                    found[number] = row[real].cpu().numpy()
            yield from ((number, found[number]) for number in window)

    def prepare(self, asked: dict[int, np.ndarray]) -> None:
        """Finds the values of some samples for keep-vectors bool [K, n] of their tokens, all together."""
        for part in self.buckets(list(asked), WINDOW // 2):
            inputs, targets = self.batch(part)
            tokens = self.classifier.tokens(inputs)
            values, sets = [self.values[number] for number in part], [asked[number] for number in part]
            prepare(self.classifier, inputs, targets, tokens, values, sets)


def lengths_of(inputs: Inputs) -> list[int]:
    """How many tokens of each sample are no padding; the same number for images."""
    real = inputs.get("attention_mask")
    sample = next(iter(inputs.values()))
    return [sample.shape[1]] * len(sample) if real is None else real.sum(1).tolist()
