"""Forward pass of a model with atoms: the base's own forward, then the heads on one layer's hidden states."""

import functools
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.utils import ModelOutput, logging

from ..atoms.energy import pack_atoms
from ..atoms.loss import StepAtoms
from ..errors import AtomError
from .collector import reading_once
from .explaining import explain_tokens, is_explained, layers_to_read
from .layers import pick_layer
from .output_layer import Read, find_output_layer, watching
from .own_outputs import as_model_output, named, run_own, showing, takes, with_more
from .tokens import everything_of, find_tokens, locate_tokens

logger = logging.get_logger(__name__)

OUTPUT_KEYS = ("atoms", "atom_importance")


class WidthError(AtomError):
    """The hidden states have another width than the heads were made for."""

    def __init__(self, message: str, width: int):
        super().__init__(message)
        self.width = width


def forward_with_atoms(
    model: Any, base_forward: Any, args: tuple, kwargs: dict[str, Any], backbone: Any = None, asked: bool = False
) -> Any:
    """Run a forward and add the atoms to its outputs.

    Args:
        model: the model with atoms.
        base_forward: its forward without them, which takes the model, `args` and `kwargs`.
        backbone: the module whose outputs hold the hidden states, where those of the forward itself do not.
        asked: whether the caller asked for the atoms, and not only the training.
    """
    check_heads(model)
    state = model._atom_forward_state
    if state.own_outputs or (backbone is None and not takes(type(model).forward, "output_hidden_states")):
        return _forward_own(model, base_forward, args, kwargs, asked)
    wants_states = kwargs.get("output_hidden_states")
    if wants_states is None:
        wants_states = getattr(model.config, "output_hidden_states", False)
    return_dict = kwargs.get("return_dict")
    if return_dict is None:
        return_dict = getattr(model.config, "return_dict", True)
    called = kwargs
    kwargs = {**kwargs, "output_hidden_states": True if wants_states else _states_to_keep(model)}
    if takes(type(model).forward, "return_dict"):
        kwargs["return_dict"] = True
    result = None
    while result is None:
        with reading_once(model, backbone) as given, _watching(model) as read:
            outputs = base_forward(model, *args, **kwargs)
        if not isinstance(outputs, ModelOutput):
            state.own_outputs = True
            return _forward_own(model, base_forward, args, called, asked)
        has_states = any(_are_states(name, value) for name, value in outputs.items())
        states = outputs if has_states or not given else given[-1]
        inputs = {**named(type(model).forward, args, kwargs), **(state.text or {})}
        result = _add_atoms(model, outputs, states, inputs, read, keep_states=bool(wants_states))
        kwargs["output_hidden_states"] = True
    return result if return_dict else result.to_tuple()


def check_heads(model: Any) -> None:
    """Raise `AtomError` if the heads of a model that learns are frozen."""
    if _learns(model) and not all(parameter.requires_grad for parameter in model.atom_heads.trained_parameters()):
        raise AtomError(
            "the atom heads are frozen, at least in part; if get_peft_model froze them, call attach_atoms on what "
            "it gives (the adapter would be saved without them), else model.atom_heads.requires_grad_(True)"
        )


# The balancer's hooks act at run time, and a compiled graph would not call them.
@torch.compiler.disable
def _add_atoms(
    model: Any, outputs: ModelOutput, states: ModelOutput, inputs: dict[str, Any], read: Read | None, keep_states: bool
) -> ModelOutput | None:
    """`outputs` with the atoms of `states`, and without the hidden states if the caller did not ask for them.

    None if one layer's states were requested and the model returned others: some models count layers differently from their
    configuration, or do not support the choice. All states are requested from then on.
    """
    layer, asked_for_all = model.atom_config.layer, inputs["output_hidden_states"] is True
    try:
        hidden, *others = (pick_layer(states, each, model) for each in (layer, *layers_to_read(model)))
    except AtomError:
        if asked_for_all:
            raise
        hidden, others = None, []
    if hidden is None or any(other is None for other in others):
        model._atom_forward_state.keeps_all_states = True
        return None
    if read is not None and not _knows_output_layer(model, read, outputs, asked_for_all):
        return None
    atoms, importance = read_atoms(model, hidden, inputs, outputs, states, read)
    values = {name: value for name, value in outputs.items() if keep_states or not _are_states(name, value)}
    return output_class(type(outputs))(**values, atoms=atoms, atom_importance=importance)


