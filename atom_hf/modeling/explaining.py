"""The explainer in a forward pass: the hidden states that it reads, and what it says of which class."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers.utils import ModelOutput

from ..atoms.config import AtomConfig
from ..atoms.explainer_head import Explanation
from ..errors import AtomError
from .layers import pick_layer
from .targets import output_values
from .tokens import everything_of, find_tokens
from .unwrap import inner_model


@dataclass
class TokenStates:
    """What an explainer can read of one forward pass."""

    states: list[Tensor]
    """Hidden states [B, N, h], one for each layer."""
    mask: Tensor
    """bool [B, N]: the tokens that have an importance."""
    real: Tensor
    """bool [B, N]: all tokens but padding."""
    values: Tensor
    """[B, C]: the probabilities of the classes."""


@dataclass
class ReadingStates:
    """The request of `reading_states`."""

    layers: list[int]
    found: list[TokenStates] = field(default_factory=list)


@dataclass
class Explaining:
    """The request of `explaining`."""

    classes: Tensor | None
    strategy: int
    found: list[Explanation] = field(default_factory=list)


@contextmanager
def explaining(model: Any, classes: Tensor | None = None, strategy: str | None = None) -> Iterator[list[Explanation]]:
    """Context manager: yields a list that receives the `Explanation` of each forward pass that reads atoms in eval mode.

    The `atom_importance` of those passes is that of the explanation.

    Args:
        model: a model with atoms and an explainer; an adapter on one will do.
        classes: int [B], the class of each sample that is explained; the predicted one if not given.
        strategy: the masking strategy whose importance is given; by default the one of the configuration.

    Raises:
        AtomError: no explainer, or a strategy that it was not fitted to.
    """
    inner = inner_model(model)
    config = inner.atom_config
    if not config.has_explainer:
        raise AtomError(f"this {type(inner).__name__} has no explainer: atom-hf fit-explainer fits one")
    state = inner._atom_forward_state
    before = state.explaining
    state.explaining = Explaining(classes, strategy_place(config, strategy))
    try:
        yield state.explaining.found
    finally:
        state.explaining = before


def strategy_place(config: AtomConfig, strategy: str | None) -> int:
    """The place of a masking strategy among the explainer's; of the first, which is the default, if none is given.

    Heads of old, which do not know their strategies, have one importance for all of them.
    """
    known = config.explainer_strategies
    if known is None or strategy is None:
        return 0
    if strategy not in known:
        raise AtomError(
            f"strategy must be one that the explainer was fitted to, {' or '.join(known)}; got {strategy!r}"
        )
    return known.index(strategy)


@contextmanager
def reading_states(model: Any, layers: list[int]) -> Iterator[list[TokenStates]]:
    """Context manager: yields a list that receives what an explainer of these layers could read of each forward pass with
    `return_atoms`. A model of one's own, which shows one layer only, gives that of its atoms alone."""
    state = inner_model(model)._atom_forward_state
    before = state.reading_states
    state.reading_states = ReadingStates(layers)
    try:
        yield state.reading_states.found
    finally:
        state.reading_states = before


def layers_to_read(model: Any) -> list[int]:
    """The layers whose hidden states a forward pass has to keep for the explainer, beside that of the atoms."""
    asked = model._atom_forward_state.reading_states
    if asked is not None:
        return asked.layers
    if model.training or model.atom_heads.explainer is None:
        return []
    return model.atom_config.explainer_layers or []


def is_explained(model: Any) -> bool:
    """Whether a forward pass needs the tokens for an explainer: to read it, in eval mode, or to fit one."""
    state, head = model._atom_forward_state, model.atom_heads.explainer
    return state.reading_states is not None or (head is not None and not model.training)


def explain_tokens(
    model: Any,
    tokens: Tensor,
    mask: Tensor | None,
    inputs: dict[str, Any],
    outputs: ModelOutput,
    states: ModelOutput | None,
) -> Tensor | None:
    """The importance [B, N] by the explainer, in eval mode; None without one.

    Args:
        model: the model.
        tokens: the hidden states [B, N, h] of the layer of the atoms.
        mask: bool [B, N], the tokens of the atoms; None for all.
        inputs: the arguments of the forward pass, by name.
        outputs: its outputs, with the logits.
        states: what holds the hidden states of all layers that were asked for; None if only `tokens` are known.
    """
    state, head = model._atom_forward_state, model.atom_heads.explainer
    if not is_explained(model):
        return None
    if mask is None:
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
    config, layers = model.atom_config, layers_to_read(model)
    found = [tokens]
    if layers and states is not None:
        found = [_like(tokens, pick_layer(states, layer, model), inputs, config, model) for layer in layers]
    real = find_tokens(tokens, inputs, everything_of(config.side), model.config, model)[1]
    values = output_values(outputs["logits"].to(tokens.device), model.config)
    if state.reading_states is not None:
        state.reading_states.found.append(TokenStates(found, mask, real, values))
    if head is None or model.training:
        return None
    asked = state.explaining or Explaining(None, 0)
    classes = values.argmax(-1) if asked.classes is None else asked.classes.to(tokens.device)
    explanation = head.explain(found, mask, real, values, classes, asked.strategy)
    asked.found.append(explanation)
    return explanation.importance


def _like(tokens: Tensor, hidden: Tensor, inputs: dict[str, Any], config: AtomConfig, model: Any) -> Tensor:
    """Hidden states of a layer as those of the atoms' layer are: [B, N, h] on the heads' device."""
    if hidden.shape != tokens.shape:
        hidden = find_tokens(hidden, inputs, config, model.config, model)[0]
    return hidden.detach().to(tokens.device)
