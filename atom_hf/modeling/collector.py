"""Collect the atoms of a step's forward passes, whatever a trainer does with the model's outputs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .output_layer import OutputLayer
from .unwrap import inner_model

if TYPE_CHECKING:
    from .explaining import Explaining, ReadingStates


class AtomCollector:
    """The packed atoms and the importance of each forward pass of a model, in order.

    A trainer's loss may drop the model's outputs (TRL), or run one forward pass per column of a batch
    (sentence-transformers); atoms are therefore collected inside the model. Passes without a gradient, such as a reference
    model's, are skipped, and passes in eval mode count only if the loss runs none in training mode.

    Args:
        most: the number of passes to collect; later ones run as if the model had no atoms. None collects all.
        always: also collect passes in eval mode or without a gradient.
    """

    def __init__(self, most: int | None = None, always: bool = False):
        self.most = most
        self.always = always
        self.complete = True
        """Whether every sample of these passes is known to have a token, without a look at the data."""
        self._passes: list[tuple[Tensor, Tensor]] = []
        self._in_training = False  # the mode of these passes

    def wants(self, model: Any) -> bool:
        """Whether to collect the forward pass that is about to run."""
        if not self.always:
            if not torch.is_grad_enabled() or (self._in_training and not model.training):
                return False
            if model.training and not self._in_training:
                return True  # in place of those in eval mode
        return self.most is None or len(self._passes) < self.most

    def add(self, atoms: Tensor, importance: Tensor, in_training: bool = True, complete: bool = False) -> None:
        """Append the packed atoms [B, K] (`StepAtoms.pack`) and the importance [B, N] of one pass, in training mode or not.

        `complete` says that every sample of it is known to have a token.
        """
        if in_training and not self._in_training and not self.always:
            self._passes.clear()
            self.complete = True
        self.complete = self.complete and complete
        self._in_training = in_training
        self._passes.append((atoms, importance))

    def join(self) -> tuple[Tensor, Tensor] | None:
        """Concatenate the packed atoms [B, K] and the importance [B, N] of all passes along the batch, shorter importance rows
        padded with NaN. None if there was no pass.
        """
        if len(self._passes) < 2:
            return self._passes[0] if self._passes else None
        packed, importance = zip(*self._passes, strict=True)
        longest = max(rows.shape[1] for rows in importance)
        filled = [F.pad(rows, (0, longest - rows.shape[1]), value=float("nan")) for rows in importance]
        return torch.cat(packed), torch.cat(filled)


class ForwardState:
    """Per-model state of a forward pass.

    Shared by the model and its shallow copies: Accelerate's regional compilation runs such a copy in the model's place.
    """

    def __init__(self) -> None:
        self.collector: AtomCollector | None = None
        """The collector of a trainer, while one is collecting."""
        self.reading = False
        """Whether a forward pass that reads atoms is running."""
        self.text: dict[str, Tensor] | None = None
        """The ids and mask of the text whose embeddings a prompt-learning adapter passes to the base."""
        self.keeps_all_states = False
        """Whether to request all hidden states: the model does not return those of one layer alone."""
        self.output_layer: OutputLayer | None = None
        """The layer that gives the logits, once found, for `tokens="read"`."""
        self.has_output_layer = True
        """False once a forward pass has shown that no module gives the logits: the last hidden states are read then."""
        self.explaining: Explaining | None = None
        """What is to be explained, while `explaining` is on; the predicted class otherwise."""
        self.reading_states: ReadingStates | None = None
        """The layers to read, while `reading_states` is on."""
        self.own_outputs = False
        """Whether the model returns a tuple or a plain dict."""


@contextmanager
def collecting(model: Any, most: int | None = None, always: bool = False) -> Iterator[AtomCollector]:
    """Context manager: yields an `AtomCollector` of the forward passes of `model` (an `AtomMixin`); restores the previous one.

    `most` and `always` are those of `AtomCollector`.
    """
    state = model._atom_forward_state
    before, state.collector = state.collector, AtomCollector(most, always)
    try:
        yield state.collector
    finally:
        state.collector = before


def to_be_read(model: Any, return_atoms: bool | None) -> bool:
    """Whether a forward pass of `model` (an `AtomMixin`) returns atoms: `return_atoms` if given, else what the collector wants,
    else whether the model trains with gradients."""
    if model._atom_forward_state.reading:
        return False
    if return_atoms is not None:
        return return_atoms
    if model._atom_forward_state.collector is not None:
        return model._atom_forward_state.collector.wants(model)
    return model.training and torch.is_grad_enabled()


@contextmanager
def reading_once(model: Any, backbone: Any = None) -> Iterator[list[Any]]:
    """Context manager: inner forward passes read no atoms; yields a list that receives the outputs of `backbone`, if given."""
    given: list[Any] = []
    modules = [] if backbone is None else [backbone]
    hooks = [module.register_forward_hook(lambda _, inputs, outputs: given.append(outputs)) for module in modules]
    model._atom_forward_state.reading = True
    try:
        yield given
    finally:
        model._atom_forward_state.reading = False
        for hook in hooks:
            hook.remove()


@contextmanager
def reading_tokens(model: Any) -> Iterator[list[Tensor]]:
    """Context manager: yields a list that receives the tokens [B, N, h] which the heads read in each forward pass."""
    seen: list[Tensor] = []
    hook = inner_model(model).atom_heads.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    try:
        yield seen
    finally:
        hook.remove()
