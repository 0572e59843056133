"""The class that the explainer explains in a forward pass, and what it says of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..errors import AtomError
from .targets import output_values
from .unwrap import inner_model


@dataclass(frozen=True)
class Explanation:
    """What an explainer says of one class of each sample of a forward pass; nan where it does not know."""

    importance: Tensor
    """[B, N] in [-1, 1]."""
    everything: Tensor
    """[B]: the value of the class."""
    nothing: Tensor
    """[B]: its value with every token masked."""
    parts: Tensor
    """[B]: the sum of the changes that the importances stand for."""
    novelty: Tensor
    """[B] in [0, 1]: how unlike the samples of the fit."""


@dataclass
class Explaining:
    """The request of `explaining`."""

    classes: Tensor | None
    found: list[Explanation] = field(default_factory=list)


@contextmanager
def explaining(model: Any, classes: Tensor | None = None) -> Iterator[list[Explanation]]:
    """Context manager: yields a list that receives the `Explanation` of each forward pass that reads atoms in eval mode.

    The `atom_importance` of those passes is that of the explanation.

    Args:
        model: a model with atoms and an explainer; an adapter on one will do.
        classes: int [B], the class of each sample that is explained; the predicted one if not given.

    Raises:
        AtomError: no explainer.
    """
    inner = inner_model(model)
    if not inner.atom_config.has_explainer:
        raise AtomError(f"this {type(inner).__name__} has no explainer: atom-hf fit-explainer fits one")
    state = inner._atom_forward_state
    before, state.explaining = state.explaining, Explaining(classes)
    try:
        yield state.explaining.found
    finally:
        state.explaining = before


def explain_tokens(model: Any, tokens: Tensor, logits: Tensor) -> Tensor | None:
    """The importance [B, N] of tokens [B, N, h] by the explainer, in eval mode; None without one. `logits`: [B, C]."""
    if model.atom_heads.explainer is None or model.training:
        return None
    asked = model._atom_forward_state.explaining or Explaining(None)
    logits = logits.to(tokens.device)
    classes = logits.argmax(-1) if asked.classes is None else asked.classes.to(tokens.device)
    importance = model.atom_heads.explain(tokens, classes)
    everything = output_values(logits, model.config).gather(1, classes[:, None])[:, 0]
    unknown = torch.full_like(everything, float("nan"))
    asked.found.append(Explanation(importance, everything, unknown, unknown, unknown))
    return importance