def _are_states(name: str, value: Any) -> bool:
    # A tensor of that name, such as the features of an image, is a regular output, whether or not states are requested.
    return name.endswith("hidden_states") and isinstance(value, tuple | list)


@torch.compiler.disable
def _forward_own(model: Any, base_forward: Any, args: tuple, kwargs: dict[str, Any], asked: bool) -> Any:
    """`forward_with_atoms` of a model that returns a tuple or a plain dict.

    In the loss of a trainer, which collects the atoms, the outputs stay as they are. A custom loop finds the atoms at their
    end. Who asks for the atoms gets a `ModelOutput`.
    """
    with reading_once(model), _watching(model) as read:
        outputs, hidden, inputs = run_own(model, base_forward, args, kwargs)
    inputs = {**inputs, **(model._atom_forward_state.text or {})}
    made = as_model_output(outputs)
    if read is not None:
        _knows_output_layer(model, read, made, has_all_states=True)
    atoms, importance = read_atoms(model, hidden, inputs, made, None, read)
    collector = model._atom_forward_state.collector
    more = dict(zip(OUTPUT_KEYS, (atoms, importance), strict=True))
    if asked:
        return as_model_output(outputs, **more)
    return with_more(outputs, more) if collector is None else showing(outputs, atoms)


def read_atoms(
    model: Any,
    hidden: Tensor,
    inputs: dict[str, Any],
    outputs: ModelOutput,
    states: ModelOutput | None,
    read: Read | None,
) -> tuple[Tensor, Tensor]:
    """The packed atoms (`StepAtoms`) of a forward pass, and the importance [B, N] of one layer's hidden states; both are added
    to the collector, if there is one.

    The importance is the charge; in eval mode, with an explainer, its importance for the class that `outputs` predict.
    """
    config = model.atom_config
    if config.tokens != "read":
        hidden = _balanced(model, hidden)
    tokens, mask, prefix = locate_tokens(_at_heads(model, hidden), inputs, config, model.config, model)
    if prefix and (is_explained(model) or not _learns(model)):
        # Whoever reads the heads' tokens finds each token of the model there.
        tokens, mask, prefix = *find_tokens(tokens, inputs, config, model.config, model), 0
    tokens = tokens[:, prefix:]
    width = tokens.shape[-1]
    if width != config.hidden_size:
        made = f", the heads were made for {config.hidden_size}; choose another, or" if config.hidden_size else ":"
        raise WidthError(
            f"{config.place} of {type(model).__name__} is {width} wide{made} attach with AtomConfig(hidden_size={width})",
            width,
        )
    energy, complete = None, mask is None and tokens.shape[1] > 0
    if config.trains_heads_apart:
        where = (
            _what_is_read(model, hidden, inputs, outputs, states, read) if config.tokens == "read" else (tokens, mask)
        )
        complete = complete and where[1] is None
        options = {name: getattr(config, name) for name in ("charges", "positions", "token_reduction")}
        energy = model.atom_heads.atoms_of(*where, **options)
        tokens = tokens.detach()  # the model does not learn from the heads' objective here
    importance, position = model.atom_heads(tokens)
    own = pack_atoms(importance, position, mask, token_reduction=config.token_reduction)
    packed = StepAtoms.pack(own, None) if energy is None else StepAtoms.pack(energy, own)
    explained = explain_tokens(model, tokens, mask, inputs, outputs, states)
    importance = (importance if explained is None else explained).detach()
    if mask is not None:
        importance = importance.masked_fill(~mask, float("nan"))
    if prefix:
        importance = F.pad(importance, (prefix, 0), value=float("nan"))
    if model._atom_forward_state.collector is not None:
        model._atom_forward_state.collector.add(packed, importance, model.training, complete)
    return packed, importance


