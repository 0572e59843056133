"""Predictions for samples with some of their tokens masked: the data that the explainer is fitted to."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm
from transformers.trainer_utils import has_length

from ..modeling.collector import reading_tokens
from ..modeling.own_outputs import logits_of
from ..modeling.targets import has_labels, output_values
from ..utils.distributed import is_first_process, processes
from ..utils.terminal import get_logger
from .masking import Masker

logger = get_logger(__name__)

MAX_BYTES = 2**30
"""The most memory for hidden states, in bytes."""

MOST_LOST = 0.6
"""The largest share of a copy's tokens that are masked."""

CLASSES = 8
"""From how many of the most probable classes one is drawn."""

ROWS = 128
"""How many masked samples go through the model at once."""

Inputs = dict[str, Tensor]


@dataclass
class MaskedSamples:
    """Samples and copies of them, with the model's predictions for subsets of their tokens. n items, N tokens, K sets each."""

    tokens: Tensor  # [n, N, h] float16, layer-normalised
    mask: Tensor  # bool [n, N]
    classes: Tensor  # [n]
    keep: Tensor  # bool [n, K, N]: the sets
    change: Tensor  # [n, K]: v(S) - v(none)
    whole: Tensor  # [n, K]: v(all) - v(none), where "none" depends on the masking strategy
    sample: Tensor  # [n]: which sample it is, or is a copy of
    copy: Tensor  # [n]: 0 for the sample itself

    def __len__(self) -> int:
        return len(self.mask)


def collect(
    model: Any, maskers: list[Masker], batches: Iterable[Inputs], samples: int, copies: int, sets: int, seed: int
) -> tuple[MaskedSamples | None, int]:
    """The first samples of `batches` with the predictions for sets of their tokens (None if there are none), and how many
    samples went through the model for it, masked copies included."""
    generator = torch.Generator().manual_seed(seed)
    parts: list[MaskedSamples] = []
    taken = passes = rows = longest = 0
    with tqdm(
        total=_at_most(batches, samples), desc="masking samples", unit="sample", disable=not is_first_process()
    ) as bar:
        for batch in batches:
            inputs = _first({n: v for n, v in batch.items() if torch.is_tensor(v) and n != "labels"}, samples - taken)
            inputs = {name: value.to(model.device) for name, value in inputs.items()}
            count = len(next(iter(inputs.values())))
            for copy in range(copies):
                part, masked = _explain(model, maskers, inputs, copy, sets, generator)
                part.sample += taken
                parts.append(part)
                passes += masked
                rows, longest = rows + len(part), max(longest, part.mask.shape[1])
            # They are padded to the longest text of all.
            size = rows * longest * parts[-1].tokens.shape[2] * 2
            taken += count
            most = MAX_BYTES // processes()
            # As many as will fit, if the others are like these.
            bar.total = max(taken, min(bar.total, math.ceil(most * taken / max(1, size))))
            bar.update(count)
            if size > most:
                logger.info("the explainer is fitted on %d samples: their hidden states fill %d MiB", taken, size >> 20)
                break
            if taken >= samples:
                break
        bar.total = taken
        bar.refresh()
    return _joined(parts) if parts else None, passes


def _at_most(batches: Iterable[Inputs], samples: int) -> int:
    """How many of `samples` this process will see, where the data tell how many there are."""
    rows = getattr(batches, "dataset", None)
    return min(samples, math.ceil(len(rows) / processes())) if has_length(rows) else samples


def _explain(
    model: Any, maskers: list[Masker], inputs: Inputs, copy: int, sets: int, generator: torch.Generator
) -> tuple[MaskedSamples, int]:
    """A batch of samples, or copies of them with some tokens masked already, and the predictions for sets of their tokens."""
    hidden, logits = _hidden(model, inputs)
    tokens = maskers[0].tokens(inputs, hidden.shape[1])
    passes = len(tokens)
    if copy:
        masker = maskers[copy % len(maskers)]
        lost = MOST_LOST * torch.rand(len(tokens), 1, generator=generator)
        keep = (torch.rand(tokens.shape, generator=generator) >= lost).to(tokens.device)
        keep |= (keep & tokens).sum(1, keepdim=True) < 2
        inputs = masker(inputs, keep)
        hidden, logits = _hidden(model, inputs)
        passes += len(tokens)
        tokens = masker.tokens(inputs, inputs["input_ids"].shape[1]) if masker.strategy == "drop" else tokens & keep
    classes = _classes(logits, copy, model.config, generator)
    keep = draw_sets(tokens.cpu(), sets, generator).to(tokens.device)
    whole = output_values(logits, model.config).gather(1, classes[:, None])[:, 0]
    # Tokens that a copy lacks stay masked.
    lost = maskers[0].tokens(inputs, tokens.shape[1]) & ~tokens
    change, span = torch.zeros(keep.shape[:2]), torch.zeros(keep.shape[:2])
    for number, masker in enumerate(maskers):
        # A set and its complement go the same way.
        mine = torch.arange(sets) // 2 % len(maskers) == number
        none = torch.zeros_like(tokens)[:, None]
        found = _values(model, masker, inputs, torch.cat([none, keep[:, mine]], 1) | lost[:, None], classes).cpu()
        change[:, mine] = found[:, 1:] - found[:, :1]
        span[:, mine] = (whole.cpu() - found[:, 0])[:, None].expand(-1, int(mine.sum()))
        passes += found.numel()
    fits = (tokens.sum(1) > 1).cpu()
    normal = F.layer_norm(hidden.float(), hidden.shape[-1:]).half().cpu()
    number = torch.arange(len(tokens))
    values = (normal, tokens.cpu(), classes.cpu(), keep.cpu(), change, span, number, torch.full_like(number, copy))
    return MaskedSamples(*(value[fits] for value in values)), passes


