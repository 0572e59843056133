"""What the built-in functions compute. Those that draw use PyTorch's generator of the process."""

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from ..utils.distributed import gather_rows, processes
from .functions import BUILT_IN, Maker
from .wires import Gaussian, Simplex, Value


def function_of(maker: Maker) -> Callable[..., Value]:
    """The function of wires that a maker names, with its options."""
    function = functools.partial(_FUNCTIONS[maker.name], **maker.values(BUILT_IN[maker.name].options, maker.name))
    function.takes_wires = True
    return function


def drawn(draw: Callable[[int], Tensor], rows: int) -> Tensor:
    """Random values of this process's rows: those that one process with the rows of all would draw.

    Args:
        draw: makes values of so many rows, alike on all processes, whose generators stand alike.
    """
    if processes() == 1:
        return draw(rows)
    return draw(rows * processes())[dist.get_rank() * rows :][:rows]


def _like(values: Tensor, draw: Callable[..., Tensor]) -> Tensor:
    return drawn(lambda rows: draw(rows, *values.shape[1:], device=values.device), len(values))


def _draw(stats: Gaussian) -> Tensor:
    return stats.mean + (0.5 * stats.log_variance).exp() * _like(stats.mean, torch.randn)


def _mask(values: Tensor, share: float) -> Tensor:
    return values * (_like(values, torch.rand) >= share)


def _jitter(values: Tensor, sigma: float) -> Tensor:
    return values + sigma * _like(values, torch.randn)


def _shift(images: Tensor, most: float) -> Tensor:
    many, most = len(images), int(most)
    moves = drawn(lambda rows: torch.randint(-most, most + 1, (rows, 2), device=images.device), many)
    padded = F.pad(images, (most,) * 4)
    _, _, height, width = images.shape
    rows = (most + moves[:, :1] + torch.arange(height, device=images.device))[:, None, :, None]
    columns = (most + moves[:, 1:] + torch.arange(width, device=images.device))[:, None, None, :]
    which = torch.arange(many, device=images.device)[:, None, None, None]
    channels = torch.arange(images.shape[1], device=images.device)[None, :, None, None]
    return padded[which, channels, rows, columns]


def _flip(images: Tensor) -> Tensor:
    mirrored = drawn(lambda rows: torch.rand(rows, 1, 1, 1, device=images.device), len(images)) < 0.5
    return torch.where(mirrored, images.flip(-1), images)


def _add(first: Tensor, second: Tensor) -> Tensor:
    return first + second


def _error(first: Tensor, second: Tensor) -> Tensor:
    return (first - second).square().flatten(1).sum(1)


def _entropy(value: Simplex) -> Tensor:
    if value.logits is not None:
        logs = value.logits.log_softmax(-1)
        return -(logs.exp() * logs).sum(-1)
    return torch.special.entr(value.point).sum(-1)


def _hard(value: Simplex) -> Simplex:
    point = value.point
    ids = point.argmax(-1)
    vertex = F.one_hot(ids, point.shape[1]).to(point.dtype)
    return Simplex(logits=value.logits, probabilities=vertex + point - point.detach())


def _against(first: Tensor, second: Tensor, temperature: float) -> Simplex:
    """Cosine similarities over the temperature, as in SimCLR (Chen et al., 2020): of the rows of all processes."""
    rows = [F.normalize(gather_rows(values.flatten(1)), dim=1) for values in (first, second)]
    return Simplex(logits=rows[0] @ rows[1].T / temperature)


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "draw": _draw,
    "mask": _mask,
    "jitter": _jitter,
    "shift": _shift,
    "flip": _flip,
    "add": _add,
    "error": _error,
    "entropy": _entropy,
    "hard": _hard,
    "against": _against,
}