def _what_is_read(
    model: Any,
    hidden: Tensor,
    inputs: dict[str, Any],
    outputs: ModelOutput,
    states: ModelOutput | None,
    read: Read | None,
) -> tuple[Tensor, Tensor | None]:
    """(tokens [B, N, d], mask bool [B, N] or None): what the output layer reads, or the last hidden states if there is none.

    Of several tokens a sample, padding is left out.

    Of a model of one's own, whose `states` are not all known, these are the layer's own, `hidden`.
    """
    layer = model._atom_forward_state.output_layer
    found = None if read is None or layer is None else read.tokens(layer, outputs.get("logits"))
    if found is None:
        last = _balanced(model, hidden if states is None else pick_layer(states, -1, model))
        return find_tokens(_at_heads(model, last), inputs, model.atom_config, model.config, model)
    tokens, mask = found
    tokens = _at_heads(model, _balanced(model, tokens))
    if mask is None and tokens.shape[1] > 1:
        side = "decoder" if getattr(model.config, "is_encoder_decoder", False) else "encoder"
        return locate_tokens(tokens, inputs, everything_of(side), model.config, model)[:2]
    return tokens, None if mask is None else mask.to(tokens.device)


def _balanced(model: Any, hidden: Tensor) -> Tensor:
    """Hidden states as the energy sees them: equal in value, their gradient scaled on the way back."""
    if not torch.is_grad_enabled():
        return hidden
    _check_gradient(model, hidden)
    return model.atom_balancer(hidden)


def _at_heads(model: Any, hidden: Tensor) -> Tensor:
    # With several devices (device_map), a layer's states lie on its own device. The heads are on the inputs' device.
    spread = len(set(getattr(model, "hf_device_map", {}).values())) > 1
    return hidden.to(model.atom_heads.importance.weight.device) if spread else hidden


def _watching(model: Any) -> AbstractContextManager[Read | None]:
    state = model._atom_forward_state
    if model.atom_config.tokens != "read" or not state.has_output_layer:
        return nullcontext()
    if state.output_layer is not None and not state.output_layer.is_in(model):
        state.output_layer = None
    return watching(model, state.output_layer)


def _knows_output_layer(model: Any, read: Read, outputs: ModelOutput, has_all_states: bool) -> bool:
    """Whether this pass can be used. Without an output layer the last hidden states are read, which have to be there."""
    state = model._atom_forward_state
    if state.output_layer is not None:
        if read.ran(state.output_layer):
            return True
        state.output_layer = None  # another adapter's, or replaced: it is looked for again, in another pass
        return False
    state.output_layer = find_output_layer(model, read, outputs.get("logits"))
    if state.output_layer is not None:
        return True
    logger.warning_once(
        f"no layer of {type(model).__name__} gives its logits unchanged: the energy uses the content tokens of the last "
        "hidden states"
    )
    state.has_output_layer, state.keeps_all_states = False, True
    return has_all_states


def _learns(model: Any) -> bool:
    """Whether the atoms of a forward pass are part of a training loss, which may be computed in eval mode."""
    return torch.is_grad_enabled() and (model.training or model._atom_forward_state.collector is not None)


def _check_gradient(model: Any, hidden: Tensor) -> None:
    """Raise `AtomError` if hidden states in training carry no gradient: the atom loss could not reach the model."""
    if hidden.requires_grad or not _learns(model):
        return
    try:
        embedding = model.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return
    if embedding is not None and any(parameter.requires_grad for parameter in embedding.parameters()):
        raise AtomError(
            f"layer {model.atom_config.layer} of {type(model).__name__} comes without gradients, as from reversible layers, "
            "so the energy cannot reach the model; choose layer 0, or another model"
        )


def _states_to_keep(model: Any) -> bool | list[int]:
    """The value of `output_hidden_states` that keeps only the hidden states that the heads read.

    A model without support for the choice takes the list for True, and returns them all. Negative layers need the number of
    layers in the configuration. A composite model would hand the choice on to all its parts, and a vision tower whose own
    layer is read by the rest needs to keep that one: such models are asked for all.
    """
    layers = [model.atom_config.layer, *layers_to_read(model)]
    if model._atom_forward_state.keeps_all_states or getattr(model.config, "sub_configs", None):
        return True
    if min(layers) < 0 and not isinstance(getattr(model.config, "num_hidden_layers", None), int):
        return True
    return list(dict.fromkeys(layers))


@functools.cache
def output_class(base: type) -> type:
    """A subclass of `base` with the atom fields declared: DDP rebuilds outputs from fields and fails on undeclared ones."""
    annotations = {name: Tensor | None for name in OUTPUT_KEYS}
    namespace = {"__annotations__": annotations, "__module__": __name__, **dict.fromkeys(OUTPUT_KEYS)}
    return dataclass(type("Atom" + base.__name__, (base,), namespace))
