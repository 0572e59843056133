"""Training loss with the flag on: the trainer's own plus the atom loss of its forward passes."""

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer

from ..atoms.energy import Atoms
from ..atoms.loss import AtomLoss, StepAtoms, step_loss
from ..errors import AtomError
from ..modeling.collector import AtomCollector, collecting
from ..modeling.inference import check_numbers
from ..modeling.mixin import AtomMixin
from ..modeling.unwrap import Objective
from ..utils.distributed import gather_rows, processes
from .first_samples import FirstSamplesMixin
from .loss_log import LossLog
from .loss_scale import TaskLossScale, loss_divisor
from .model_setup import parameter_names
from .pair_cache import PairCache


class LossMixin(FirstSamplesMixin):
    """Part of `AtomTrainerMixin`. With the flag off the loss is the Trainer's own."""

    _atom_on: bool
    _atom_one_column: bool  # only the first column of the first forward pass of a step is read
    _atom_checked: bool
    _atom_joined = False  # whether the loss that is computed, or that of this step, includes the atom loss
    _atom_in_step = False  # whether a `training_step` is running
    _atom_loss_scale: TaskLossScale
    _atom_pairs: PairCache | None
    _atom_log: LossLog
    _atom_model: AtomMixin
    _atom_unwrapped: Any

    def get_batch_samples(self, *args: Any, **kwargs: Any):
        batches, num_items_in_batch = super().get_batch_samples(*args, **kwargs)
        if self._atom_on and self._atom_pairs is not None:
            self._atom_pairs.start(batches)
        return batches, num_items_in_batch

    def training_step(self, model, inputs, num_items_in_batch=None):
        with self._atom_step():
            return self._atom_training_step(model, inputs, num_items_in_batch)

    def _atom_training_step(self, model, inputs, num_items_in_batch):
        if self._atom_on and self._atom_pairs is not None:
            model.train()
            # A schedule-free optimizer switches to its training weights.
            if callable(getattr(self.optimizer, "train", None)):
                self.optimizer.train()
            self._atom_pairs.enter(
                model, self.args.device, lambda batch: self._atom_read(model, batch)[0], self._atom_loss
            )
        return super().training_step(model, inputs, num_items_in_batch)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        options = {"return_outputs": return_outputs, "num_items_in_batch": num_items_in_batch}
        if not self._atom_trains(model):
            return super().compute_loss(model, inputs, **options)
        share, rows = self._atom_loss_scale.of(inputs, num_items_in_batch), self._atom_rows(inputs)
        with self._atom_collecting() as collector:
            found = super().compute_loss(model, inputs, **options)
        return self._atom_join(found, collector, inputs, rows, num_items_in_batch, share)

    @contextmanager
    def _atom_step(self) -> Iterator[None]:
        """Context manager: what is computed is the loss of a training step. Raises `AtomError` if it had no atom loss."""
        if self._atom_in_step or not self._atom_on:  # the step of a subclass calls that of its base
            yield
            return
        self._atom_in_step, self._atom_joined = True, False
        try:
            yield
        finally:
            self._atom_in_step = False
        if not self._atom_joined and self.state.global_step == 0:
            raise AtomError(
                f"training_step of {type(self).__name__} does not call the compute_loss of its class, where the atom loss is "
                "added; compute the loss there, or leave atom out here"
            )

    def _atom_trains(self, model: Any) -> bool:
        """Whether a loss of `model` is one to train on.

        Not `model.training` alone: a step may compute its loss in eval mode (frozen dropout), and an evaluation in training
        mode (Monte Carlo dropout).
        """
        return self._atom_on and torch.is_grad_enabled() and (self._atom_in_step or model.training)

    def _atom_collecting(self) -> Any:
        return collecting(self._atom_model, most=1 if self._atom_one_column else None)

    def _atom_join(
        self,
        found: Any,
        collector: AtomCollector,
        inputs: Any,
        rows: int | None,
        num_items_in_batch: Any,
        share: Tensor | None = None,
    ) -> Any:
        """Add the atom loss of a `compute_loss`'s forward passes to what it returned.

        Args:
            found: what `compute_loss` returned: a loss, or a loss and outputs.
            collector: the forward passes that it ran.
            inputs: the batch.
            rows: the number of rows that are samples; None for all.
            num_items_in_batch: the number of labels in the step.
            share: the factor that corrects the scale of the task loss, if needed.
        """
        self._atom_joined = True
        loss, *outputs = found if isinstance(found, tuple) else (found,)
        loss = loss if share is None else loss * share
        packed, importance = self._atom_rows_of(collector, rows, inputs, loss)
        if not self._atom_checked:  # a stream, which `check_atoms` could not read in advance
            self._atom_check_streamed(packed, importance)
        if self._atom_pairs is not None:
            cached = self._atom_pairs.of(packed)
            parts, atoms, term = cached.loss, cached.atoms, cached.term(packed)
        else:
            # Of the samples of other processes it is not known.
            term, parts, atoms = self._atom_loss(gather_rows(packed), collector.complete and processes() == 1)
        steps = loss_divisor(self, num_items_in_batch)
        self._atom_log.add(loss if steps == 1 else loss * steps, parts, atoms, importance)
        loss = loss + (term if steps == 1 else term / steps)
        return (loss, *outputs) if outputs else loss

    def _atom_loss(self, packed: Tensor, complete: bool = False) -> tuple[Tensor, AtomLoss, Atoms]:
        """(what joins the task loss, its parts, the atoms to log) of the packed atoms of all processes.

        `complete` says that every sample is known to have a token.
        """
        config = self._atom_model.atom_config
        return *step_loss(packed, config, complete), StepAtoms.unpack(packed, config).shown

    def _atom_read(self, model: Any, inputs: Any) -> tuple[Tensor, Tensor]:
        """The packed atoms and the importance of a batch, the same as in the later `compute_loss`."""
        inputs = self._prepare_inputs(inputs)
        with self.compute_loss_context_manager(), collecting(self._atom_model, most=1, always=True) as collector:
            if self._atom_one_column:
                outputs = model(self.collect_features(dict(inputs))[0][0])
            else:
                outputs = model(**self._atom_inputs(inputs))
        loss = outputs.get("loss") if isinstance(outputs, dict) else None
        packed, importance = self._atom_rows_of(collector, self._atom_rows(inputs), inputs, loss)
        return packed.float(), importance

    def _atom_inputs(self, inputs: Any) -> dict[str, Any]:
        """The arguments of the model's `forward` in a batch."""
        if self.label_smoother is not None or self.compute_loss_func is not None:
            # Trainer computes this loss outside the model, and does not pass it the labels.
            return {name: value for name, value in inputs.items() if name != "labels"}
        if self._atom_loss_scale.computes is not Trainer or type(self).compute_loss is not LossMixin.compute_loss:
            # The batches of another trainer or a custom loss may hold more than the model takes.
            whole = (
                self._atom_unwrapped
            )  # an adapter, whose forward names no argument, or an objective around the model
            model = whole if isinstance(whole, Objective) else self._atom_model
            taken = parameter_names(type(model).forward)
            return {name: value for name, value in inputs.items() if name in taken}
        return inputs

    def _atom_rows(self, inputs: Any) -> int | None:
        """The number of samples in a first pass that sentence-transformers may run over all columns at once; else None."""
        if not self._atom_one_column:
            return None
        first = self.collect_features(dict(inputs))[0][0]
        return next(len(value) for value in first.values() if torch.is_tensor(value))

    def _atom_rows_of(
        self, collector: AtomCollector, rows: int | None, inputs: Any, loss: Any
    ) -> tuple[Tensor, Tensor]:
        joined = collector.join()
        if joined is None:
            own = type(self).compute_loss
            given = self._atom_loss_scale.computes.__name__
            name = given if own is LossMixin.compute_loss else own.__qualname__.split(".")[-2]
            raise AtomError(
                f"compute_loss of {name} runs no forward pass of the model with a gradient, "
                "and atoms are made in one (prefix tuning of a classifier goes past it); leave atom out here"
            )
        if not self._atom_checked:
            check_numbers(self._atom_model, joined[0].detach(), inputs, loss)
        return joined[0][:rows], joined[1][:rows]


