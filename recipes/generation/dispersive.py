"""Dispersive Loss as a part that any Trainer takes: on what one module of the model gives."""

from typing import Any

import torch

from atom_hf.experiments.regularizers import dispersive_loss
from atom_hf.modeling.blocks import reading_block
from atom_hf.training.loss_scale import loss_divisor

TEMPERATURE = 0.5  # the authors'


class Dispersive:
    """Adds `weight` times Dispersive Loss of the output of `place`: `class Mine(Dispersive, GANTrainer): ...`

    Source: Wang and He (arXiv 2506.09027). As in the authors' code, the whole output of a sample is one vector.
    """

    weight: float = 0.0
    place: str = ""
    """The name of a module."""

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None):
        given = {"num_items_in_batch": num_items_in_batch}
        if not (self.weight and model.training):
            return super().compute_loss(model, inputs, return_outputs=return_outputs, **given)
        with reading_block(self.accelerator.unwrap_model(model), self.place) as calls:
            loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **given)
        states = calls[0].result
        states = states if torch.is_tensor(states) else states[0]  # a block of a UNet gives what it skips too
        term = dispersive_loss(states.flatten(1), TEMPERATURE)
        loss = loss + self.weight * term / loss_divisor(self, num_items_in_batch)
        return (loss, outputs) if return_outputs else loss
