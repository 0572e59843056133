"""The random numbers of a process: those of Python, numpy and torch."""

import random
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def random_state(device: torch.device) -> list[Any]:
    """Where every generator stands that augmentation or dropout draws from; `set_random_state` puts it back."""
    on_device = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return [random.getstate(), np.random.get_state(), torch.get_rng_state(), on_device]


def set_random_state(state: list[Any], device: torch.device) -> None:
    """The inverse of `random_state`."""
    random.setstate(state[0])
    np.random.set_state(state[1])
    torch.set_rng_state(state[2])
    if state[3] is not None:
        torch.cuda.set_rng_state(state[3], device)


@contextmanager
def keeping_generators(collator: Any):
    """Within it a data collator may draw from a generator of its own, and leaves no trace in it."""
    # Trainer wraps collators to leave columns out.
    owners = [owner for owner in (collator, getattr(collator, "data_collator", None)) if hasattr(owner, "__dict__")]
    # As they are: one that makes its generator when it is first used makes it again.
    before = [(owner, dict(vars(owner))) for owner in owners]
    torchs = [(v, v.get_state()) for _, own in before for v in own.values() if isinstance(v, torch.Generator)]
    numpys = [
        (v.bit_generator, v.bit_generator.state)
        for _, own in before
        for v in own.values()
        if isinstance(v, np.random.Generator)
    ]
    try:
        yield
    finally:
        for owner, own in before:
            vars(owner).clear()
            vars(owner).update(own)
        for generator, state in torchs:
            generator.set_state(state)
        for generator, state in numpys:
            generator.state = state


@contextmanager
def keeping_random_state(device: torch.device):
    """What runs within it leaves no trace in any of these generators."""
    state = random_state(device)
    try:
        yield
    finally:
        set_random_state(state, device)
