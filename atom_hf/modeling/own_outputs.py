"""Custom models, which may return a tuple or a plain dict, as Trainer allows, without hidden states."""

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from ..errors import AtomError
from .layers import hidden_size_of, pick_layer


def backbone_of(model: Any) -> PreTrainedModel | None:
    """The Transformers model that a model of one's own is built around, if any."""
    if model.base_model is not model:
        return model.base_model if isinstance(model.base_model, PreTrainedModel) else None
    inside = (module for module in model.modules() if isinstance(module, PreTrainedModel))
    return next((module for module in inside if module is not model), None)


def takes(function: Callable, name: str) -> bool:
    """Whether a function has an argument of this name, or takes any."""
    parameters = signature(function).parameters
    return name in parameters or any(part.kind is part.VAR_KEYWORD for part in parameters.values())


signature = functools.cache(inspect.signature)


def run_own(model: Any, forward: Callable, args: tuple, kwargs: dict[str, Any]) -> tuple[Any, Tensor, dict[str, Any]]:
    """Run the `forward` of a model of one's own with atoms as it was called.

    Returns:
        what it returned, the hidden states that the heads read, and the inputs by name of the model that made these.

    Raises:
        AtomError: neither the Transformers model inside it nor its own outputs show hidden states.
    """
    config = model.atom_config
    width = config.hidden_size or hidden_size_of(model, config.layer, config.side)
    outputs, states, inputs = run_for_states(model, forward, args, kwargs, width)
    return outputs, pick_layer(states, config.layer, model), inputs


def run_for_states(
    model: Any, forward: Callable, args: tuple, kwargs: dict[str, Any], width: int | None
) -> tuple[Any, ModelOutput, dict[str, Any]]:
    """Run the `forward` of a model of one's own as it was called.

    Returns:
        what it returned, an output with the hidden states of all layers, which in a tuple are `width` wide, and the inputs by
        name of the model that made these.

    Raises:
        AtomError: neither the Transformers model inside it nor its own outputs show hidden states.
    """
    backbone = backbone_of(model)
    if backbone is None:
        names = (name for name in ("output_hidden_states", "return_dict") if takes(type(model).forward, name))
        kwargs = {**kwargs, **dict.fromkeys(names, True)}
    with nullcontext([]) if backbone is None else _watching(backbone) as passes:
        outputs = forward(model, *args, **kwargs)
    inputs = named(type(model).forward, args, kwargs)
    for given, made in reversed(passes):
        if isinstance(made, ModelOutput) and any(name.endswith("hidden_states") for name in made):
            return outputs, made, given
    states = outputs if isinstance(outputs, dict) else {"hidden_states": _states_among(outputs, width)}
    if not any(isinstance(value, tuple | list) for name, value in states.items() if name.endswith("hidden_states")):
        raise AtomError(
            f"{type(model).__name__} returns a {type(outputs).__name__} without hidden states, and atoms are made from them: "
            "return those of its layers, as a tuple of tensors, or build it around a Transformers model"
        )
    return outputs, ModelOutput(**states), inputs


def named(function: Callable, args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call of a `forward`, by name."""
    _, *names = signature(function).parameters
    return {**dict(zip(names, args, strict=False)), **kwargs}


def as_model_output(outputs: Any, **more: Any) -> ModelOutput:
    """What a model of one's own returned, by name: a loss comes first and is a scalar, and logits are the next tensor."""
    if isinstance(outputs, dict):
        return ModelOutput(**outputs, **more)
    values = list(outputs) if isinstance(outputs, tuple | list) else [outputs]
    names = [f"output_{number}" for number in range(len(values))]
    tensors = [place for place, value in enumerate(values) if torch.is_tensor(value)]
    if tensors and values[tensors[0]].dim() == 0:
        names[tensors.pop(0)] = "loss"
    if tensors:
        names[tensors[0]] = "logits"
    return ModelOutput(**dict(zip(names, values, strict=True)), **more)


def logits_of(outputs: Any) -> Tensor:
    """The logits that a model returned."""
    return (outputs if isinstance(outputs, ModelOutput) else as_model_output(outputs)).logits


def with_more(outputs: Any, more: dict[str, Tensor]) -> Any:
    """A tuple or dict with more values at its end."""
    if isinstance(outputs, dict):
        return {**outputs, **more}
    return (*outputs, *more.values()) if isinstance(outputs, tuple | list) else (outputs, *more.values())


def showing(outputs: Any, atoms: Tensor) -> Any:
    """`outputs` unchanged in kind, length and values, from which `atoms` can be found in the graph.

    DDP looks there for the parameters that are used, and takes those of the heads for unused otherwise, while the code of a
    trainer may count the elements of a tuple, or sum those of a dict.
    """
    if torch.is_tensor(outputs):
        return _Showing.apply(outputs, atoms) if outputs.requires_grad else outputs
    places = list(outputs.items() if isinstance(outputs, dict) else enumerate(outputs))
    for place, value in places:
        if torch.is_tensor(value) and value.requires_grad:
            if isinstance(outputs, dict):
                return type(outputs)({**outputs, place: _Showing.apply(value, atoms)})
            values = [*outputs[:place], _Showing.apply(value, atoms), *outputs[place + 1 :]]
            return type(outputs)(*values) if hasattr(outputs, "_fields") else type(outputs)(values)
    return outputs


class _Showing(torch.autograd.Function):
    """The identity of its first argument, whose graph leads to the second too."""

    @staticmethod
    def forward(ctx, value: Tensor, other: Tensor) -> Tensor:
        return value.clone()  # not a view: Trainer scales a loss in place

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return gradient, None


@contextmanager
def _watching(backbone: Any) -> Iterator[list[tuple[dict[str, Any], Any]]]:
    """Context manager: asks `backbone` for hidden states; yields a list of (inputs by name, outputs), one a forward pass."""
    passes: list[tuple[dict[str, Any], Any]] = []

    def ask(module: Any, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        return args, {**kwargs, "output_hidden_states": True}

    def take(module: Any, args: tuple, kwargs: dict[str, Any], outputs: Any) -> None:
        passes.append((named(type(module).forward, args, kwargs), outputs))

    hooks = [backbone.register_forward_pre_hook(ask, with_kwargs=True)]
    hooks.append(backbone.register_forward_hook(take, with_kwargs=True))
    try:
        yield passes
    finally:
        for hook in hooks:
            hook.remove()


def _states_among(outputs: Any, width: int | None) -> Any:
    """The hidden states among the elements of a tuple: the first sequence of tensors of this width."""
    for value in outputs if isinstance(outputs, tuple | list) else ():
        tensors = isinstance(value, tuple | list) and len(value) and all(map(torch.is_tensor, value))
        if tensors and all(each.dim() >= 3 and width in (None, *each.shape) for each in value):
            return value
    return None
