"""Cache atoms to draw pairs from more samples than fit in memory at once (gradient caching, arXiv 2101.06983)."""

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
    """What one batch needs from the atom loss of its group of batches."""

    value: Tensor
    """A scalar: what the whole group adds to the task loss, over all processes, detached."""
    loss: AtomLoss
    """The loss of the whole group, over all processes, detached."""
    atoms: Atoms
    """The atoms of the whole group, over all processes, detached."""
    packed: Tensor
    """[B, K]: this batch's own atoms."""
    gradient: Tensor
    """[B, K]: the gradient of the group's loss with respect to `packed`."""
    batches: int
    """The number of batches in the group."""

    def term(self, packed: Tensor) -> Tensor:
        """A scalar whose value is the group's loss. Averaged over the group's batches, its gradient is that of the loss."""
        along = (packed * self.gradient.to(packed.dtype)).sum()
        return self.batches * (along - along.detach()) + self.value


class PairCache:
    """Draw pairs from several batches of one optimizer step together.

    An atom is `h + 3` numbers, while the activations behind it are many megabytes. So each group of `size` batches runs
    through the model twice. The first pass, without a graph, gives all atoms of the group, and from them the loss and its
    gradient with respect to each atom. The second runs batch by batch as usual, each adding the product of its atoms and
    their gradients. Both passes draw the same random numbers, so that dropout is the same, and the sum of the gradients is
    exactly that of a batch as large as the group.

    The cost is one more forward pass for each batch. Memory grows by the atoms.

    Args:
        size: the number of batches in a group. The last group of a step may have fewer.
    """

    def __init__(self, size: int):
        self.size = size
        self._batches: list[Any] = []
        self._next = self._asked = 0  # the numbers of calls of `enter` and of `of` in this step
        self._cached: list[tuple[CachedAtoms, list[Any]]] = []
        self._checked = False

    def start(self, batches: list[Any]) -> None:
        """Begin an optimizer step over these batches."""
        self._batches, self._next, self._asked, self._cached = batches, 0, 0, []

    def enter(self, model: Any, device: torch.device, read: Callable[[Any], Tensor], loss: Callable[[Tensor], tuple]):
        """Prepare for the next batch, which is about to run through `model` with gradients.

        Args:
            model: its buffers, such as the running statistics of a batch norm, are restored.
            device: the device whose random state the model uses.
            read: returns the packed atoms of a batch.
            loss: (what joins the task loss, its parts, the atoms to log) of the packed atoms of all processes.
        """
        position = self._next % self.size
        if position == 0:
            group = self._batches[self._next : self._next + self.size]
            self._cached = self._first_pass(group, model, device, read, loss)
        self._next += 1
        set_random_state(self._cached[position][1], device)

    def of(self, packed: Tensor) -> CachedAtoms:
        """The cache entry of the current batch, whose atoms are `packed`.

        Raises:
            AtomError: the first batch of a run had different atoms in its second pass, or a batch is asked for twice, or
                before `enter`: the cached gradient does not belong to these atoms.
        """
        self._asked += 1
        if not self._next:
            raise AtomError(
                "atom_pair_batch: the training_step of this trainer does not call super().training_step, which prepares the "
                "batches; call it, or leave atom_pair_batch out"
            )
        if self._asked != self._next:
            raise AtomError(
                "atom_pair_batch: this trainer runs a batch through the model more than once, each with different dropout; "
                "leave atom_pair_batch out"
            )
        cached = self._cached[(self._next - 1) % self.size][0]
        if not self._checked:
            same = packed.shape == cached.packed.shape
            scale = cached.packed.abs().amax()
            if not same or (packed.detach() - cached.packed).abs().amax() > 0.05 * scale:
                raise AtomError(
                    "atom_pair_batch: a batch had different atoms in its second forward pass. The trainer changes its "
                    "batches or computes its loss in eval mode, or something draws random numbers from other generators than "
                    "those of torch, numpy and random; "
                    "leave atom_pair_batch out"
                )
            self._checked = True
        return cached

    @staticmethod
    @torch.no_grad()
    def _first_pass(group: list[Any], model: Any, device: torch.device, read: Callable, loss: Callable) -> list:
        buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
        # DDP synchronizes buffers in the first forward pass of a step, which should be the one with gradients.
        synchronizes = getattr(model, "require_forward_param_sync", None)
        packed, states = [], []
        with warnings.catch_warnings():
            # Reentrant activation checkpointing warns so in every pass without gradients.
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
            term, parts, atoms = loss(gather_rows(rows))
            (gradient,) = torch.autograd.grad(term, rows)
        parts, atoms = (type(values)(*(value.detach() for value in values)) for values in (parts, atoms))
        sizes = [len(rows) for rows in packed]
        return [
            (CachedAtoms(term.detach(), parts, atoms, rows, part, len(group)), state)
            for rows, part, state in zip(packed, gradient.split(sizes), states, strict=True)
        ]
