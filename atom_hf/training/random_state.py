"""Random state of a process (Python, numpy, torch): save, restore, keep."""

import random
import zlib
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def random_state(device: torch.device) -> list[Any]:
    """The state of every generator that augmentation or dropout draws from; `set_random_state` restores it."""
    # Not torch.random.fork_rng, which knows nothing of Python's and numpy's generators.
    on_device = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return [random.getstate(), np.random.get_state(), torch.get_rng_state(), on_device]


def set_random_state(state: list[Any], device: torch.device) -> None:
    """Restore what `random_state` returned."""
    random.setstate(state[0])
    np.random.set_state(state[1])
    torch.set_rng_state(state[2])
    if state[3] is not None:
        torch.cuda.set_rng_state(state[3], device)


@contextmanager
def keeping_generators(collator: Any):
    """Context manager: restores a data collator's attributes and the state of its own generators."""
    # Trainer wraps collators to remove columns.
    owners = [owner for owner in (collator, getattr(collator, "data_collator", None)) if hasattr(owner, "__dict__")]
    # All attributes: a collator that makes its generator on first use makes it again.
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
    """Context manager: restores the random state of the process."""
    state = random_state(device)
    try:
        yield
    finally:
        set_random_state(state, device)


@contextmanager
def noise_of_batch(like: torch.Tensor):
    """Context manager: random numbers depend on the batch alone, whatever was drawn before; restores the generators."""
    content = like.detach().cpu().contiguous().flatten()[:4096]
    devices = [like.device] if like.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(zlib.crc32(content.double().numpy().tobytes()))
        yield
