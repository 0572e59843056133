"""Read and write the heads: a file of their own beside a plain model, or, in a checkpoint, part of the model's weights.

Files are untrusted: only safetensors and size-limited JSON are read, with the shapes that the base model calls for.

The file of the heads holds their configuration too, and both files one id. Where these differ, the two were not saved
together (a copy that broke off, for one), and the heads are read with their own configuration.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from ..atoms.config import CONFIG_NAME, HEADS_ID, MAX_BYTES, AtomConfig
from ..atoms.format_1 import upgrade_tensor
from ..errors import AtomError, first_line
from ..hub.files import NotInCache, find_file
from ..utils.files import read_json, write_atomically
from ..utils.terminal import get_logger

logger = get_logger(__name__)

HEADS_NAME = "atom_heads.safetensors"

HEADS_PREFIX = "atom_heads."

LAST_NAMES = (HEADS_NAME, CONFIG_NAME)
"""What is renamed last when a model is saved: without its configuration there are no heads."""

WEIGHTS_NAMES = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")
"""The weights of a whole model: any of an earlier save would be read beside, or instead of, those of a later one."""

_CONFIG_KEY = "atom_config"  # of the metadata of the heads' file

_DTYPES = ("F64", "F32", "F16", "BF16")

_HEADER_BYTES = 2**20

_INDEX_BYTES = 2**26  # some 100 bytes for each parameter tensor


def write_heads(heads: dict[str, Tensor], folder: str | Path, config: AtomConfig | None = None) -> None:
    """Write a state dict of `AtomHeads` to `atom_heads.safetensors` in `folder`, and their configuration, if given."""
    tensors = {name: tensor.detach().cpu().float().contiguous() for name, tensor in heads.items()}
    metadata = {"format": "pt"}
    if config is not None:
        metadata[_CONFIG_KEY] = json.dumps(config.to_dict(), allow_nan=False)
        metadata[HEADS_ID] = _id_of(tensors, metadata[_CONFIG_KEY])
    write_atomically(Path(folder, HEADS_NAME), _with_metadata(save(tensors), metadata))
    if config is not None:
        config.save(folder, metadata[HEADS_ID])


def _with_metadata(file: bytes, metadata: dict[str, str]) -> bytes:
    """A safetensors file with metadata, always in the same order: the library's own differs from call to call."""
    end = 8 + int.from_bytes(file[:8], "little")
    header = json.dumps({"__metadata__": metadata, **json.loads(file[8:end])}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # numbers are aligned
    return len(header).to_bytes(8, "little") + header + file[end:]


def _id_of(tensors: Mapping[str, Tensor], config: str) -> str:
    """The same for the same heads and configuration: sixteen hexadecimal digits."""
    digest = hashlib.sha256(config.encode())
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].numpy().tobytes())
    return digest.hexdigest()[:16]


def read_heads_config(source: str, **hub: Any) -> AtomConfig | None:
    """The configuration of the heads of a model folder or Hub repository; None if it has none.

    If the file of the configuration is missing or cut off, or not of the save that the heads are of, it is the heads' own,
    and that is said.

    Raises:
        AtomError: not an atom configuration.
    """
    file = find_file(source, CONFIG_NAME, **hub)
    own, why = _instead(source, file, **hub)
    if own is not None:
        heads = find_file(source, HEADS_NAME, **hub)
        logger.warning("%s: %s; the heads are read with the configuration that they hold themselves", heads, why)
        return own
    return None if file is None else AtomConfig.load(file)


def is_torn(folder: str | Path) -> bool:
    """Whether the configuration and the heads in a folder are not of one save, and the heads' own configuration is read."""
    return _instead(str(folder), find_file(str(folder), CONFIG_NAME))[0] is not None


def _instead(source: str, file: str | None, **hub: Any) -> tuple[AtomConfig | None, str]:
    """The heads' own configuration, if it is to be read instead of the one in `file`, and why; else None."""
    if file is None:
        # A repository without one is not asked for heads too: it is some plain model.
        heads = find_file(source, HEADS_NAME) if Path(source).is_dir() else None
        return (None if heads is None else _own_config(heads)[0]), f"there is no {CONFIG_NAME} beside them"
    try:
        named = read_json(file, MAX_BYTES, "atom configuration").get(HEADS_ID)
    except AtomError as error:
        if not isinstance(error.__cause__, json.JSONDecodeError):  # whole, but none of ours
            return None, ""
        named, why = None, str(error)
    else:
        if named is None:  # saved before there were ids, or a checkpoint, whose heads are not a file of their own
            return None, ""
        why = f"{file} was saved with other heads"
    try:
        heads = find_file(source, HEADS_NAME, **hub)
    except NotInCache:  # said when the heads are read
        return None, ""
    own, own_id = (None, None) if heads is None else _own_config(heads)
    return (None if own_id == named else own), why


def _own_config(heads: str) -> tuple[AtomConfig | None, str | None]:
    """The configuration that a file of heads holds, and its id; None for each that it does not hold."""
    try:
        with safe_open(heads, framework="pt") as tensors:
            metadata = tensors.metadata() or {}
        text = metadata.get(_CONFIG_KEY)
        config = None if text is None else AtomConfig.from_dict(json.loads(text))
    except (OSError, ValueError, RuntimeError, SafetensorError, RecursionError):
        return None, None  # `read_heads` says what is wrong with the file
    return config, metadata.get(HEADS_ID)


