"""Find weights that are not finite numbers (NaN, infinity): what is left of a model after training diverged."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ..errors import AtomError, first_line


def not_finite(model: torch.nn.Module) -> list[str]:
    """The names of the parameters that are not finite. Of a sharded model only this process's part is looked at."""
    return [name for name, parameter in model.named_parameters() if not _is_finite(_local(parameter))]


def check_finite_files(folder: str | Path) -> None:
    """Reject weights on disk that are not finite: the safetensors files of a folder. Raises `AtomError`, naming the file."""
    for file in sorted(Path(folder).glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt") as tensors:
                name = next((key for key in tensors.keys() if not _is_finite(tensors.get_tensor(key))), None)  # noqa: SIM118
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise AtomError(f"{file} is truncated or not a safetensors file: {first_line(error)}") from error
        if name is not None:
            raise AtomError(f"{file} holds numbers that are not finite (NaN), in {name[:100]!r}")


def _is_finite(tensor: torch.Tensor) -> bool:
    if not (tensor.is_floating_point() or tensor.is_complex()) or tensor.device.type == "meta":
        return True
    if tensor.element_size() == 1:  # 8-bit floating numbers know few operations
        tensor = tensor.float()
    return bool(tensor.detach().isfinite().all())


def _local(parameter: Any) -> torch.Tensor:
    """This process's part of a parameter that FSDP or DeepSpeed has sharded."""
    part = getattr(parameter, "ds_tensor", parameter)
    return part.to_local() if hasattr(part, "to_local") else part
