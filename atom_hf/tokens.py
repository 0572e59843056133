"""Any model's output -> (tokens [B, N, h], mask bool [B, N]): which layer, and which of its tokens."""

import functools
from typing import Any

import torch
from torch import Tensor

from .config import AtomConfig
from .errors import AtomError


def pick_layer(outputs: Any, layer: int, model: Any) -> Tensor:
    """The hidden states of one layer. Raises `AtomError` if the output has none, or not that many."""
    # An encoder-decoder's samples are what its encoder reads.
    states = getattr(outputs, "hidden_states", None) or getattr(outputs, "encoder_hidden_states", None)
    if not states:
        raise AtomError(
            f"{type(model).__name__} returns no hidden states (it has {', '.join(outputs.keys())}), "
            "and atoms are made from them: choose a model that supports output_hidden_states"
        )
    if not -len(states) <= layer < len(states):
        raise AtomError(
            f"layer {layer} does not exist: {type(model).__name__} has {len(states)} hidden states, "
            f"{-len(states)} to {len(states) - 1}"
        )
    return states[layer]


def find_tokens(hidden: Tensor, inputs: dict[str, Any], config: AtomConfig, model_config: Any) -> tuple[Tensor, Tensor]:
    """The tokens of a batch and which of them belong to their atom.

    Args:
        hidden: the hidden states of one layer: a sequence [B, N, h], or a feature map [B, h, H, W], whose cells become
            H * W tokens in reading order.
        inputs: the arguments of the model's `forward` by name: `attention_mask`, `input_ids` and `pixel_values` are
            looked at, each if it is there.
        config: `tokens` and `special_token_ids` decide.
        model_config: the model's configuration, for a vision model's patch size.

    Returns:
        tokens [B, N, h] and mask bool [B, N], N as the model has it (special and prefix tokens are masked, not removed).

    Raises:
        AtomError: hidden states of another shape, or an attention mask that does not fit them.
    """
    if hidden.dim() == 4:
        hidden = hidden.flatten(2).transpose(1, 2)
    if hidden.dim() != 3:
        raise AtomError(
            f"hidden states must be [B, N, h] or [B, h, H, W] to be read as tokens, got {tuple(hidden.shape)}"
        )
    batch, length = hidden.shape[:2]
    mask = torch.ones(batch, length, dtype=torch.bool, device=hidden.device)

    attention = inputs.get("attention_mask")
    if torch.is_tensor(attention) and attention.dim() == 2:
        mask &= _align(attention.bool(), length)
    if config.tokens == "all":
        return hidden, mask

    ids = inputs.get("input_ids")
    if torch.is_tensor(ids) and ids.dim() == 2 and config.special_token_ids:
        special = torch.isin(ids, _on_device(tuple(config.special_token_ids), ids.device))
        mask &= _align(~special, length)
    pixels = inputs.get("pixel_values")
    if torch.is_tensor(pixels) and not torch.is_tensor(ids):
        mask[:, : prefix_length(length, pixels, model_config)] = False
    return hidden, mask


@functools.cache
def _on_device(ids: tuple[int, ...], device: torch.device) -> Tensor:
    # Copied there once: each copy makes an accelerator wait.
    return torch.tensor(ids, device=device)


def patch_grid(pixels: Tensor, model_config: Any) -> tuple[int, int] | None:
    """(rows, columns) of a vision model's patches for `pixels` [B, C, H, W]; None if its configuration has no patches."""
    patch = getattr(model_config, "patch_size", None)
    if patch is None or pixels.dim() != 4:
        return None
    height, width = (patch, patch) if isinstance(patch, int) else patch
    return pixels.shape[-2] // height, pixels.shape[-1] // width


def prefix_length(length: int, pixels: Tensor, model_config: Any) -> int:
    """How many of a vision model's `length` tokens stand before its patches: [CLS], distillation and register tokens.

    Found by counting, since every model of the kind puts them first. A hierarchical model has fewer tokens than patches,
    and then none of them is a prefix.
    """
    grid = patch_grid(pixels, model_config)
    return max(0, length - grid[0] * grid[1]) if grid else 0


def special_token_ids(model_config: Any, processing_class: Any = None) -> list[int]:
    """The ids that stand for no part of a text: what the tokenizer says, and where there is none the model's configuration.

    The unknown-word token is not among them: it stands for a word. Image, audio and plain models have none.
    """
    tokenizer = getattr(processing_class, "tokenizer", processing_class)
    ids = getattr(tokenizer, "all_special_ids", None)
    if ids is not None:
        marks = {getattr(tokenizer, f"{name}_token_id", None) for name in ("bos", "eos", "pad", "cls", "sep", "mask")}
        # GPT-2's end-of-text token is its unknown token too, and is a mark all the same.
        return sorted(set(ids) - ({getattr(tokenizer, "unk_token_id", None)} - marks))
    names = ("bos_token_id", "eos_token_id", "pad_token_id", "cls_token_id", "sep_token_id", "decoder_start_token_id")
    found: set[int] = set()
    for name in names:
        value = getattr(model_config, name, None)
        found.update(value if isinstance(value, list) else [] if value is None else [value])
    return sorted(found)


def _align(mask: Tensor, length: int) -> Tensor:
    """`mask` [B, n] against `length` hidden states: virtual tokens, such as a prompt's, stand in front and are masked."""
    missing = length - mask.shape[1]
    if missing < 0:
        raise AtomError(
            f"the hidden states have {length} tokens, the inputs {mask.shape[1]}: another layer may fit (layer), "
            "or the model shortens its sequence"
        )
    return torch.nn.functional.pad(mask, (missing, 0), value=False)


def _text_config(model: Any) -> Any:
    return model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config


def hidden_size_of(model: Any, layer: int) -> int:
    """The width of one layer's hidden states. Raises `AtomError` for a model that does not say it."""
    config = _text_config(model)
    named = (getattr(config, name, None) for name in ("hidden_size", "hidden_sizes", "d_model"))
    size = next((value for value in named if value), None)
    if isinstance(size, list | tuple):
        # A hierarchical model: one width a stage, and before the stages its embeddings.
        widths = [getattr(config, "embedding_size", size[0]), *size]
        size = widths[layer] if -len(widths) <= layer < len(widths) else widths[-1]
    if not isinstance(size, int):
        raise AtomError(
            f"{type(model).__name__} does not say its hidden size (no hidden_size, hidden_sizes or d_model in its "
            "configuration): atoms cannot be attached to it"
        )
    return size


def check_width(model: Any, config: AtomConfig) -> None:
    """Raises `AtomError` if heads that a configuration describes do not fit the model."""
    hidden_size = hidden_size_of(model, config.layer)
    if config.hidden_size not in (None, hidden_size):
        raise AtomError(
            f"the heads were made for a hidden size of {config.hidden_size}, "
            f"{type(model).__name__} has {hidden_size}: they do not fit this base"
        )


def check_layer(model: Any, layer: int) -> None:
    """Raises `AtomError` if the model is known not to have the layer."""
    count = getattr(_text_config(model), "num_hidden_layers", None)
    if isinstance(count, int) and not -count - 1 <= layer <= count:
        raise AtomError(
            f"layer {layer} does not exist: {type(model).__name__} has {count} layers, so {-count - 1} to {count} "
            "(0 is the embeddings, -1 the last layer)"
        )
