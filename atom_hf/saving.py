"""Where heads are kept: a file of their own beside a plain model, or, in a checkpoint, inside the model's."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file

from .errors import AtomError, first_line

HEADS_NAME = "atom_heads.safetensors"
HEADS_PREFIX = "atom_heads."


def find_file(source: str, name: str, **hub: Any) -> str | None:
    """The path of a file of a model folder or Hub repository; None if it has no such file.

    `hub` is what `transformers.utils.cached_file` takes: revision, token, cache_dir. Raises `AtomError` for a repository that
    may not be read.
    """
    try:
        return cached_file(source, name, **hub, _raise_exceptions_for_missing_entries=False)
    except OSError as error:
        raise AtomError(f"{source!r} cannot be read: {first_line(error)}") from error


def write_heads(heads: dict[str, Tensor], folder: str | Path) -> None:
    """Writes a state dict of `AtomHeads` as `atom_heads.safetensors` into `folder`."""
    tensors = {name: tensor.detach().cpu().float().contiguous() for name, tensor in heads.items()}
    save_file(tensors, Path(folder, HEADS_NAME), metadata={"format": "pt"})


def read_heads(source: str, **hub: Any) -> tuple[dict[str, Tensor], str]:
    """(state dict of `AtomHeads`, the file that it was read from) of a model folder or Hub repository.

    Raises:
        AtomError: no heads there, or a file that is truncated or no safetensors file.
    """
    file = find_file(source, HEADS_NAME, **hub)
    try:
        if file is not None:
            return load_file(file), file
        heads, file = {}, SAFE_WEIGHTS_NAME
        for name in _files_with_heads(source, **hub):
            file = find_file(source, name, **hub)
            if file is None:
                raise AtomError(f"{source} lacks {name}")
            with safe_open(file, framework="pt") as tensors:
                inside = [key for key in tensors.keys() if key.startswith(HEADS_PREFIX)]  # noqa: SIM118, no mapping
                heads.update({key.removeprefix(HEADS_PREFIX): tensors.get_tensor(key) for key in inside})
    except (OSError, SafetensorError) as error:
        raise AtomError(f"{file} is truncated or not a safetensors file: {error}") from error
    return heads, file


def _files_with_heads(source: str, **hub: Any) -> set[str]:
    index = find_file(source, SAFE_WEIGHTS_INDEX_NAME, **hub)
    if index is None:
        return {SAFE_WEIGHTS_NAME}
    weight_map = json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"]
    names = {name for key, name in weight_map.items() if key.startswith(HEADS_PREFIX)}
    if any(Path(name).name != name for name in names):
        raise AtomError(f"{index} names files outside its folder")
    return names