def _classes(logits: Tensor, copy: int, model_config: Any, generator: torch.Generator) -> Tensor:
    """The class [B] that is explained: the predicted one, of every second copy one of the most probable ones.

    So others than the predicted one can be asked for. Of several labels, which may hold at once, it is any label.
    """
    if not (copy % 2 or has_labels(model_config)):
        return logits.argmax(-1)
    likely = logits.topk(min(CLASSES, logits.shape[-1])).indices
    drawn = torch.randint(likely.shape[1], (len(likely), 1), generator=generator)
    return likely.gather(1, drawn.to(likely.device))[:, 0]


def draw_sets(tokens: Tensor, sets: int, generator: torch.Generator) -> Tensor:
    """Sets of tokens by the Shapley kernel, each followed by its complement: bool [B, N] -> bool [B, sets, N].

    A size s of n tokens is drawn with p(s) in proportion to 1 / (s (n - s)), and then any set of that size (FastSHAP, Eq. 2,
    after Lundberg and Lee, arXiv 1705.07874, Theorem 2).
    """
    count = tokens.sum(1, keepdim=True)
    size = torch.arange(1, max(2, int(count.max())))
    # A sample of one token or none has no such set; whatever is drawn for it is left out.
    weights = torch.where(size < count, 1.0 / (size * (count - size)).clamp(min=1), (size == 1) & (count < 2))
    sizes = size[torch.multinomial(weights, sets // 2, replacement=True, generator=generator)]
    order = torch.rand(len(tokens), sets // 2, tokens.shape[1], generator=generator)
    rank = order.masked_fill(~tokens[:, None], 2.0).argsort(-1).argsort(-1)
    left = (rank < sizes[..., None]) & tokens[:, None]
    return torch.stack([left, tokens[:, None] & ~left], dim=2).flatten(1, 2)


def _hidden(model: Any, inputs: Inputs) -> tuple[Tensor, Tensor]:
    """The hidden states [B, N, h] that the heads read, and the logits [B, C]."""
    with reading_tokens(model) as tokens:
        logits = model(**inputs, return_atoms=True).logits
    return tokens[-1], logits


def _values(model: Any, masker: Masker, inputs: Inputs, keep: Tensor, classes: Tensor) -> Tensor:
    """The values [B, K] of a class of each sample with the sets bool [B, K, N] of its tokens alone."""
    flat, found = keep.flatten(0, 1), torch.zeros(keep.shape[0] * keep.shape[1], device=keep.device)
    # Deleted tokens shorten a text: alike ones go together.
    for rows in flat.sum(1).argsort().split(ROWS):
        row = rows // keep.shape[1]
        masked = masker({name: value[row] for name, value in inputs.items()}, flat[rows])
        values = output_values(logits_of(model(**masked)), model.config)
        found[rows] = values.gather(1, classes[row, None])[:, 0]
    return found.view(keep.shape[:2])


def _first(inputs: Inputs, count: int) -> Inputs:
    return {name: value[:count] for name, value in inputs.items()}


def _joined(parts: list[MaskedSamples]) -> MaskedSamples:
    """Parts one below the other, their tokens padded to the longest."""
    longest = max(part.mask.shape[1] for part in parts)

    def column(name: str) -> Tensor:
        values = [getattr(part, name) for part in parts]
        room = {"tokens": (0, 0), "mask": (), "keep": ()}.get(name)
        if room is not None:
            values = [F.pad(v, (*room, 0, longest - part.mask.shape[1])) for v, part in zip(values, parts, strict=True)]
        return torch.cat(values)

    return MaskedSamples(**{field.name: column(field.name) for field in fields(MaskedSamples)})


def gathered(masked: MaskedSamples | None, passes: int) -> tuple[MaskedSamples | None, int]:
    """The masked samples of all processes, in the order of ranks, and the sum of their passes."""
    if processes() == 1:
        return masked, passes
    found = gather_object([(masked, passes)])
    parts = [part for part, _ in found if part is not None and len(part)]
    offset = 0
    for part in parts:
        part.sample += offset
        offset = int(part.sample.max()) + 1
    return _joined(parts) if parts else None, sum(rows for _, rows in found)
