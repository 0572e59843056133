"""Predictions for samples with some of their tokens masked: the data that the explainer is fitted to."""

from dataclasses import dataclass, fields
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor
from torch.nn import functional as F

from ..errors import AtomError
from ..modeling.explaining import TokenStates, reading_states
from ..modeling.targets import has_labels, output_values
from ..modeling.unwrap import inner_model
from ..utils.distributed import processes
from .masking import Masker, masked_logits

MOST_LOST = 0.6
"""The largest share of a copy's tokens that are masked."""

LAYERS = 5
"""The most layers whose hidden states are kept."""

CLASSES = 8
"""The most classes of a sample that are explained: its most probable ones."""

Inputs = dict[str, Tensor]


@dataclass
class MaskedSamples:
    """Samples and copies of them, with the model's predictions for subsets of their tokens.

    n items of N tokens and L layers, K sets each, M classes each.
    """

    tokens: Tensor  # [n, L, N, h] float16, layer-normalised
    mask: Tensor  # bool [n, N]: the tokens that are masked or not
    real: Tensor  # bool [n, N]: all but padding
    classes: Tensor  # [n, M]: the most probable first
    values: Tensor  # [n, C]: the probabilities of all classes, with every token
    nothing: Tensor  # [n, S, C]: with no token, under each masking strategy
    keep: Tensor  # bool [n, K, N]: the sets
    strategy: Tensor  # [n, K]: under which strategy the others are masked
    change: Tensor  # [n, K, M]: v(S) - v(none)
    whole: Tensor  # [n, S, M]: v(all) - v(none)
    sample: Tensor  # [n]: which sample it is, or is a copy of
    copy: Tensor  # [n]: 0 for the sample itself

    def __len__(self) -> int:
        return len(self.mask)


def passes_of(copies: int, sets: int, strategies: int) -> int:
    """How many forward passes explain one sample: for it and each of its copies itself, its sets, and nothing of it."""
    return copies * (1 + sets + strategies)


@torch.no_grad()
def find_layers(model: Any, inputs: Inputs) -> list[int]:
    """The layers that an explainer can mix: evenly spaced from the embeddings to the last, as far as they are alike.

    Those of a model that shows one layer only, or counts them in a way of its own, are that of its atoms.
    """
    inner = inner_model(model)
    own, depth = inner.atom_config.layer, getattr(inner.config, "num_hidden_layers", None)
    if not isinstance(depth, int) or depth < 2:
        return [own]
    own_place = own if own >= 0 else depth + 1 + own
    layers = sorted({own_place, *(round(depth * step / (LAYERS - 2)) for step in range(LAYERS - 1))})
    one = {name: value[:1] for name, value in inputs.items()}
    try:
        states = read_states(model, one, layers).states
    except AtomError:
        return [own]
    if len(states) != len(layers):
        return [own]
    shape = states[layers.index(own_place)].shape
    return [layer for layer, state in zip(layers, states, strict=True) if state.shape == shape]


def read_states(model: Any, inputs: Inputs, layers: list[int]) -> TokenStates:
    """What an explainer of these layers can read of the inputs."""
    with reading_states(model, layers) as found:
        model(**inputs, return_atoms=True)
    return found[-1]


