"""Defaults of `atom-hf bench` for this machine: device, precision and batch size."""

from collections.abc import Mapping
from typing import Any

import torch

from ..utils.terminal import get_logger

logger = get_logger(__name__)

CPU_BATCH = 4
"""Samples of a step on a CPU: with 128 tokens each, a step of BERT-base takes some seconds."""


def fitting_flags(given: Mapping[str, Any]) -> list[str]:
    """Flags for what `given` leaves open: a GPU in bfloat16, where both are there; else the CPU, with a smaller batch.

    Says in a line what it chose.
    """
    has_gpu = torch.cuda.is_available()
    chosen: dict[str, str] = {}
    if has_gpu and not given.get("use_cpu"):
        found = torch.cuda.get_device_name()
        if not {"bf16", "fp16"} & set(given) and torch.cuda.is_bf16_supported(including_emulation=False):
            chosen["bf16"] = "true"
    else:
        found = "the CPU" if has_gpu or given.get("use_cpu") else "no GPU"
        if "use_cpu" not in given:
            chosen["use_cpu"] = "true"
        if "per_device_train_batch_size" not in given:
            chosen["per_device_train_batch_size"] = str(CPU_BATCH)
    flags = [word for name, value in chosen.items() for word in (f"--{name}", value)]
    if flags:
        logger.info("for %s: %s; flags choose otherwise", found, " ".join(flags))
    return flags
