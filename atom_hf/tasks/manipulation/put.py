"""Networks that write a class into a row: `steer` for images, `residual` for embeddings."""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...errors import AtomError
from ..kinds import Kind

PUTS = {"steer": "pixels", "residual": "vector"}
"""By name, the kind of the rows that it edits."""

FILL = "fill"
"""The editor of texts (`texts/fill.py`)."""

SHARE = 0.25
"""Of a text's tokens, those that are written anew."""

WIDTHS = {"steer": (32, 64), "residual": (256, 256)}


def make_put(name: str, kind: Kind, classes: int, widths: Sequence[int]) -> nn.Module:
    """The network of a name. Raises `AtomError` for rows that it does not edit."""
    if name not in PUTS:
        raise AtomError(f"--put {name!r} is unknown; give one of {', '.join((*PUTS, FILL))}")
    if PUTS[name] != kind.name:
        has = "images" if kind.name == "pixels" else "vectors"
        fits = next(other for other, edited in PUTS.items() if edited == kind.name)
        raise AtomError(f"--put {name} does not edit {has}; give --put {fits}")
    return (Steer if name == "steer" else Residual)(kind, classes, widths)


class Steer(nn.Module):
    """`dec(enc(x) + w(a))` for images: the class is a direction in a convolutional code, so that strengths between two
    classes lie between two codes.

    Args:
        kind: pixels(c, h, w).
        classes: n.
        widths: channels of the layers, each of which halves the sides.
    """

    def __init__(self, kind: Kind, classes: int, widths: Sequence[int]):
        super().__init__()
        channels, *self.size = kind.sizes
        code = [widths[-1], *(math.ceil(side / 2 ** len(widths)) for side in self.size)]
        layers: list[nn.Module] = []
        for before, width in itertools.pairwise([channels, *widths]):
            layers += [nn.Conv2d(before, width, 3, stride=2, padding=1), nn.ReLU()]
        self.enc = nn.Sequential(*layers[:-1])
        self.w = nn.Linear(classes, math.prod(code), bias=False)
        layers = []
        for before, width in itertools.pairwise([*reversed(widths), channels]):
            layers += [nn.ReLU(), nn.ConvTranspose2d(before, width, 4, stride=2, padding=1)]
        self.dec = nn.Sequential(*layers, nn.Sigmoid())
        self.code = code

    def forward(self, images: Tensor, target: Tensor) -> Tensor:
        """The images [B, c, h, w] with pixels from 0 to 1, edited to points [B, n] of the simplex of classes."""
        code = self.enc(images) + self.w(target).unflatten(1, self.code)
        return self.dec(code)[..., : self.size[0], : self.size[1]]


class Residual(nn.Module):
    """`x + f(x, a)` for vectors, where f begins at 0: an editor that changes nothing.

    Args:
        kind: vector(d).
        classes: n.
        widths: of the hidden layers.
    """

    def __init__(self, kind: Kind, classes: int, widths: Sequence[int]):
        super().__init__()
        sizes = [kind.values + classes, *widths]
        layers: list[nn.Module] = []
        for before, width in itertools.pairwise(sizes):
            layers += [nn.Linear(before, width), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], kind.values))
        nn.init.zeros_(self.layers[-1].weight)
        nn.init.zeros_(self.layers[-1].bias)

    def forward(self, vectors: Tensor, target: Tensor) -> Tensor:
        """The vectors [B, d], edited to points [B, n] of the simplex of classes."""
        return vectors + self.layers(torch.cat([vectors, target], dim=1))