def wrap_own_methods(cls: type, before: Iterable[type]) -> None:
    """Wrap a `compute_loss` and a `training_step` that override those of the mixin: of `cls` itself or of bases `before` it."""
    for name, wrap in (("compute_loss", _joining), ("training_step", _stepping)):
        own = next((vars(base)[name] for base in before if name in vars(base)), None)
        if inspect.isfunction(own) and not getattr(own, "_atom_wrapped", False):
            wrapped = wrap(own)
            wrapped._atom_wrapped = True
            setattr(cls, name, wrapped)


def _joining(compute_loss: Callable) -> Callable:
    """Add the atom loss to what `compute_loss` returns, unless it was added by a call of `super().compute_loss`."""

    @functools.wraps(compute_loss)
    def compute(self, model, inputs, *args, **kwargs):
        if not self._atom_trains(model):
            return compute_loss(self, model, inputs, *args, **kwargs)
        self._atom_joined, rows = False, self._atom_rows(inputs)
        with self._atom_collecting() as collector:
            found = compute_loss(self, model, inputs, *args, **kwargs)
        if self._atom_joined:
            return found
        return self._atom_join(found, collector, inputs, rows, kwargs.get("num_items_in_batch"))

    return compute


def _stepping(training_step: Callable) -> Callable:
    """Let the losses that `training_step` computes be those of a training step."""

    @functools.wraps(training_step)
    def step(self, *args, **kwargs):
        with self._atom_step():
            return training_step(self, *args, **kwargs)

    return step
