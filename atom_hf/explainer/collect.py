"""Collect masked samples within a budget, with an estimate of what it takes."""

import math
from collections.abc import Iterable
from time import perf_counter
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers.trainer_utils import has_length

from ..modeling.unwrap import inner_model
from ..utils.distributed import is_first_process, processes
from ..utils.terminal import get_logger
from .masked_samples import Inputs, MaskedSamples, find_layers, joined, mask_samples, passes_of
from .masking import Masker

logger = get_logger(__name__)

FEWEST = 16
"""The fewest samples that an explainer can be fitted on."""

MAX_BYTES = 2**30
"""The most memory for hidden states, in bytes."""


def collect(
    model: Any,
    maskers: list[Masker],
    batches: Iterable[Inputs],
    samples: int,
    copies: int,
    sets: int,
    seed: int,
    seconds: float = math.inf,
) -> tuple[MaskedSamples | None, int, list[int]]:
    """The first samples of `batches` with the predictions for sets of their tokens.

    It ends at `samples` of them, when their hidden states fill the memory that they may take, or when `seconds` are over and
    the fewest are there.

    Returns:
        The samples (None if there are none), how many samples went through the model for it, masked copies included, and the
        layers whose hidden states are kept.
    """
    generator = torch.Generator().manual_seed(seed)
    parts: list[MaskedSamples] = []
    taken = passes = rows = longest = length = 0
    layers = [inner_model(model).atom_config.layer]
    most = _at_most(batches, samples)
    start = perf_counter()
    with tqdm(total=most, desc="masking samples", unit="sample", disable=not is_first_process()) as bar:
        for number, batch in enumerate(batches):
            inputs = {n: v[: samples - taken] for n, v in batch.items() if torch.is_tensor(v) and n != "labels"}
            inputs = {name: value.to(model.device) for name, value in inputs.items()}
            count = len(next(iter(inputs.values())))
            if number == 0:
                layers = find_layers(model, inputs)
            for copy in range(copies):
                part, masked = mask_samples(model, maskers, inputs, layers, sets, generator, copy, length)
                length = length if copy else part.mask.shape[1]
                part.sample += taken
                parts.append(part)
                passes += masked
                rows, longest = rows + len(part), max(longest, part.mask.shape[1])
            taken += count
            # They are padded to the longest text of all.
            size = rows * longest * math.prod(parts[-1].tokens.shape[i] for i in (1, 3)) * 2
            room, spent = MAX_BYTES // processes(), perf_counter() - start
            # As many as will fit into the memory and the time, if the others are like these.
            within = min(taken * room / max(1, size), taken * seconds / max(spent, 1e-9), most)
            bar.total = max(taken, min(FEWEST, most), math.ceil(within))
            if number == 0:
                _say_estimate(bar.total, taken, passes_of(copies, sets, len(maskers)), spent)
            bar.update(count)
            if size > room:
                logger.info("the explainer is fitted on %d samples: their hidden states fill %d MiB", taken, size >> 20)
                break
            if spent >= seconds and taken * processes() >= FEWEST and taken < most:
                logger.info("the explainer is fitted on %d samples: the time for it is over", taken)
                break
            if taken >= samples:
                break
        bar.total = taken
        bar.refresh()
    return joined(parts) if parts else None, passes, layers


def _say_estimate(samples: int, taken: int, passes: int, spent: float) -> None:
    if is_first_process():
        logger.info(
            "masking %d samples takes %d forward passes, about %s",
            *(samples, samples * passes, in_words(spent * samples / max(1, taken))),
        )


def in_words(seconds: float) -> str:
    """A length of time, to two digits or so."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _at_most(batches: Iterable[Inputs], samples: int) -> int:
    """How many of `samples` this process will see, where the data tell how many there are."""
    rows = getattr(batches, "dataset", None)
    return min(samples, math.ceil(len(rows) / processes())) if has_length(rows) else samples
