"""The cost of an attribution: its forward and backward passes, and its time relative to one forward pass."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .classifier import Classifier, Inputs
from .methods import Method

FEW, MANY = 15, 3
"""Timed rounds of a method of few passes, and of one of many; one of hundreds is timed once."""

MANY_PASSES, HUNDREDS = 20, 100


@dataclass
class Passes:
    """Passes of single samples through a model."""

    forward: int = 0
    backward: int = 0


@contextmanager
def counted(model: Any) -> Iterator[Passes]:
    """Context manager: counts the samples that go through a model, forward and backward, whoever calls it."""
    passes = Passes()

    def back(gradient: Tensor) -> None:
        passes.backward += len(gradient)

    def after(module: Any, args: Any, outputs: Any) -> None:
        passes.forward += len(outputs.logits)
        if outputs.logits.requires_grad:
            outputs.logits.register_hook(back)

    handle = model.register_forward_hook(after)
    try:
        yield passes
    finally:
        handle.remove()


@dataclass(frozen=True)
class Cost:
    """Of one sample, on average: passes, and the time as a multiple of that of one forward pass."""

    forward: float
    backward: float
    time: float

    @property
    def forward_equivalents(self) -> float:
        """Passes in forward passes: a backward pass has twice the products of a forward one."""
        return self.forward + 2 * self.backward


def count_passes(method: Method, classifier: Classifier, inputs: Inputs, target: Tensor) -> tuple[float, float]:
    """The forward and backward passes of one sample."""
    with counted(classifier.model) as passes:
        method(classifier, inputs, target)
    return passes.forward / len(target), passes.backward / len(target)


def measure(method: Method, classifier: Classifier, inputs: Inputs, target: Tensor) -> Cost:
    """Counts the passes of a method, and times it against a forward pass of the same batch, in turn: a ratio of medians."""
    classifier.reads(inputs)  # found once for a model
    forward, backward = count_passes(method, classifier, inputs, target)
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(1 if forward > HUNDREDS else MANY if forward > MANY_PASSES else FEW):
        times[0].append(_seconds(lambda: classifier.predict(inputs)))
        times[1].append(_seconds(lambda: method(classifier, inputs, target)))
    return Cost(forward, backward, statistics.median(times[1]) / statistics.median(times[0]))


def _seconds(work: Callable[[], Any]) -> float:
    _wait()
    start = time.perf_counter()
    work()
    _wait()
    return time.perf_counter() - start


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
