"""Fit the explainer's network to masked samples, by gradient descent with early stopping."""

import math
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor
from tqdm.auto import tqdm

from ..atoms.novelty import pooled
from ..modeling.attach import add_explainer
from ..utils.distributed import is_first_process, processes
from .masked_samples import MaskedSamples
from .objective import Objective

STEPS, BATCH, LEARNING_RATE, WEIGHT_DECAY = 2000, 64, 3e-3, 1e-2

HELD_OUT = 8
"""One sample in this many is held out, for early stopping."""

LOOK = 50
"""Steps between two evaluations on the held-out samples."""

PATIENCE = 10
"""Evaluations without a better one after which the fit ends."""


@dataclass(frozen=True)
class HeadOptions:
    """The network, and how it is regularised."""

    width: int = 256
    blocks: int = 0
    """Attention blocks."""
    dropout: float = 0.1
    context: bool = True
    """Layers side by side and the mean of all tokens; without it a mix of layers, as before."""


def fit_head(
    model: Any,
    masked: MaskedSamples,
    layers: list[int],
    strategies: list[str],
    options: HeadOptions,
    *,
    seed: int = 0,
    seconds: float = math.inf,
) -> float:
    """Gives a model an explainer that is fitted to masked samples.

    Args:
        model: the model with atoms.
        masked: the samples.
        layers: the model's layers that their hidden states are of.
        strategies: the names of the masking strategies.
        options: of the network.
        seed: of its weights, of the batches, and of the samples that are held out.
        seconds: the time after which the descent ends.

    Returns:
        The share of the changes of held-out samples that it explains.
    """
    device = model.atom_heads.importance.weight.device
    generator = torch.Generator().manual_seed(seed)
    samples = masked.sample.unique()
    held_out = samples[torch.randperm(len(samples), generator=generator)[: len(samples) // HELD_OUT]]
    is_held, is_whole = torch.isin(masked.sample, held_out), masked.copy == 0
    train, test = (~is_held).nonzero()[:, 0], (is_held & is_whole).nonzero()[:, 0]
    with torch.enable_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        head = add_explainer(
            model,
            explainer_classes=model.config.num_labels,
            explainer_width=options.width,
            explainer_blocks=options.blocks,
            explainer_layers=layers,
            explainer_strategies=strategies,
            explainer_context=options.context or None,
        ).requires_grad_(True)
        objective = Objective(head, masked, train)
        best, kept = descend(objective, train, test, options.dropout, generator, seconds)
    objective.load_state_dict(kept)
    head.requires_grad_(False)
    head.scale.copy_(objective.scale.detach())
    head.nothing.copy_(masked.nothing[is_whole].mean(0))
    explained = objective.explained_each(test, BATCH)
    # How samples lie is told by those of the fit, and how far off is usual by others.
    seen = (~is_held & is_whole).nonzero()[:, 0]
    parts = [(_pooled(masked, rows), masked.classes[rows, 0]) for rows in (seen, test)]
    head.novelty.fit(*parts[0], *parts[1])
    if processes() > 1:
        # The same numbers to each, whatever the order of their sums.
        own = {name: value.cpu() for name, value in head.state_dict().items()}
        state, best, explained = broadcast_object_list([own, best, explained])
        head.load_state_dict(state)
    model.atom_config.explainer_explained = [round(share, 4) for share in explained]
    return best


def descend(
    objective: Objective, train: Tensor, test: Tensor, dropout: float, generator: torch.Generator, seconds: float
) -> tuple[float, dict[str, Tensor]]:
    """Minimises the objective. Returns the best share explained of the held-out items, and the state that explained it."""
    start = perf_counter()
    optimizer = torch.optim.AdamW(objective.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, STEPS, pct_start=0.1)
    best, kept, without = -math.inf, objective.state_dict(), 0
    with tqdm(total=STEPS, desc="fitting importance", leave=False, disable=not is_first_process()) as bar:
        for step in range(STEPS):
            rows = train[torch.randint(len(train), (BATCH,), generator=generator)]
            optimizer.zero_grad()
            objective.loss(rows, dropout).backward()
            optimizer.step()
            schedule.step()
            bar.update()
            if step % LOOK != LOOK - 1:
                continue
            found, without = objective.explained(test, BATCH), without + 1
            if found > best:
                best, without = found, 0
                kept = {name: value.clone() for name, value in objective.state_dict().items()}
            if without >= PATIENCE or perf_counter() - start > seconds:
                break
        bar.total = bar.n
        bar.refresh()
    return best, kept


def _pooled(masked: MaskedSamples, rows: Tensor) -> Tensor:
    """The mean [n, h] of each item's tokens in the last layer that is read."""
    return torch.cat([pooled(masked.tokens[some, -1], masked.real[some]) for some in rows.split(BATCH)])
