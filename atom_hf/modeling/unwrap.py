"""Unwrap models: the base of an adapter (PEFT), the transformer of a SentenceTransformer."""

import sys
from typing import Any, ClassVar

import torch
import torch.distributed as dist

from ..errors import AtomError


def is_adapter(model: Any) -> bool:
    """Whether `model` is a `PeftModel`."""
    library = sys.modules.get("peft")  # not imported: no such model exists
    return library is not None and isinstance(model, library.PeftModel)


def is_sentence_transformer(model: Any) -> bool:
    """Whether `model` is a `SentenceTransformer`."""
    library = sys.modules.get("sentence_transformers")
    return library is not None and isinstance(model, library.SentenceTransformer)


class Objective(torch.nn.Module):
    """A loss around a model, which it holds as the attribute that `inner` names: atoms are attached to that model."""

    inner: ClassVar[str]


def inner_model(model: Any) -> Any:
    """The model that atoms are attached to: the base of an adapter, the first module of a SentenceTransformer, the model in an
    `Objective`, or `model` itself. Raises `AtomError` for a SentenceTransformer whose first module is not a Transformers
    model."""
    if is_adapter(model):
        return model.get_base_model()
    if isinstance(model, Objective):
        return getattr(model, model.inner)
    if not is_sentence_transformer(model):
        return model
    first = getattr(model[0], "auto_model", None)
    if first is None:
        raise AtomError(
            f"this SentenceTransformer begins with a {type(model[0]).__name__}, and atoms are made of the hidden states of a "
            "Transformers model: use one whose first module is a Transformer"
        )
    return first


def adapter_bases(model: Any) -> list[str | None]:
    """The base that each adapter of a model names (`base_model_name_or_path`); empty without adapters."""
    if not is_adapter(model):
        model = inner_model(model)
        if not getattr(model, "_hf_peft_config_loaded", False):  # adapters of Transformers' own `add_adapter`
            return []
    return [config.base_model_name_or_path for config in model.peft_config.values()]


def show_heads(model: Any, _: Any, features: dict[str, Any]) -> None:
    """Forward hook: adds the heads' parameters to the outputs of a SentenceTransformer, so that DDP sees that they are used.

    Atoms are not among those outputs, and a parameter that DDP takes for unused must get no gradient. Later columns do not
    use the heads, and DDP goes by the last.
    """
    inner = inner_model(model)
    if dist.is_available() and dist.is_initialized() and torch.is_grad_enabled() and hasattr(inner, "atom_heads"):
        features["atom_heads"] = torch.stack([parameter.sum() for parameter in inner.atom_heads.parameters()])
