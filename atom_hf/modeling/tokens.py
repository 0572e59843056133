"""Tokens [B, N, h] and mask bool [B, N] of any model, located by the shape of the hidden states and by the inputs."""

import functools
import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..atoms.config import AtomConfig
from ..errors import AtomError
from .layers import text_config, vision_part


def find_tokens(
    hidden: Tensor, inputs: dict[str, Any], config: AtomConfig, model_config: Any, model: Any = None
) -> tuple[Tensor, Tensor]:
    """The tokens of a batch, and a mask of those that belong to their sample's atom.

    Hidden states are recognized by their shape and the inputs:

    - [B, N, h]: a sequence. With C choices per sample (`input_ids` [B, C, N]) it is [B * C, N, h], and each choice is a
      separate sample.
    - [B, h, H, W] or [B, H, W, h]: a feature map, whose cells become H * W tokens in reading order.
    - [B, N, S, h] or [S, B, N, h] with a text: S parallel streams per token (hyper-connections), which are averaged.

    Args:
        hidden: the hidden states of one layer.
        inputs: the arguments of the model's `forward` by name; masks, ids, labels, `pixel_values` and `input_values` are used
            where present.
        config: its `tokens`, `special_token_ids`, `side` and `hidden_size` are used.
        model_config: the model's configuration, for a vision model's patch size.
        model: the model, for the downsampling of an audio model.

    Returns:
        tokens [B, N, h] and mask bool [B, N], N as in the model (special and prefix tokens are masked, not removed).

    Raises:
        AtomError: hidden states of another shape, or an attention mask that does not fit them.
    """
    tokens, mask, prefix = locate_tokens(hidden, inputs, config, model_config, model)
    if mask is None:
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        mask[:, :prefix] = False
    return tokens, mask


def locate_tokens(
    hidden: Tensor, inputs: dict[str, Any], config: AtomConfig, model_config: Any, model: Any = None
) -> tuple[Tensor, Tensor | None, int]:
    """`find_tokens`, where no mask is needed without one: (tokens [B, N, h], mask, number of prefix tokens).

    The mask is None where all tokens belong to their sample's atom but the prefix tokens, which come first, if any.
    """
    ids, attention = read_text(inputs) if config.side == "encoder" else written_text(inputs, model_config)
    hidden = _as_sequence(hidden, ids if ids is not None else attention, config.hidden_size)
    batch, length = hidden.shape[:2]
    if length == getattr(model_config, "num_latents", None):
        return hidden, None, 0  # each latent attends to the whole input: none is padding

    mask = None if attention is None else align(attention, length, model)
    if config.tokens == "all":
        return hidden, mask, 0

    if ids is not None and config.special_token_ids:
        special = torch.isin(ids, _on_device(tuple(config.special_token_ids), ids.device))
        if len(ids) > batch and len(ids) % batch == 0:
            special = special.view(batch, -1, ids.shape[1]).all(1)  # one row of ids per codebook
        if config.side == "decoder":
            special[:, 0] = True  # the start token does not belong to the text that the decoder writes
        content = align(~special, length, model)
        mask = content if mask is None else mask & content
    pixels = next(
        (inputs[name] for name in ("pixel_values", "input_values") if torch.is_tensor(inputs.get(name))), None
    )
    prefix = prefix_length(length, pixels, model_config) if pixels is not None and ids is None else 0
    if mask is None or not prefix:
        return hidden, mask, prefix
    return hidden, mask & (torch.arange(length, device=mask.device) >= prefix), 0


@functools.cache
def everything_of(side: str) -> AtomConfig:
    """A configuration by which every token but padding belongs to the atom."""
    return AtomConfig(tokens="all", side=side)


def _as_sequence(hidden: Tensor, text: Tensor | None, width: int | None) -> Tensor:
    """Hidden states of any shape as [B, N, h]."""
    if hidden.dim() == 4 and text is not None and text.shape == hidden.shape[:2]:
        return hidden.mean(2)
    if hidden.dim() == 4 and text is not None and text.shape == hidden.shape[1:3]:
        return hidden.mean(0)
    if hidden.dim() == 4:
        last = hidden.shape[-1] == width != hidden.shape[1]
        return hidden.flatten(1, 2) if last else hidden.flatten(2).transpose(1, 2)
    if hidden.dim() != 3:
        raise AtomError(
            f"hidden states must be [B, N, h] or [B, h, H, W] to be read as tokens, got {tuple(hidden.shape)}"
        )
    return hidden


def read_text(inputs: dict[str, Any]) -> tuple[Tensor | None, Tensor | None]:
    """(ids [B, N], attention bool [B, N]) of the text that a model reads, None where absent. Choices become samples."""
    ids, attention = (inputs.get(name) for name in ("input_ids", "attention_mask"))
    ids = ids if torch.is_tensor(ids) and ids.dim() in (2, 3) else None
    attention = attention if torch.is_tensor(attention) else None
    if ids is not None and ids.dim() == 3:
        ids = ids.flatten(0, 1)
        attention = attention if attention is None or attention.dim() != 3 else attention.flatten(0, 1)
    # A mask over pairs of tokens (packed sequences) does not mark padding.
    attention = attention.bool() if attention is not None and attention.dim() == 2 else None
    return ids, attention


