"""Pick the layer that the heads read, and look up its width and number in the model's configuration."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from transformers.utils import ModelOutput

from ..atoms.config import AtomConfig
from ..errors import AtomError


def pick_layer(outputs: Any, layer: int, model: Any) -> Tensor | None:
    """The hidden states of one layer, on the side that `atom_config` names; None if the model kept only other layers.

    Raises:
        AtomError: the outputs have no hidden states, too few of them, or none of that side.
    """
    side = model.atom_config.side if hasattr(model, "atom_config") else "encoder"
    states = layer_states(outputs, model, side)
    if not -len(states) <= layer < len(states):
        raise AtomError(
            f"layer {layer} does not exist: {type(model).__name__} has {len(states)} hidden states, "
            f"{-len(states)} to {len(states) - 1}"
        )
    return states[layer]


def layer_states(outputs: Any, model: Any, side: str = "encoder") -> Sequence[Tensor | None]:
    """The hidden states of all layers on one side, the embeddings first. Raises `AtomError` if the outputs have none."""
    states = _states_of(outputs, side)
    if not states:
        missing = "no decoder hidden states" if side == "decoder" else "no hidden states"
        raise AtomError(
            f"{type(model).__name__} returns {missing} (it has {', '.join(outputs.keys())}), "
            "and atoms are made from them: choose a model that supports output_hidden_states"
        )
    return states


def _states_of(outputs: Any, side: str) -> Any:
    if side == "decoder":
        return getattr(outputs, "decoder_hidden_states", None)
    # A model of two modalities names the states of each, those of its main input first.
    names = ["hidden_states", "encoder_hidden_states", *(name for name in outputs if name.endswith("hidden_states"))]
    found = [getattr(outputs, name, None) for name in names if not name.startswith("decoder")]
    # A composite model may return its parts' outputs as they are, the language model's last.
    found += [_states_of(part, side) for part in reversed(outputs.values()) if isinstance(part, ModelOutput)]
    return next((states for states in found if isinstance(states, tuple | list) and states), None)


def text_config(model_config: Any) -> Any:
    """The text part of a model's configuration, or the whole."""
    try:
        return model_config.get_text_config()
    except (AttributeError, ValueError):  # not a Transformers configuration, or one of two text models
        return model_config


def vision_part(model_config: Any) -> Any:
    """The vision part of a model's configuration, or the whole."""
    return getattr(model_config, "vision_config", None) or model_config


def _part_of(model: Any, side: str) -> Any:
    """The part of a model's configuration that describes the hidden states of one side."""
    config = model.config
    if getattr(config, side, None) is not None and hasattr(getattr(config, side), "to_dict"):
        return text_config(getattr(config, side))
    if is_image_model(model):
        return vision_part(config)
    return text_config(config)


def is_image_model(model: Any) -> bool:
    """Whether a model's main input is images, not text or audio."""
    return getattr(model, "main_input_name", None) == "pixel_values"


def hidden_size_of(model: Any, layer: int, side: str = "encoder") -> int | None:
    """The width of one layer's hidden states according to the model's configuration; None if it does not say."""
    config = _part_of(model, side)
    named = (
        getattr(config, name, None) for name in ("hidden_size", "hidden_sizes", "d_model", "embed_dims", "embed_dim")
    )
    size = next((value for value in named if value), None)
    if isinstance(size, list | tuple):
        # A hierarchical model: one width per stage, after that of the embeddings.
        widths = [getattr(config, "embedding_size", size[0]), *size]
        size = widths[layer] if -len(widths) <= layer < len(widths) else widths[-1]
    return size if isinstance(size, int) else None


def check_width(model: Any, config: AtomConfig) -> None:
    """Raise `AtomError` if the heads that a configuration describes cannot fit the model.

    Hidden states may have another width than the model's configuration says, but only one that occurs in its weights.
    """
    hidden_size = hidden_size_of(model, config.layer, config.side)
    if config.hidden_size in (None, hidden_size):
        return
    if not any(config.hidden_size in parameter.shape for parameter in model.parameters()):
        raise AtomError(
            f"the heads were made for a hidden size of {config.hidden_size}, "
            f"{type(model).__name__} has {hidden_size}: they do not fit this base"
        )


def check_layer(model: Any, layer: int, side: str = "encoder") -> None:
    """Raise `AtomError` if the model is known to lack the side or the layer."""
    if side == "decoder" and not getattr(model.config, "is_encoder_decoder", False):
        raise AtomError(
            f"side 'decoder': {type(model).__name__} is not an encoder-decoder and has one side only; use side 'encoder'"
        )
    names = (
        ("decoder_layers", "num_decoder_layers", "num_hidden_layers") if side == "decoder" else ("num_hidden_layers",)
    )
    config = _part_of(model, side)
    count = next((getattr(config, name) for name in names if isinstance(getattr(config, name, None), int)), None)
    if count is not None and not -count - 1 <= layer <= count:
        raise AtomError(
            f"layer {layer} does not exist: {type(model).__name__} has {count} layers, so {-count - 1} to {count} "
            "(0 is the embeddings, -1 the last layer)"
        )
