"""The training loss of a trainer with the flag on: its own, and the atom loss of the forward passes that it runs."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer

from ..atoms.energy import Atoms
from ..atoms.loss import AtomLoss, loss_of
from ..errors import AtomError
from ..modeling.collector import AtomCollector, collecting
from ..modeling.mixin import AtomMixin
from ..utils.distributed import gather_rows
from .loss_log import LossLog
from .loss_scale import TaskLossScale, loss_divisor
from .model_setup import parameter_names
from .pair_cache import PairCache


class LossMixin:
    """Part of `AtomTrainerMixin`. With the flag off it is the Trainer's own loss."""

    _atom_on: bool
    _atom_one_column: bool  # only the first forward pass of a step is read, and of it the first column
    _atom_checked: bool
    _atom_joined: bool  # whether the atom loss is in the loss of this step
    _atom_loss_scale: TaskLossScale
    _atom_pairs: PairCache | None
    _atom_log: LossLog
    _atom_model: AtomMixin

    def get_batch_samples(self, *args: Any, **kwargs: Any):
        batches, num_items_in_batch = super().get_batch_samples(*args, **kwargs)
        if self._atom_on and self._atom_pairs is not None:
            self._atom_pairs.start(batches)
        return batches, num_items_in_batch

    def training_step(self, model, inputs, num_items_in_batch=None):
        if self._atom_on and self._atom_pairs is not None:
            model.train()
            # A schedule-free optimizer has weights of its own to train at.
            if callable(getattr(self.optimizer, "train", None)):
                self.optimizer.train()
            self._atom_pairs.enter(
                model, self.args.device, lambda batch: self._atom_read(model, batch)[0], self._atom_loss
            )
        return super().training_step(model, inputs, num_items_in_batch)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        options = {"return_outputs": return_outputs, "num_items_in_batch": num_items_in_batch}
        if not (self._atom_on and model.training):
            return super().compute_loss(model, inputs, **options)
        share, rows = self._atom_loss_scale.of(inputs, num_items_in_batch), self._atom_rows(inputs)
        with self._atom_collecting() as passes:
            found = super().compute_loss(model, inputs, **options)
        return self._atom_join(found, passes, rows, num_items_in_batch, share)

    def _atom_collecting(self) -> Any:
        return collecting(self._atom_model, most=1 if self._atom_one_column else None)

    def _atom_join(
        self, found: Any, passes: AtomCollector, rows: int | None, num_items_in_batch: Any, share: Tensor | None = None
    ) -> Any:
        """A loss, or a loss and outputs, with the atom loss of the forward passes that it was made of.

        Args:
            found: what a `compute_loss` gave.
            passes: the forward passes that it ran.
            rows: how many rows of them are samples; None for all.
            num_items_in_batch: how many labels the step has.
            share: what the task loss is to be multiplied by, if it is scaled wrongly.
        """
        self._atom_joined = True
        loss, *outputs = found if isinstance(found, tuple) else (found,)
        loss = loss if share is None else loss * share
        packed, importance = self._atom_rows_of(passes, rows)
        if not self._atom_checked:  # data that can be read but once
            self._atom_check(packed, importance, self.args.per_device_train_batch_size)
        if self._atom_pairs is not None:
            cached = self._atom_pairs.of(packed)
            parts, atoms, term = cached.loss, cached.atoms, cached.term(packed)
        else:
            atoms = Atoms.unpack(gather_rows(packed))
            parts = self._atom_loss(atoms)
            term = parts.loss
        steps = loss_divisor(self, num_items_in_batch)
        self._atom_log.add(loss * steps, parts, atoms, importance)
        loss = loss + self._atom_model.atom_config.weight * term / steps
        return (loss, *outputs) if outputs else loss

    def _atom_loss(self, atoms: Atoms) -> AtomLoss:
        return loss_of(atoms, self._atom_model.atom_config)

    def _atom_read(self, model: Any, inputs: Any) -> tuple[Tensor, Tensor]:
        """The packed atoms and the importance of a batch, as `compute_loss` will see them again."""
        inputs = self._prepare_inputs(inputs)
        with self.compute_loss_context_manager(), collecting(self._atom_model, most=1, always=True) as passes:
            if self._atom_one_column:
                model(self.collect_features(dict(inputs))[0][0])
            else:
                model(**self._atom_inputs(inputs))
        packed, importance = self._atom_rows_of(passes, self._atom_rows(inputs))
        return packed.float(), importance

    def _atom_inputs(self, inputs: Any) -> dict[str, Any]:
        """What the model is given of a batch."""
        if self.label_smoother is not None or self.compute_loss_func is not None:
            # Where the loss is not the model's own, Trainer keeps the labels from it.
            return {name: value for name, value in inputs.items() if name != "labels"}
        if self._atom_loss_scale.computes is not Trainer or type(self).compute_loss is not LossMixin.compute_loss:
            # The batches of another trainer, or for a loss of one's own, may hold more than the model takes.
            taken = parameter_names(type(self._atom_model).forward)
            return {name: value for name, value in inputs.items() if name in taken}
        return inputs

    def _atom_rows(self, inputs: Any) -> int | None:
        """How many rows of the first forward pass are samples: sentence-transformers may pass all columns at once."""
        if not self._atom_one_column:
            return None
        first = self.collect_features(dict(inputs))[0][0]
        return next(len(value) for value in first.values() if torch.is_tensor(value))

    def _atom_rows_of(self, passes: AtomCollector, rows: int | None) -> tuple[Tensor, Tensor]:
        joined = passes.join()
        if joined is None:
            raise AtomError(
                f"compute_loss of {self._atom_loss_scale.computes.__name__} runs no forward pass of the model with a gradient, "
                "and atoms are made in one (prefix tuning of a classifier goes past it); leave atom out here"
            )
        return joined[0][:rows], joined[1][:rows]

    def _atom_check(self, packed: Tensor, importance: Tensor, samples: int) -> None:
        """Refuses what the first samples show: rows that are no samples, or samples without a token."""
        self._atom_checked = True
        if len(packed) < min(2, samples):
            raise AtomError(
                "data_collator: it puts several samples into one row (packing, padding-free), and atoms are made of rows; use "
                "one that pads"
            )
        if torch.isnan(importance).all():
            raise AtomError(
                f"atom_tokens={self._atom_model.atom_config.tokens!r} leaves no token in the first samples; "
                "use atom_tokens='all'"
            )


def joining(compute_loss: Callable) -> Callable:
    """A `compute_loss` that a class defines in front of the mixin's: where it does not call that, the atom loss joins here."""

    @functools.wraps(compute_loss)
    def compute(self, model, inputs, *args, **kwargs):
        if not (self._atom_on and model.training):
            return compute_loss(self, model, inputs, *args, **kwargs)
        self._atom_joined, rows = False, self._atom_rows(inputs)
        with self._atom_collecting() as passes:
            found = compute_loss(self, model, inputs, *args, **kwargs)
        return found if self._atom_joined else self._atom_join(found, passes, rows, kwargs.get("num_items_in_batch"))

    return compute
