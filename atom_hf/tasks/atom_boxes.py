"""Atom modeling as a task: a classifier with atoms, taken apart into the boxes of the pattern `atom_modeling`."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..atoms.energy import Atoms
from ..atoms.loss import StepAtoms, loss_of
from ..errors import AtomError
from ..modeling.layers import is_image_model, pick_layer
from ..modeling.mixin import AtomMixin, without_atoms
from ..modeling.tokens import find_tokens
from ..utils.distributed import gather_rows
from .wires import Tokens


@dataclass
class States:
    """What goes from the body to the head and to the atoms: the body's outputs, and the inputs by the names of `forward`."""

    outputs: Any
    inputs: dict[str, Tensor]


def atom_boxes(model: AtomMixin) -> dict[str, nn.Module | Callable[..., Tensor]]:
    """The boxes `body`, `head`, `atom` and `energy` of a classifier: they share its parameters, which train in place.

    `minimize energy(atom(body(x)))` is the atom loss of the model's `atom_config`, without its weight: as an atom of weight w,
    its gradients are those of AtomTrainer with `atom_weight` w, `atom_weighting` absolute, and no schedule and warm-up.

    Args:
        model: a Transformers classifier of images or texts, after `attach_atoms`.

    Raises:
        AtomError: no atoms are attached; the model has no body of its own; or its heads train apart from the energy.
    """
    if not isinstance(model, AtomMixin):
        raise AtomError(f"model: this {type(model).__name__} has no atoms attached; call attach_atoms(model) first")
    if model.atom_config.trains_heads_apart:
        raise AtomError(
            "model: its heads train apart from the energy (form separation); as a task there is the form paper"
        )
    if model.base_model is model or model.base_model_prefix not in model._modules:
        raise AtomError(
            f"model: {type(model).__name__} is all body; give a classifier, such as a ...ForImageClassification"
        )
    energy = _Energy(model)
    return {"body": _Body(model), "head": _Head(model), "atom": _Atom(model), "energy": energy}


class _Body(nn.Module):
    """An image or a text to the outputs of the base model, hidden states among them."""

    takes_wires = True

    def __init__(self, model: Any):
        super().__init__()
        self.base, self._is_image = model.base_model, is_image_model(model)

    def forward(self, wire: Tensor | Tokens) -> States:
        is_text = not self._is_image
        inputs = {"input_ids": wire.ids, "attention_mask": wire.mask} if is_text else {"pixel_values": wire}
        return States(self.base(**inputs, output_hidden_states=True), inputs)


class _Head(nn.Module):
    """The base model's outputs to logits, by the model's own forward."""

    def __init__(self, model: Any):
        super().__init__()
        rest = copy.copy(model)
        rest.__class__ = without_atoms(type(model))
        rest._modules = {
            n: module for n, module in model._modules.items() if n not in (model.base_model_prefix, "atom_heads")
        }
        self._given = _Given()
        rest._modules[model.base_model_prefix] = self._given
        self.rest = rest

    def forward(self, states: States) -> Tensor:
        self._given.outputs = states.outputs
        try:
            return self.rest(**states.inputs).logits
        finally:
            self._given.outputs = None


class _Given(nn.Module):
    """Stands for the base model, and returns what it has given already."""

    outputs: Any = None

    def forward(self, *_: Any, **__: Any) -> Any:
        return self.outputs


class _Atom(nn.Module):
    """The hidden states of one layer to packed atoms [B, d + 3]."""

    def __init__(self, model: Any):
        super().__init__()
        self.heads = model.atom_heads
        self._model = (model,)  # no part of this module

    def forward(self, states: States) -> Tensor:
        (model,) = self._model
        config = model.atom_config
        hidden = pick_layer(states.outputs, config.layer, model)
        tokens, mask = find_tokens(hidden, states.inputs, config, model.config, model)
        importance, position = self.heads(tokens)
        return Atoms.from_tokens(importance, position, mask, token_reduction=config.token_reduction).pack()


class _Energy:
    """Packed atoms, of all processes, to the atom loss."""

    def __init__(self, model: Any):
        self._config = model.atom_config

    def __call__(self, packed: Tensor) -> Tensor:
        return loss_of(StepAtoms.unpack(gather_rows(packed), self._config).energy, self._config).loss
