"""The atom loss in a custom training loop, such as one with Accelerate alone."""

from typing import Any

from torch import Tensor, nn

from ..atoms.energy import Atoms
from ..atoms.loss import loss_of
from ..errors import AtomError
from ..modeling.attach import remove_explainer
from ..modeling.mixin import AtomMixin
from ..utils.distributed import gather_rows, sum_over_processes
from .model_setup import check_compiled


def start_step(model: nn.Module, progress: float) -> None:
    """Begins an optimizer step, before its first forward pass: what the step before has measured sets the factor of the
    relative weight, and the schedule goes on.

    Args:
        model: a model with atoms, wrapped or not. On several processes all of them call this.
        progress: the share of the training steps that is done, in [0, 1).
    """
    check_compiled(model, "torch.compile of the whole model")
    inner = _atom_model(model)
    remove_explainer(inner)
    inner.atom_balancer.update(sum_over_processes)
    inner.atom_balancer.strength = inner.atom_config.strength(progress)


def atom_term(model: nn.Module, outputs: Any) -> Tensor:
    """What joins the task loss: the weight times the atom loss of a batch, a scalar with its gradient.

    Pairs are drawn from the batches of all processes together. Under gradient accumulation it is scaled as the task loss is.

    Args:
        model: a model with atoms, wrapped or not.
        outputs: what its forward gave in training.

    Raises:
        AtomError: outputs without atoms, as in evaluation.
    """
    if "atoms" not in outputs:
        raise AtomError("outputs have no atoms: in evaluation, or without a gradient, a forward pass gives none")
    config = _atom_model(model).atom_config
    return config.weight * loss_of(Atoms.unpack(gather_rows(outputs["atoms"])), config).loss


def _atom_model(model: nn.Module) -> AtomMixin:
    found = next((module for module in model.modules() if isinstance(module, AtomMixin)), None)
    if found is None:
        raise AtomError(f"this {type(model).__name__} has no atoms attached; attach_atoms(model) before it is wrapped")
    return found
