"""Pairs over more samples than fit in memory at once, in the manner of gradient caching (arXiv 2101.06983)."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..atoms.energy import Atoms
from ..atoms.loss import AtomLoss
from ..errors import AtomError
from ..utils.distributed import gather_rows
from .random_state import random_state, set_random_state


class CachedAtoms(NamedTuple):
    """What one batch needs of the atom loss of its group of batches."""

    loss: AtomLoss
    """Of the whole group, over all processes, detached."""
    atoms: Atoms
    """Of the whole group, over all processes, detached."""
    packed: Tensor
    """[B, h + 3]: this batch's own atoms."""
    gradient: Tensor
    """[B, h + 3]: of the group's loss with respect to them."""
    batches: int
    """How many batches the group has."""

    def term(self, packed: Tensor) -> Tensor:
        """A scalar: the group's loss in value. The mean of its gradients over a group's batches is the loss's own."""
        along = (packed * self.gradient.to(packed.dtype)).sum()
        return self.batches * (along - along.detach()) + self.loss.loss


class PairCache:
    """Draws the pairs of several batches of one optimizer step together.

    An atom is `h + 3` numbers, while the activations behind it are many megabytes. So each group of `size` batches is passed
    through the model twice. First without a graph: that gives all its atoms, and with them the loss and its gradient with
    respect to each. Then batch by batch as ever, each adding the product of its atoms and their gradients. Both
    passes draw the same random numbers, so that dropout is the same, and the sum of the gradients is exactly that of a
    batch as large as the group.

    The price is one more forward pass for each batch. Memory grows by the atoms.

    Args:
        size: how many batches of an optimizer step form a group. The last group of a step may have fewer.
    """

    def __init__(self, size: int):
        self.size = size
        self._batches: list[Any] = []
        self._next = self._asked = 0  # how many batches were entered, and for how many of them the cache was asked
        self._cached: list[tuple[CachedAtoms, list[Any]]] = []
        self._checked = False

    def start(self, batches: list[Any]) -> None:
        """Begins an optimizer step of these batches."""
        self._batches, self._next, self._asked, self._cached = batches, 0, 0, []

    def enter(self, model: Any, device: torch.device, read: Callable[[Any], Tensor], loss: Callable[[Atoms], AtomLoss]):
        """Prepares the next batch, which is about to be passed through `model` with its gradient.

        Args:
            model: its buffers, such as the running statistics of a batch norm, are left as they were.
            device: whose random numbers the model draws.
            read: gives the packed atoms of a batch.
            loss: the atom loss of the atoms of all processes.
        """
        position = self._next % self.size
        if position == 0:
            group = self._batches[self._next : self._next + self.size]
            self._cached = self._first_pass(group, model, device, read, loss)
        self._next += 1
        set_random_state(self._cached[position][1], device)

    def of(self, packed: Tensor) -> CachedAtoms:
        """What was cached for the batch whose atoms are `packed`.

        Raises:
            AtomError: the first batch of a run had other atoms when it was passed through again, or any is asked for twice:
                the cached gradient is not theirs.
        """
        self._asked += 1
        if self._asked != self._next:
            raise AtomError(
                "atom_pair_batch: this trainer passes a batch through the model more than once, each time with other dropout; "
                "leave atom_pair_batch out"
            )
        cached = self._cached[(self._next - 1) % self.size][0]
        if not self._checked:
            same = packed.shape == cached.packed.shape
            scale = cached.packed.abs().amax()
            if not same or (packed.detach() - cached.packed).abs().amax() > 0.05 * scale:
                raise AtomError(
                    "atom_pair_batch: the model gave a batch other atoms when it was passed through it again. The trainer "
                    "changes its batches, or something draws random numbers that torch, numpy and random do not know "
                    "of; leave atom_pair_batch out"
                )
            self._checked = True
        return cached

    @staticmethod
    @torch.no_grad()
    def _first_pass(group: list[Any], model: Any, device: torch.device, read: Callable, loss: Callable) -> list:
        buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
        # DDP makes the buffers of all processes alike in the first forward pass of a step: that is to be the next one.
        synchronizes = getattr(model, "require_forward_param_sync", None)
        packed, states = [], []
        with warnings.catch_warnings():
            # Reentrant activation checkpointing says so of every pass that wants no gradient.
            warnings.filterwarnings("ignore", "None of the inputs have requires_grad=True")
            for batch in group:
                states.append(random_state(device))
                packed.append(read(batch))
        for buffer, value in buffers:
            buffer.copy_(value)
        if synchronizes is not None:
            model.require_forward_param_sync = synchronizes
        with torch.enable_grad():
            rows = torch.cat(packed).requires_grad_()
            atoms = Atoms.unpack(gather_rows(rows))
            parts = loss(atoms)
            (gradient,) = torch.autograd.grad(parts.loss, rows)
        parts, atoms = (type(values)(*(value.detach() for value in values)) for values in (parts, atoms))
        sizes = [len(rows) for rows in packed]
        return [
            (CachedAtoms(parts, atoms, rows, part, len(group)), state)
            for rows, part, state in zip(packed, gradient.split(sizes), states, strict=True)
        ]
