"""Bounds of a model's configuration, which is untrusted: checked before anything of its size is allocated."""

import os
import random
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules import module as torch_modules

from ..errors import AtomError
from ..utils.files import read_json

CONFIG_BYTES = 2**26  # the names of 100,000 classes take some 5 MB

# Numbers that a configuration or a model counts up to in a loop, some of them when the configuration is read.
_LOOPS = {
    re.compile(r"(^|_)(layers?|blocks?|depths?|stages?|repeats)$"): 4096,
    re.compile(r"(^|_)(experts|codebooks|quantizers|branches|streams|num_virtual_tokens)$"): 2**15,
    re.compile(r"(^|_)(num_labels|num_classes)$"): 2**20,
    re.compile(r"(^|_)image_size$|^(height|width)$"): 2**14,
}

MOST_PARTS = 2**17
"""Modules and parameters that a model may have: one of 61 layers of 384 experts has some 70,000."""


def check_config_file(file: str | Path) -> dict[str, Any]:
    """The content of a `config.json`. Raises `AtomError` for other content, or numbers that are too large."""
    config = read_json(file, CONFIG_BYTES, "configuration of a model")
    check_counts(config, str(file))
    return config


def check_counts(config: Mapping[str, Any], where: str) -> None:
    """Raise `AtomError` for a configuration that would make more layers, experts or classes than any model has.

    Args:
        config: by name, with configurations within it.
        where: where it is from, for the error message.
    """
    rest = [config]
    while rest:
        for name, value in rest.pop().items():
            if isinstance(value, Mapping):
                rest.append(value)
                continue
            most = next((most for pattern, most in _LOOPS.items() if pattern.search(str(name))), None)
            counts = [n for n in (value if isinstance(value, list | tuple) else [value]) if isinstance(n, int)]
            if most is not None and counts and not -most <= max(counts, key=abs) <= most:
                shown = str(max(counts, key=abs))
                raise AtomError(
                    f"{where}: {name} is {shown[:20]}{'...' * (len(shown) > 20)}, more than the {most} allowed"
                )


def described_bytes(make: Callable[[], nn.Module]) -> tuple[int, int]:
    """(parameters, bytes of parameters and buffers) of the model that `make` would make, without allocating them.

    Raises:
        AtomError: it has more parts than any model.
    """
    with _same_random_numbers(), torch.device("meta"), _few_parts():
        model = make()
    held = [*model.parameters(), *model.buffers()]
    return sum(part.numel() for part in model.parameters()), sum(part.numel() * part.element_size() for part in held)


def check_memory(make: Callable[[], nn.Module], where: str, share: float = 1.0) -> None:
    """Raise `AtomError` for a model that is too large for this machine's memory, or has more parts than any.

    Args:
        make: makes it. What it raises is left to whoever makes it in earnest.
        where: where its configuration is from, for the error message.
        share: of its bytes, what is sure to be allocated.
    """
    try:
        parameters, size = described_bytes(make)
    except AtomError as error:
        raise AtomError(f"{where}: {error}") from error
    except Exception:  # some models cannot be made without memory, and a configuration may fit none
        return
    memory = _memory()
    if memory is not None and size * share > memory:
        raise AtomError(
            f"{where}: it describes {parameters:,} parameters, {size * share / 2**30:,.0f} GiB at the least, and this machine "
            f"has {memory / 2**30:,.0f} GiB; give a smaller one"
        )


def _memory() -> int | None:
    """The memory of this machine, if it says."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


@contextmanager
def _few_parts() -> Iterator[None]:
    """Context manager: modules may register at most `MOST_PARTS` modules and parameters in all."""
    count = 0

    def counted(*_: Any) -> None:
        nonlocal count
        count += 1
        if count > MOST_PARTS:
            raise AtomError(f"the model has more than {MOST_PARTS:,} modules and parameters")

    hooks = [
        torch_modules.register_module_module_registration_hook(counted),
        torch_modules.register_module_parameter_registration_hook(counted),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _same_random_numbers() -> Iterator[None]:
    """Context manager: what is drawn within is drawn again after it: initial weights stay those of a seed."""
    before = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