def written_text(inputs: dict[str, Any], model_config: Any = None) -> tuple[Tensor | None, Tensor | None]:
    """(ids [B, N], attention bool [B, N]) of a decoder's input, None where the inputs do not show it.

    If it is not given, models make it from the labels, and without labels from the text itself: shifted right by one place,
    after the start token. Labels of -100 are padding.
    """
    ids, attention = (inputs.get(name) for name in ("decoder_input_ids", "decoder_attention_mask"))
    attention = attention.bool() if torch.is_tensor(attention) and attention.dim() == 2 else None
    if not torch.is_tensor(ids):
        labels = inputs.get("labels")
        # Labels of a floating dtype are classes (multi-label).
        if torch.is_tensor(labels) and labels.dim() == 2 and not labels.is_floating_point():
            ids, real = _moved_on(labels), _moved_on(labels.ne(-100))
        else:
            ids, real = read_text(inputs)
            ids, real = (None if value is None else _moved_on(value) for value in (ids, real))
        return ids, real if attention is None else attention
    if attention is None:
        # The start token, which comes first, may be the padding token.
        pad = getattr(model_config, "pad_token_id", None)
        attention = torch.ones_like(ids, dtype=torch.bool) if pad is None else ids.ne(pad)
        attention[:, 0] = True
    return ids, attention


def _moved_on(values: Tensor) -> Tensor:
    return torch.cat([torch.ones_like(values[:, :1]), values[:, :-1]], 1)


@functools.cache
def _on_device(ids: tuple[int, ...], device: torch.device) -> Tensor:
    # Copied once: each copy synchronizes an accelerator.
    return torch.tensor(ids, device=device)


def patch_grid(pixels: Tensor, model_config: Any) -> tuple[int, int] | None:
    """(rows, columns) of a model's patches for images [B, C, H, W] or spectrograms [B, T, bins]; None if it has no patches."""
    config = vision_part(model_config)
    patch = getattr(config, "patch_size", None)
    if patch is None:
        return None
    height, width = (patch, patch) if isinstance(patch, int) else patch
    strides = (getattr(config, "frequency_stride", None), getattr(config, "time_stride", None))
    if pixels.dim() == 3 and None not in strides:
        # Patches of a spectrogram overlap.
        return (pixels.shape[2] - height) // strides[0] + 1, (pixels.shape[1] - width) // strides[1] + 1
    return (pixels.shape[-2] // height, pixels.shape[-1] // width) if pixels.dim() == 4 else None


def prefix_length(length: int, pixels: Tensor, model_config: Any) -> int:
    """The number of tokens before the patches among a vision model's `length` tokens: [CLS], distillation, register tokens.

    By counting, since all such models put them first. A hierarchical model has fewer tokens than patches, and no prefix.
    """
    grid = patch_grid(pixels, model_config)
    return max(0, length - grid[0] * grid[1]) if grid else 0


def special_token_ids(model_config: Any, processing_class: Any = None) -> list[int]:
    """The ids of special tokens, from the tokenizer, or without one from the model's configuration.

    The unknown-word token is not among them: it stands for a word. Nor are the placeholders of images, videos and audio:
    their hidden states are the content of these. Image, audio and plain models have none.
    """
    tokenizer = getattr(processing_class, "tokenizer", processing_class)
    ids = getattr(tokenizer, "all_special_ids", None)
    if ids is not None:
        marks = {getattr(tokenizer, f"{name}_token_id", None) for name in ("bos", "eos", "pad", "cls", "sep", "mask")}
        # GPT-2's end-of-text token is its unknown token too, and special nevertheless.
        found = set(ids) - ({getattr(tokenizer, "unk_token_id", None)} - marks)
    else:
        names = (
            "bos_token_id",
            "eos_token_id",
            "pad_token_id",
            "cls_token_id",
            "sep_token_id",
            "decoder_start_token_id",
        )
        found = set()
        for name in names:
            for config in (model_config, text_config(model_config)):
                value = getattr(config, name, None)
                found.update(value if isinstance(value, list) else [] if value is None else [value])
    kinds = [f"{kind}_token_{end}" for kind in ("image", "video", "audio") for end in ("id", "index")]
    return sorted(found - {getattr(model_config, name, None) for name in kinds})


def align(mask: Tensor, length: int, model: Any = None) -> Tensor:
    """Convert a mask over a model's inputs, bool [B, n], to one over its `length` hidden states.

    If there are more of these, virtual tokens such as a prompt's come first, and are masked. If there are fewer, the model
    shortens its sequence: an audio model says how (`_get_feat_extract_output_lengths`); others pool, and a hidden state that
    covers several tokens counts if any of them does.

    Raises:
        AtomError: fewer hidden states than inputs, but too many for a pooled sequence.
    """
    given = mask.shape[1]
    if length >= given:
        return torch.nn.functional.pad(mask, (length - given, 0), value=False)
    for frames, of_each in _frames(mask, model):
        if frames >= length:
            mask = torch.arange(frames, device=mask.device) < of_each[:, None]
            if frames == length:
                return mask
    if 2 * length > mask.shape[1] + 2:
        raise AtomError(
            f"the hidden states have {length} tokens, the inputs {given}: another layer may fit (layer), "
            "or the model shortens its sequence"
        )
    # Pooling covers the positions in equal spans, in order: the j-th of L covers those from j n / L on.
    return torch.nn.functional.adaptive_max_pool1d(mask.float()[:, None], length)[:, 0] > 0


def _frames(mask: Tensor, model: Any) -> Iterator[tuple[int, Tensor]]:
    """(frames of a full-length recording, frames of each sample [B]) after each step that a model reports."""
    name = "_get_feat_extract_output_lengths"
    modules = model.modules() if model is not None else ()
    lengths = next((getattr(module, name) for module in modules if hasattr(module, name)), None)
    if lengths is None:
        return
    # The adapter of a speech encoder comes after its hidden states.
    options = {"add_adapter": False} if "add_adapter" in inspect.signature(lengths).parameters else {}
    counts = torch.cat([mask.sum(1), mask.new_tensor([mask.shape[1]], dtype=torch.long)])
    found = lengths(counts, **options)
    for after in found if isinstance(found, tuple) else (found,):
        yield int(after[-1]), after[:-1]
