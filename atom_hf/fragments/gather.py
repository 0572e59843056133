"""Run a model over data points, and keep a mean over tokens of each, or some of its tokens; of one pass or of several."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..errors import AtomError
from ..modeling.inference import evaluating
from ..modeling.states import LayerTokens
from .augmentation import Augmentation
from .points import Points

LEAST_VARIANCE = 1e-12  # as a share of the variance over points: of what does not vary between passes

Read = Callable[[dict[str, Any]], Mapping[Any, LayerTokens]]
"""What one forward pass says, by key: tokens [B, N, h], or one of each sample [B, 1, h], and which of them count."""


@dataclass(frozen=True)
class Gathered:
    """The values of N data points."""

    mean: Tensor
    """[N, h], float32; over the passes."""
    variance: Tensor | None
    """[N, h], float64, over the passes; None of one pass."""
    ids: list[str]
    """[N]: a sample's, or a sample's and the place of a token among its content tokens."""


@dataclass(frozen=True)
class Passes:
    """How often a model is run on each sample, and how it is encoded."""

    processor: Any = None
    max_length: int = 128
    batch_size: int = 32
    dropout: int | None = None
    """Passes with dropout."""
    augmentation: Augmentation | None = None
    of: str = "samples"
    most: int | None = None
    """Keep as many tokens at most, drawn at random."""
    seed: int = 0


def gather(read: Read, model: Any, points: Points, how: Passes, name: str = "") -> dict[Any, Gathered]:
    """What `read` gives for all points, by its keys; one batch and what is kept are in memory.

    Args:
        read: a forward pass of `model`.
        model: the model, which runs in evaluation, or with dropout alone.
        points: the samples.
        how: the passes.
        name: of the model, for the progress bar.

    Raises:
        AtomError: a sample without tokens, values that are not finite, tokens that differ between passes.
    """
    kept: dict[Any, _Kept] = {}
    counts: dict[Any, int] = {}  # of the samples of ready batches
    times = how.dropout or (how.augmentation.passes if how.augmentation else 1)
    unit = "batch" if points.rows is None else "sample"
    bar = tqdm(total=points.count * times, desc=f"reading {name}".strip(), unit=unit, leave=False)
    devices = [model.device] if model.device.type == "cuda" else []
    with bar, evaluating(model), torch.random.fork_rng(devices=devices), torch.no_grad():
        torch.manual_seed(how.seed)
        for ids, copies in points.inputs(model, how.processor, how.max_length, how.batch_size, how.augmentation):
            moments, numbers = {}, {}
            rows: dict[Any, list[str]] = {}
            for inputs in copies:
                for _ in range(how.dropout or 1):
                    with _dropping(model) if how.dropout else evaluating(model):
                        found = read(inputs)
                    for key, tokens in found.items():
                        first = counts.get(key, 0)
                        names = ids or [str(first + place) for place in range(len(tokens.tokens))]
                        values, rows[key] = _reduce(tokens, names, how.of, key)
                        moments.setdefault(key, _Moments()).add(values)
                        numbers[key] = first + len(names)
                    bar.update(1 if ids is None else len(ids))
            counts |= numbers
            for key, moment in moments.items():
                kept.setdefault(key, _Kept(how)).add(moment, rows[key])
    return {key: one.joined(times > 1) for key, one in kept.items()}


class _Moments:
    """Mean and variance of several passes over one batch (Welford, 1962)."""

    def __init__(self) -> None:
        self.count, self.mean, self.squares = 0, torch.zeros(()), torch.zeros(())

    def add(self, values: Tensor) -> None:
        values = values.double()
        if self.count and values.shape != self.mean.shape:
            raise AtomError("of='tokens' with augment: the copies of a sample have different tokens; give of='samples'")
        self.count += 1
        change = values - self.mean
        self.mean = self.mean + change / self.count
        self.squares = self.squares + change * (values - self.mean)


class _Kept:
    """What is kept of all batches; of tokens at most `most`, those with the smallest of as many random numbers."""

    def __init__(self, how: Passes):
        self.how, self.rng = how, np.random.default_rng(how.seed)
        self.parts: list[tuple[Tensor, Tensor | None]] = []
        self.ids: list[str] = []
        self.drawn = np.empty(0)

    def add(self, moment: _Moments, ids: list[str]) -> None:
        mean = moment.mean.float().cpu()
        variance = (moment.squares / (moment.count - 1)).cpu() if moment.count > 1 else None
        self.parts.append((mean, variance))
        self.ids += ids
        most = self.how.most if self.how.of == "tokens" else None
        if most is None:
            return
        self.drawn = np.concatenate([self.drawn, self.rng.random(len(ids))])
        if len(self.drawn) > most:
            chosen = np.sort(np.argpartition(self.drawn, most)[:most])
            mean, variance = self._all()
            self.parts = [(mean[chosen], None if variance is None else variance[chosen])]
            self.ids, self.drawn = [self.ids[place] for place in chosen], self.drawn[chosen]

    def joined(self, several: bool) -> Gathered:
        mean, variance = self._all()
        if variance is not None:
            if not variance.any():
                what = "dropout" if self.how.dropout else "augment"
                raise AtomError(
                    f"{what}: nothing varies between the passes, so there is no channel; give noise or bits"
                )
            least = LEAST_VARIANCE * mean.double().var(0, keepdim=True)
            variance = variance.maximum(least).clamp(min=1e-200)
        return Gathered(mean, variance if several else None, self.ids)

    def _all(self) -> tuple[Tensor, Tensor | None]:
        means, variances = zip(*self.parts, strict=True)
        return torch.cat(means), None if variances[0] is None else torch.cat(variances)


def _reduce(found: LayerTokens, ids: list[str], of: str, key: Any) -> tuple[Tensor, list[str]]:
    """(values [n, h], ids [n]) of a batch: of its samples or of its tokens."""
    tokens, mask = found.tokens.detach().float(), found.mask
    if not tokens[mask].isfinite().all():
        raise AtomError(
            f"{key}: the model gives numbers that are not finite (NaN or infinity); load it with dtype=torch.float32, or "
            "choose another layer"
        )
    if of == "tokens":
        counts = mask.sum(1).tolist()
        return tokens[mask], [f"{one}/{place}" for one, n in zip(ids, counts, strict=True) for place in range(n)]
    if not mask.any(1).all():
        which = ids[int((~mask.any(1)).nonzero()[0])]
        raise AtomError(f"data: sample {which.split(':')[0]} has no content tokens; leave it out")
    weights = mask.to(tokens.dtype) / mask.sum(1, keepdim=True)
    # What is masked may be anything, NaN too.
    return torch.einsum("bn,bnh->bh", weights, tokens.masked_fill(~mask.unsqueeze(-1), 0)), ids


@contextmanager
def _dropping(model: nn.Module) -> Iterator[None]:
    """Context manager: training mode, as dropout outside of modules needs it; but statistics of batches are left alone."""
    with evaluating(model):
        for module in model.modules():
            module.training = not isinstance(module, nn.modules.batchnorm._NormBase)
        yield
