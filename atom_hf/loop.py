"""The atom loss in a training loop of one's own, such as one with Accelerate alone."""

from typing import Any

from accelerate.utils import is_compiled_module
from torch import Tensor, nn

from .attaching import untie
from .config import AtomConfig
from .energy import AtomLoss, Atoms, atom_loss
from .errors import AtomError
from .modeling import AtomMixin
from .utils.distributed import gather_rows, sum_over_processes


def start_step(model: nn.Module, progress: float) -> None:
    """Begins an optimizer step, before its first forward pass: what the step before has measured sets the factor of the
    relative weight, and the schedule goes on.

    Args:
        model: a model with atoms, wrapped or not. On several processes all of them call this.
        progress: the share of the training steps that is done, in [0, 1).
    """
    check_compiled(model, "torch.compile of the whole model")
    inner = _atom_model(model)
    untie(inner)
    inner.atom_gate.update(sum_over_processes)
    inner.atom_gate.strength = inner.atom_config.strength(progress)


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


def check_compiled(model: nn.Module, what: str) -> None:
    """Refuses the relative weight for a model compiled as a whole. Raises `AtomError` that begins with `what`."""
    whole = [module._orig_mod for module in model.modules() if is_compiled_module(module)]
    whole += [module for module in model.modules() if getattr(module, "_compiled_call_impl", None) is not None]
    if any(isinstance(module, AtomMixin) and module.atom_gate.ratio for module in whole):
        raise AtomError(
            f"{what}: compiled as a whole it hides its gradients from the relative weight; use atom_weighting 'absolute' "
            "(AtomConfig.weighting), or leave it out"
        )


def loss_of(atoms: Atoms, config: AtomConfig) -> AtomLoss:
    """The atom loss that a configuration asks for."""
    return atom_loss(
        atoms,
        softening=config.softening,
        neutrality=config.neutrality,
        charge_floor=config.charge_floor,
        charge_floor_weight=config.charge_floor_weight,
        energy_weight=config.energy_weight,
    )


def _atom_model(model: nn.Module) -> AtomMixin:
    found = next((module for module in model.modules() if isinstance(module, AtomMixin)), None)
    if found is None:
        raise AtomError(f"this {type(model).__name__} has no atoms attached; attach_atoms(model) before it is wrapped")
    return found