def read_heads(
    source: str, expected: Mapping[str, tuple[int, ...]], fits: str, **hub: Any
) -> tuple[dict[str, Tensor], str]:
    """(state dict of `AtomHeads` in float32, the file that it was read from) of a model folder or Hub repository.

    The header is checked for names, shapes and dtypes before any tensor is read, so that an oversized file never gets into
    memory.

    Args:
        source: a folder, or an id on the Hub.
        expected: the shape of each tensor, by name.
        fits: what the heads must fit, such as the model's class; for error messages.
        **hub: revision, token, cache_dir.

    Raises:
        AtomError: no heads, a file that is truncated or not safetensors, unexpected shapes, non-finite numbers.
    """
    file = find_heads(source, **hub)
    parts = [(file, "")] if file is not None else [(f, HEADS_PREFIX) for f in _files_with_heads(source, **hub)]
    heads: dict[str, Tensor] = {}
    most = _HEADER_BYTES + 8 * sum(math.prod(shape) for shape in expected.values())
    for file, prefix in parts:
        if not prefix and Path(file).stat().st_size > most:
            raise AtomError(
                f"the heads in {file} do not fit {fits}: they need no more than {most} bytes, and the file has more"
            )
        try:
            with safe_open(file, framework="pt") as tensors:
                keys = [key for key in tensors.keys() if key.startswith(prefix)]  # noqa: SIM118, no mapping
                names = {upgrade_tensor(key.removeprefix(prefix)): key for key in keys}
                slices = {name: tensors.get_slice(key) for name, key in names.items()}
                found = {name: tuple(part.get_shape()) for name, part in slices.items()}
                if not (found.items() <= dict(expected).items() if prefix else found == expected):
                    raise AtomError(f"the heads in {file} do not fit {fits}: expected {expected}, found {_some(found)}")
                kinds = {part.get_dtype() for part in slices.values()}
                if not kinds <= set(_DTYPES):
                    raise AtomError(f"the heads in {file} are of type {', '.join(sorted(kinds))}, not floating numbers")
                heads.update({name: tensors.get_tensor(names[name]).float() for name in found})
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            if isinstance(error, AtomError):
                raise
            raise AtomError(f"{file} is truncated or not a safetensors file: {first_line(error)}") from error
    if heads.keys() != expected.keys():
        raise AtomError(f"the heads in {file} do not fit {fits}: expected {expected}, found {_some(heads)}")
    broken = [name for name, tensor in heads.items() if not tensor.isfinite().all()]
    if broken:
        raise AtomError(f"the heads in {file} hold numbers that are not finite, in {', '.join(broken)}")
    return heads, file


def find_heads(source: str, **hub: Any) -> str | None:
    """The local path of the heads' own file; None if they are part of the model's weights.

    Raises:
        AtomError: neither is found, or the Hub cannot be asked.
    """
    try:
        return find_file(source, HEADS_NAME, **hub)
    except NotInCache:
        # The weights may show what the cache does not.
        weights = find_file(source, SAFE_WEIGHTS_NAME, optional=True, **hub)
        if weights is None or not _has_heads(weights):
            raise
        return None


def _has_heads(file: str) -> bool:
    try:
        with safe_open(file, framework="pt") as tensors:
            return any(key.startswith(HEADS_PREFIX) for key in tensors.keys())  # noqa: SIM118, no mapping
    except (OSError, SafetensorError):
        return False


def check_index(source: str, **hub: Any) -> dict[str, str]:
    """The weight map (tensor name -> file name) of a sharded model; empty if the model is one file.

    Raises:
        AtomError: the index cannot be read, or names files outside its folder.
    """
    index = find_file(source, SAFE_WEIGHTS_INDEX_NAME, optional=True, **hub)
    if index is None:
        return {}
    content = read_json(index, _INDEX_BYTES, "index of weights")
    weight_map = content.get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise AtomError(f"{index} is not an index of weights: it has no weight_map")
    names = set(weight_map.values())
    if any(Path(name).name != name or "\\" in name or not name.endswith(".safetensors") for name in names):
        raise AtomError(f"{index} names files outside its folder, or that are not safetensors")
    return weight_map


def _files_with_heads(source: str, **hub: Any) -> list[str]:
    weight_map = check_index(source, **hub)
    names = {name for key, name in weight_map.items() if key.startswith(HEADS_PREFIX)} or {SAFE_WEIGHTS_NAME}
    files = []
    for name in sorted(names):
        file = find_file(source, name, **hub)
        if file is None:
            raise AtomError(f"{source} has neither {HEADS_NAME} nor {name}, where the heads would be")
        files.append(file)
    return files


def _some(found: Mapping[str, Any]) -> str:
    """The first few names and shapes, for an error message."""
    shown = {name[:60]: tuple(getattr(value, "shape", value)) for name, value in list(found.items())[:6]}
    return f"{shown}{f' and {len(found) - 6} more' if len(found) > 6 else ''}"