@torch.no_grad()
def mask_samples(
    model: Any,
    maskers: list[Masker],
    inputs: Inputs,
    layers: list[int],
    sets: int,
    generator: torch.Generator,
    copy: int = 0,
    length: int = 0,
) -> tuple[MaskedSamples, int]:
    """Predictions for sets of the tokens of a batch, or of a copy of it with some tokens masked already.

    Args:
        model: the model with atoms, in eval mode.
        maskers: one for each masking strategy, the default first.
        inputs: B samples.
        layers: whose hidden states are kept.
        sets: K, how many sets; each and its complement go under one strategy.
        generator: of the random sets.
        copy: the number of the copy; 0 for the samples themselves.
        length: N of the samples themselves, for a copy.

    Returns:
        The samples that have two tokens or more, and how many samples went through the model for it.
    """
    if copy:
        masker = maskers[copy % len(maskers)]
        tokens = masker.tokens(inputs, length)
        lost = MOST_LOST * torch.rand(len(tokens), 1, generator=generator)
        keep = (torch.rand(tokens.shape, generator=generator) >= lost).to(tokens.device)
        keep |= (keep & tokens).sum(1, keepdim=True) < 2
        inputs = masker(inputs, keep)
    seen = read_states(model, inputs, layers)
    length = seen.mask.shape[1]
    tokens = maskers[0].tokens(inputs, length)
    if copy and masker.strategy != "drop":
        tokens = tokens & keep
    keep = draw_sets(tokens.cpu(), sets, generator).to(tokens.device)
    # Tokens that a copy lacks stay masked.
    lost = maskers[0].tokens(inputs, length) & ~tokens
    everything = seen.values
    classes = _classes(everything, inner_model(model).config, generator)
    strategy = torch.arange(sets) // 2 % len(maskers)
    change = everything.new_zeros(len(tokens), sets, classes.shape[1])
    nothing = everything.new_zeros(len(tokens), len(maskers), everything.shape[1])
    passes = len(tokens)
    for number, masker in enumerate(maskers):
        mine = (strategy == number).to(tokens.device)
        none = torch.zeros_like(tokens)[:, None]
        found = _values(model, masker, inputs, torch.cat([none, keep[:, mine]], 1) | lost[:, None])
        nothing[:, number] = found[:, 0]
        each = classes[:, None].expand(-1, found.shape[1] - 1, -1)
        change[:, mine] = (found[:, 1:] - found[:, :1]).gather(2, each)
        passes += found.shape[0] * found.shape[1]
    whole = (everything[:, None] - nothing).gather(2, classes[:, None].expand(-1, len(maskers), -1))
    normal = torch.stack([F.layer_norm(part.float(), part.shape[-1:]).half() for part in seen.states], 1)
    number = torch.arange(len(tokens))
    values = (
        *(normal, tokens, seen.real, classes, everything, nothing, keep, strategy.expand(len(tokens), -1)),
        *(change, whole, number, torch.full_like(number, copy)),
    )
    fits = (tokens.sum(1) > 1).cpu()
    return MaskedSamples(*(value.cpu()[fits] for value in values)), passes


def _classes(values: Tensor, model_config: Any, generator: torch.Generator) -> Tensor:
    """The classes [B, M] that are explained, the predicted one first: the most probable ones; of many labels any."""
    count = min(CLASSES, values.shape[1])
    if not has_labels(model_config) or count == values.shape[1]:
        return values.topk(count, dim=1).indices
    drawn = torch.rand(values.shape, generator=generator).to(values.device)
    return drawn.scatter(1, values.argmax(1, keepdim=True), 2.0).topk(count, dim=1).indices


def draw_sets(tokens: Tensor, sets: int, generator: torch.Generator) -> Tensor:
    """Sets of tokens by the Shapley kernel, each followed by its complement: bool [B, N] -> bool [B, sets, N].

    A size s of n tokens is drawn with p(s) in proportion to 1 / (s (n - s)), and then any set of that size (FastSHAP, Eq. 2,
    after Lundberg and Lee, arXiv 1705.07874, Theorem 2). Pairs halve the variance (Covert and Lee, arXiv 2012.01536).
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


def _values(model: Any, masker: Masker, inputs: Inputs, keep: Tensor) -> Tensor:
    """The values [B, K, C] of each sample with the sets bool [B, K, N] of its tokens alone."""
    sample = torch.arange(len(keep), device=keep.device).repeat_interleave(keep.shape[1])
    logits = masked_logits(model, masker, inputs, sample, keep.flatten(0, 1))
    return output_values(logits, inner_model(model).config).unflatten(0, keep.shape[:2])


def joined(parts: list[MaskedSamples]) -> MaskedSamples:
    """Parts one below the other, their tokens padded to the longest."""
    longest = max(part.mask.shape[1] for part in parts)
    room = {"tokens": (0, 0), "mask": (), "real": (), "keep": ()}

    def column(name: str) -> Tensor:
        values = [getattr(part, name) for part in parts]
        if name in room:
            sizes = [longest - part.mask.shape[1] for part in parts]
            values = [F.pad(value, (*room[name], 0, size)) for value, size in zip(values, sizes, strict=True)]
        return torch.cat(values)

    return MaskedSamples(**{field.name: column(field.name) for field in fields(MaskedSamples)})


def gathered(
    masked: MaskedSamples | None, passes: int, layers: list[int]
) -> tuple[MaskedSamples | None, int, list[int]]:
    """The masked samples of all processes, in the order of ranks, the sum of their passes, and their layers."""
    if processes() == 1:
        return masked, passes, layers
    found = gather_object([(masked, passes, layers)])
    full = [(part, its) for part, _, its in found if part is not None and len(part)]
    offset = 0
    for part, _ in full:
        part.sample += offset
        offset = int(part.sample.max()) + 1
    passes = sum(rows for _, rows, _ in found)
    return (joined([part for part, _ in full]), passes, full[0][1]) if full else (None, passes, layers)
