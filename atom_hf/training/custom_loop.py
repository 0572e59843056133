"""The atom loss in a custom training loop, such as one with Accelerate alone."""

from typing import Any

import torch
from torch import Tensor, nn

from ..atoms.loss import step_loss
from ..errors import AtomError
from ..modeling.attach import remove_explainer
from ..modeling.mixin import AtomMixin
from ..utils.distributed import gather_rows, sum_over_processes
from .model_setup import check_compiled


def start_step(model: nn.Module, progress: float) -> None:
    """Begin an optimizer step, before its first forward pass: updates the gradient balancer and the schedule.

    Args:
        model: a model with atoms, wrapped or not. With several processes, call it on all of them.
        progress: the fraction of the training steps that is done, in [0, 1).
    """
    check_compiled(model, "torch.compile of the whole model")
    inner = _atom_model(model)
    remove_explainer(inner)
    inner.atom_balancer.update(sum_over_processes)
    inner.atom_balancer.strength = inner.atom_config.strength(progress)


def atom_term(model: nn.Module, outputs: Any) -> Tensor:
    """The term to add to the task loss: the weight times the atom loss of a batch, a scalar with its gradient.

    Pairs are drawn from the batches of all processes together. Under gradient accumulation scale it like the task loss.

    Args:
        model: a model with atoms, wrapped or not.
        outputs: the outputs of its forward pass in training.

    Raises:
        AtomError: outputs without atoms, as in eval mode.
    """
    packed = outputs.get("atoms") if isinstance(outputs, dict) else _last_atoms(model, outputs)
    if packed is None:
        raise AtomError(
            "outputs have no atoms: in eval mode or without gradients a forward pass returns none unless it is given "
            "return_atoms=True"
        )
    config = _atom_model(model).atom_config
    return step_loss(gather_rows(packed), config)[0]


def _last_atoms(model: nn.Module, outputs: Any) -> Tensor | None:
    """The atoms in a tuple, as with return_dict=False or of a model of one's own: it ends with them and the importance."""
    config = _atom_model(model).atom_config
    width = (config.hidden_size or 1) + 3
    last = [value for value in outputs[-2:] if torch.is_tensor(value)]
    if len(outputs) < 3 or len(last) < 2 or last[0].dim() != 2 or len(last[0]) != len(last[1]):
        return None
    fits = last[0].shape[1] > width if config.trains_heads_apart else last[0].shape[1] == width
    return last[0] if fits else None


def _atom_model(model: nn.Module) -> AtomMixin:
    found = next((module for module in model.modules() if isinstance(module, AtomMixin)), None)
    if found is None:
        raise AtomError(f"this {type(model).__name__} has no atoms attached; attach_atoms(model) before it is wrapped")
    return found
