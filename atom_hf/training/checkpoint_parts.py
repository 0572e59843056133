"""Check the parts of a checkpoint before a run resumes from it: Trainer reads them only when it starts to train.

Only tensors and numbers are unpickled (`weights_only` of `torch.load`).
"""

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_pt_utils import safe_globals

from ..errors import AtomError, first_line

# Files of `torch.save`, and what each must hold.
_SAVED = {
    "optimizer.*": ("state", "param_groups"),
    "scheduler.pt": (),
    "rng_state*.pth": ("python", "numpy", "cpu"),
    "scaler.pt": (),
    "pytorch_model*.bin": (),
    "adapter_model.bin": (),
}

_OTHERWISE = "resume from another checkpoint, or start a new run"


def check_parts(checkpoint: str) -> None:
    """Raise `AtomError` for a checkpoint with a part that is damaged, or that is a pickle of anything but tensors."""
    folder = Path(checkpoint)
    try:
        state = TrainerState.load_from_json(str(folder / TRAINER_STATE_NAME))
        if not isinstance(state.global_step, int) or not isinstance(state.log_history, list):
            raise ValueError("it has no global step")
    except (OSError, ValueError, TypeError, AttributeError, RecursionError, json.JSONDecodeError) as error:
        raise _damaged(folder / TRAINER_STATE_NAME, first_line(error)) from error
    for pattern, keys in _SAVED.items():
        for file in sorted(folder.glob(pattern)):
            if file.is_file():
                _check_saved(file, keys)
    for file in sorted(folder.glob("*.safetensors")):
        _shapes(file)


def check_fits(checkpoint: str, model: Any) -> None:
    """Raise `AtomError` for a checkpoint whose weights have other shapes than the model's."""
    own = {name: tuple(value.shape) for name, value in model.state_dict().items() if value.numel()}
    for file in sorted(Path(checkpoint).glob("*.safetensors")):
        for name, shape in _shapes(file).items():
            if own.get(name, shape) != shape:
                raise AtomError(
                    f"resume_from_checkpoint: {checkpoint} holds another model: {name} is {list(shape)} there, and "
                    f"{list(own[name])} in this run; give the flags of the run that wrote it, or {_OTHERWISE}"
                )


def _check_saved(file: Path, keys: tuple[str, ...]) -> None:
    if not zipfile.is_zipfile(file):
        raise _damaged(file, "it is truncated, or not a file of torch.save; pickles are not read")
    try:
        with safe_globals():
            # Mapped: what the tensors hold is not read.
            found = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise _damaged(file, "it is a pickle of more than tensors, which is not read") from error
    except Exception as error:  # a damaged file raises many kinds of errors
        raise _damaged(file, first_line(error)) from error
    if not isinstance(found, dict) or not set(keys) <= set(found):
        raise _damaged(file, f"it does not hold {', '.join(keys)}" if keys else f"it holds a {type(found).__name__}")


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    try:
        with safe_open(file, framework="pt") as tensors:
            return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise _damaged(file, first_line(error)) from error


def _damaged(file: Path, why: str) -> AtomError:
    return AtomError(f"resume_from_checkpoint: {file} cannot be read: {why}; {_OTHERWISE}")
