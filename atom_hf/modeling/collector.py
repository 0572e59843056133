"""Collect the atoms of the forward passes of a step, whatever a trainer makes of the model's outputs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .unwrap import inner_model


class AtomCollector:
    """What the forward passes of a model gave while they were collected, in their order.

    A trainer's loss may drop the model's outputs (TRL's), or pass a batch column by column (sentence-transformers'): atoms
    are therefore taken where the model makes them. Passes without a gradient, such as a reference model's, have none.

    Args:
        most: how many passes are read; those after them run as if the model had no atoms. None for all.
        always: also read passes in evaluation or without a gradient.
    """

    def __init__(self, most: int | None = None, always: bool = False):
        self.most = most
        self.always = always
        self._passes: list[tuple[Tensor, Tensor]] = []

    def wants(self, model: Any) -> bool:
        """Whether the pass that begins now is read."""
        if self.most is not None and len(self._passes) >= self.most:
            return False
        return self.always or (model.training and torch.is_grad_enabled())

    def add(self, atoms: Tensor, importance: Tensor) -> None:
        """Keeps the packed atoms [B, h + 3] and the importance [B, N] of a pass."""
        self._passes.append((atoms, importance))

    def join(self) -> tuple[Tensor, Tensor] | None:
        """Atoms [B, h + 3] and importance [B, N] of all passes: the rows of one below those of another, the shorter of them
        filled up with NaN. None if there was no pass.
        """
        if len(self._passes) < 2:
            return self._passes[0] if self._passes else None
        packed, importance = zip(*self._passes, strict=True)
        longest = max(rows.shape[1] for rows in importance)
        filled = [F.pad(rows, (0, longest - rows.shape[1]), value=float("nan")) for rows in importance]
        return torch.cat(packed), torch.cat(filled)


class ForwardState:
    """What holds while forward passes of a model run.

    One for the model and its shallow copies: what Accelerate compiles by regions is such a copy, and runs in its place.
    """

    def __init__(self) -> None:
        self.passes: AtomCollector | None = None
        """Where a trainer collects what forward passes give."""
        self.reading = False
        """Whether atoms are read around the forward pass that is running."""
        self.text: dict[str, Tensor] | None = None
        """The ids and the mask behind embeddings that a prompt's adapter gives."""
        self.keeps_all_states = False
        """For a model that does not give the one layer's hidden states when it is asked for them alone."""


@contextmanager
def collecting(model: Any, most: int | None = None, always: bool = False) -> Iterator[AtomCollector]:
    """Within it the `AtomCollector` that it gives holds what the forward passes of `model`, an `AtomMixin`, make.

    Nothing of it stays with the model afterwards. `most` and `always` are those of `AtomCollector`.
    """
    running = model._atom_forward_state
    before, running.passes = running.passes, AtomCollector(most, always)
    try:
        yield running.passes
    finally:
        running.passes = before


def to_be_read(model: Any, return_atoms: bool | None) -> bool:
    """Whether a forward pass of `model`, an `AtomMixin`, gives atoms: as it was asked, else as whoever collects them wants it,
    else in training."""
    if model._atom_forward_state.reading:
        return False
    if return_atoms is not None:
        return return_atoms
    if model._atom_forward_state.passes is not None:
        return model._atom_forward_state.passes.wants(model)
    return model.training and torch.is_grad_enabled()


@contextmanager
def reading_once(model: Any, backbone: Any = None) -> Iterator[list[Any]]:
    """The forward pass within it is not read a second time. The list that it gives holds what the backbone, if any, gave."""
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
    """Within it, the tokens [B, N, h] that the heads of a model read in each forward pass, as they come."""
    seen: list[Tensor] = []
    hook = inner_model(model).atom_heads.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    try:
        yield seen
    finally:
        hook.remove()
