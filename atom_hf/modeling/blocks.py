"""Blocks of a diffusers model: located by the structure of its modules, and their outputs read as tokens [B, N, h]."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..errors import AtomError, first_line
from .inference import evaluating
from .own_outputs import signature

SHOWN = 12  # names of blocks in an error message

# What the configurations of diffusers call the width of the text that a denoiser is conditioned on.
_TEXT_WIDTHS = ("caption_channels", "joint_attention_dim", "text_embed_dim", "encoder_hid_dim", "cross_attention_dim")


class Call(NamedTuple):
    """One call of a block in a forward pass."""

    given: Tensor | None
    """Its first argument."""
    result: Any


def is_diffusers_model(model: Any) -> bool:
    """Whether `model` is a model of diffusers."""
    library = sys.modules.get("diffusers")  # not imported: no such model exists
    return library is not None and isinstance(model, library.ModelMixin)


def block_names(model: nn.Module) -> list[str]:
    """The names of a model's blocks, in the order of its modules: what its outermost lists of modules hold.

    A block has modules of its own: a list of single layers, such as convolutions, is not one of blocks. A module beside such
    lists that has lists of blocks itself, as the middle of a UNet, is a block too.
    """
    return list(_blocks_in(model, ""))


def _blocks_in(module: nn.Module, prefix: str) -> Iterator[str]:
    children = dict(module.named_children())
    lists = {name for name, child in children.items() if isinstance(child, nn.ModuleList) and _in_list(child, "")}
    for name, child in children.items():
        path = f"{prefix}{name}"
        if name in lists:
            yield from _in_list(child, f"{path}.")
        elif lists and any(True for _ in _blocks_in(child, "")):
            yield path
        else:
            yield from _blocks_in(child, f"{path}.")


def _in_list(modules: nn.ModuleList, prefix: str) -> list[str]:
    found = []
    for name, child in modules.named_children():
        if isinstance(child, nn.ModuleList):
            found += _in_list(child, f"{prefix}{name}.")
        elif any(True for _ in child.children()):
            found.append(f"{prefix}{name}")
    return found


def find_block(model: nn.Module, name: str | None) -> str:
    """The name of the block whose output is read: `name`, or by default the block at a quarter of the depth.

    Raises:
        AtomError: a model without blocks, or a module that it does not have.
    """
    names, kind = block_names(model), type(model).__name__
    if name is None:
        if not names:
            raise AtomError(
                f"{kind} has no blocks (lists of modules) to read tokens from; name a module by AtomConfig(block=...), or "
                "choose another model"
            )
        return names[max(0, round(len(names) / 4) - 1)]
    if name and any(name == known for known, _ in model.named_modules()):
        return name
    shown = f"{', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''}" or "none"
    raise AtomError(
        f"block {name!r:.100} does not exist in {kind}; its blocks are {shown} (any other module can be named too)"
    )


@contextmanager
def reading_block(model: nn.Module, name: str) -> Iterator[list[Call]]:
    """Context manager: yields a list that receives each call of a block."""
    block, calls = model.get_submodule(name), list[Call]()
    names = [part for part in signature(type(block).forward).parameters if part != "self"]
    first = names[0] if names else None

    def take(_: nn.Module, args: tuple, kwargs: dict[str, Any], result: Any) -> None:
        calls.append(Call(args[0] if args else kwargs.get(first), result))

    hook = block.register_forward_hook(take, with_kwargs=True)
    try:
        yield calls
    finally:
        hook.remove()


def cells(model: nn.Module, name: str, calls: list[Call], batch: int) -> Tensor:
    """The tokens [B, N, h] that a block gave in a forward pass of `batch` samples.

    They are the cells of a feature map ([B, h, H, W], [B, h, F, H, W] of a video, [B, h, L] of a one-dimensional convolution),
    or a sequence [B, N, h]. Where the frames of a video are rows of the batch, they are joined. Of several tensors (a sequence
    of the image beside one of the text) the one of the shape of the block's first input is read.

    Raises:
        AtomError: the block did not run, or gave nothing that can be read as tokens.
    """
    where = f"block {name!r} of {type(model).__name__}"
    if not calls:
        raise AtomError(f"{where} did not run in the forward pass; choose another block")
    given, result = calls[-1]
    parts = [result] if torch.is_tensor(result) else list(_values(result))
    tensors = [part for part in parts if torch.is_tensor(part) and part.is_floating_point()]
    fitting = [part for part in tensors if part.dim() in (3, 4, 5) and len(part) and len(part) % batch == 0]
    if not fitting:
        shapes = ", ".join(str(list(part.shape)) for part in tensors) or "no tensor"
        raise AtomError(
            f"{where} gives {shapes}, for {batch} samples: tokens are read from [B, N, h] or from feature maps [B, h, H, W]; "
            "choose another block"
        )
    alike = [part for part in fitting if torch.is_tensor(given) and part.shape == given.shape]
    hidden = (alike or fitting)[0]
    is_map = hidden.dim() > 3 or any(isinstance(part, nn.Conv1d) for part in model.get_submodule(name).modules())
    tokens = hidden.flatten(2).transpose(1, 2) if is_map else hidden
    return tokens if len(tokens) == batch else tokens.reshape(batch, -1, tokens.shape[-1])


def _values(result: Any) -> Any:
    return result.values() if isinstance(result, dict) else result if isinstance(result, tuple | list) else ()


def width_of_block(model: nn.Module, name: str) -> int:
    """The width of the tokens of a block: what it gives for inputs that the model's configuration describes.

    The forward pass runs on the meta device, without weights: nothing is computed.

    Raises:
        AtomError: the block gives no tokens, or the inputs cannot be made from the configuration.
    """
    meta = {
        key: value.to("meta")
        for key, value in {**dict(model.named_parameters()), **dict(model.named_buffers())}.items()
    }
    dtype = next((value.dtype for value in meta.values() if value.is_floating_point()), torch.float32)
    first = None
    for inputs in _described_inputs(model, dtype):
        try:
            with evaluating(model), torch.no_grad(), reading_block(model, name) as calls:
                functional_call(model, meta, (), inputs)
        except Exception as error:  # inputs of another kind of model
            first = first or error
            if not calls:
                continue
        return cells(model, name, calls, 2).shape[-1]
    raise AtomError(
        f"the width of block {name!r} is not found by trying {type(model).__name__} with the inputs that its configuration "
        f"describes ({first_line(first)}); give it: AtomConfig(block={name!r}, hidden_size=...)"
    )


def _described_inputs(model: nn.Module, dtype: torch.dtype) -> Iterator[dict[str, Any]]:
    """Arguments of a denoiser's `forward` for two samples, on the meta device: images, videos, packed patches, signals."""
    config = dict(model.config)
    names = [name for name in signature(type(model).forward).parameters if name != "self"]
    channels, size = config.get("in_channels") or 4, config.get("sample_size") or 64
    size = size if isinstance(size, tuple | list) else (size, size)
    height, width = config.get("sample_height") or size[0], config.get("sample_width") or size[-1]
    text = next((config[name] for name in _TEXT_WIDTHS if config.get(name)), None)
    text = text[0] if isinstance(text, tuple | list) else text

    def make(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device="meta")

    classes = torch.zeros(2, dtype=torch.long, device="meta")
    others = {
        "timestep": make(2),
        "encoder_hidden_states": make(2, 8, text or 64),
        "encoder_attention_mask": None,
        "pooled_projections": make(2, config.get("pooled_projection_dim") or 64),
        "txt_ids": make(8, 3),
        "guidance": make(2) if config.get("guidance_embeds") else None,
        "added_cond_kwargs": {"resolution": None, "aspect_ratio": None},
    }
    if config.get("num_class_embeds") or config.get("num_embeds_ada_norm"):
        others["class_labels"] = classes
    others = {name: value for name, value in others.items() if name in names and value is not None}
    samples = [
        ({}, make(2, channels, height, width)),
        ({}, make(2, channels, 4, height, width)),
        ({}, make(2, 4, channels, height, width)),
        ({"img_ids": make(16, 3)}, make(2, 16, channels)),
        ({}, make(2, channels, width)),
    ]
    for more, sample in samples:
        yield {names[0]: sample, **others, **{name: value for name, value in more.items() if name in names}}
