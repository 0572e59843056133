"""Rescale the loss of models that ignore `num_items_in_batch`, and scale the atom loss to match."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer

from ..modeling.inference import evaluating
from ..modeling.unwrap import inner_model
from .random_state import keeping_random_state


class TaskLossScale:
    """Rescale the task loss of a model that ignores `num_items_in_batch`.

    Trainer passes the number of labels in the whole step to every model that takes keyword arguments, and then expects the
    loss to be a sum divided by that number. BERT, DistilBERT, RoBERTa and GPT-2 classifiers, among others, still return the
    mean over their own batch (transformers issue 47688), so that the step grows with every accumulation step and process.
    Whether a model does so is tried once.

    Args:
        trainer: any Trainer.
        computes: the class whose `compute_loss` runs, below the mixin; any but Trainer's is left alone.
    """

    def __init__(self, trainer: Trainer, computes: type):
        self.trainer = trainer
        self.computes = computes
        self._ignores_items: bool | None = None

    def anew(self) -> "TaskLossScale":
        """The same for another model."""
        return TaskLossScale(self.trainer, self.computes)

    def of(self, inputs: Any, num_items_in_batch: Any) -> Tensor | None:
        """The factor for the task loss of a batch, a scalar; None if its scale is right."""
        trainer = self.trainer
        own_loss = trainer.label_smoother is None and trainer.compute_loss_func is None
        own_loss = own_loss and self.computes is Trainer and trainer.loss_is_scaled_for_ga is None
        alone = trainer.args.world_size == 1 and getattr(trainer, "current_gradient_accumulation_steps", 1) == 1
        if alone or num_items_in_batch is None or not (own_loss and trainer.model_accepts_loss_kwargs):
            return None
        if self._ignores_items is None:
            self._ignores_items = self._tries(inputs, num_items_in_batch)
        if not self._ignores_items:
            return None
        if "shift_labels" in inputs:
            labels = inputs["shift_labels"]
        else:
            labels = inputs["labels"][..., 1:] if trainer._loss_shifts_labels else inputs["labels"]
        return labels.ne(-100).sum() / num_items_in_batch

    def _tries(self, inputs: Any, num_items_in_batch: Any) -> bool:
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        losses = []
        with trying_out(model, self.trainer.args.device):
            for factor in (1, 2):
                outputs = model(**inputs, num_items_in_batch=factor * num_items_in_batch)
                losses.append(abs(float(outputs["loss"] if isinstance(outputs, dict) else outputs[0])))
        return losses[1] > 0.75 * losses[0]  # a loss divided by the number would be half as large


@contextmanager
def trying_out(model: Any, device: torch.device) -> Iterator[None]:
    """Context manager: eval mode, no gradients; restores each module's mode and the random state."""
    with evaluating(model), keeping_random_state(device), torch.no_grad():
        if getattr(inner_model(model), "is_loaded_in_4bit", False):
            # On a CPU the first pass in eval mode makes bitsandbytes pack the weights for inference, without gradients.
            model.train()
        yield


def loss_divisor(trainer: Trainer, num_items_in_batch: Any) -> int:
    """The divisor of the atom term in `compute_loss` that makes it, after Trainer's scaling, a mean over the step."""
    scaled = trainer.loss_is_scaled_for_ga
    if scaled is None:
        scaled = (trainer.model_accepts_loss_kwargs and num_items_in_batch is not None) or trainer.compute_loss_func
    return getattr(trainer, "current_gradient_accumulation_steps", 1) if scaled else 1
