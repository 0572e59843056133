"""Networks for learners, by name: `linear`, `mlp(64, 64)`, `conv(16, 32)`, `centres`."""

import math
import re
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import AtomError
from ..utils.distributed import gather_rows
from .kinds import BATCH, Kind
from .spec import Box

NAMES = ("linear", "mlp", "conv", "centres")

WIDEST = 2**16

_DEFAULTS = {"linear": (), "mlp": (128,), "conv": (16, 32), "centres": ()}


def is_architecture(text: str) -> bool:
    """Whether a text names a network here, and not a folder or a Hub id."""
    return re.match(r"\s*(\w+)\s*(\(|$)", text) is not None and re.match(r"\s*(\w+)", text)[1] in NAMES


def make_network(box: Box, text: str) -> nn.Module:
    """A network for a learner. Raises `AtomError` for a text that names none, or wires that it cannot take."""
    found = re.fullmatch(r"\s*(\w+)\s*(?:\(\s*([\d\s,]*)\))?\s*", text)
    if found is None or found[1] not in NAMES:
        raise AtomError(
            f"learner {box.name}: {text!r} is no network; there are linear, mlp(128), conv(16, 32), centres"
        )
    name, given = found[1], [int(width) for width in re.findall(r"\d+", found[2] or "")]
    widths = tuple(given) or _DEFAULTS[name]
    if given and not _DEFAULTS[name]:
        raise AtomError(f"learner {box.name}: {name} has no widths, got {text!r}")
    if any(not 1 <= width <= WIDEST for width in widths):
        raise AtomError(f"learner {box.name}: a width is a whole number from 1 to {WIDEST}, got {text!r}")
    for wire in (*box.inputs, *box.outputs):
        if wire.kind.name == "tokens" or wire.kind.sizes == (BATCH,):
            raise AtomError(f"learner {box.name}: {name} takes and gives no {wire.kind}; bind a module of your own")
    if name == "centres":
        return Centres([w.kind for w in box.inputs], [w.kind for w in box.outputs], box.name)
    if name == "conv":
        return Convolutions([w.kind for w in box.inputs], [w.kind for w in box.outputs], widths, box.name)
    return Dense([w.kind for w in box.inputs], [w.kind for w in box.outputs], widths)


class Dense(nn.Module):
    """Linear layers with ReLU between them, over all inputs side by side.

    Args:
        inputs, outputs: the kinds of its wires.
        widths: of the hidden layers; none for a linear map.
    """

    def __init__(self, inputs: list[Kind], outputs: list[Kind], widths: tuple[int, ...] = ()):
        super().__init__()
        self.outputs = [kind.values for kind in outputs]
        sizes = [sum(kind.values for kind in inputs), *widths, sum(self.outputs)]
        layers: list[nn.Module] = []
        for size, following in pairwise(sizes):
            layers += [nn.Linear(size, following), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, *wires: Tensor) -> Tensor | tuple[Tensor, ...]:
        rows = torch.cat([wire.reshape(len(wire), -1) for wire in wires], dim=1)
        return _parts(self.layers(rows), self.outputs)


class Convolutions(nn.Module):
    """A convolutional network: of an image to anything (halved at each width), of anything to an image (doubled), or of an
    image and more to an image of the same size, as the sum of the image and a correction.

    Args:
        inputs, outputs: the kinds of its wires, of which at most one on each side is an image.
        widths: channels of the layers, from the image on.
        name: of the learner, for errors.
    """

    def __init__(self, inputs: list[Kind], outputs: list[Kind], widths: tuple[int, ...], name: str):
        super().__init__()
        images = [[kind for kind in kinds if kind.name == "pixels"] for kinds in (inputs, outputs)]
        if not any(images) or any(len(some) > 1 for some in images) or (images[1] and len(outputs) > 1):
            raise AtomError(
                f"learner {name}: conv takes one image, or gives one, or both; use mlp, or bind a module of your own"
            )
        self.image = next((place for place, kind in enumerate(inputs) if kind.name == "pixels"), None)
        self.outputs = [kind.values for kind in outputs]
        self.shape = images[1][0].sizes if images[1] else None
        self.edits = bool(images[0] and images[1])
        rest = sum(kind.values for kind in inputs if kind.name != "pixels")
        if self.edits:
            if images[0][0].sizes != self.shape:
                raise AtomError(
                    f"learner {name}: conv keeps the size of an image, got {images[0][0]} -> {images[1][0]}"
                )
            channels = [self.shape[0] + rest, *widths]
            self.layers = nn.Sequential(*_same_size(channels), nn.Conv2d(widths[-1], self.shape[0], 3, padding=1))
        elif images[0]:
            channels, height, width = images[0][0].sizes
            self.layers = nn.Sequential(*_halving([channels, *widths]))
            left = math.ceil(height / 2 ** len(widths)) * math.ceil(width / 2 ** len(widths))
            self.end = nn.Linear(widths[-1] * left + rest, sum(self.outputs))
        else:
            channels, height, width = self.shape
            self.start = [widths[-1], *(math.ceil(side / 2 ** len(widths)) for side in (height, width))]
            self.begin = nn.Linear(rest, math.prod(self.start))
            self.layers = nn.Sequential(*_doubling([*reversed(widths), channels]))

    def forward(self, *wires: Tensor) -> Tensor | tuple[Tensor, ...]:
        flat = [wire.reshape(len(wire), -1) for place, wire in enumerate(wires) if place != self.image]
        if self.edits:
            image = wires[self.image]
            maps = [wire[:, :, None, None].expand(-1, -1, *image.shape[2:]) for wire in flat]
            return image + self.layers(torch.cat([image, *maps], dim=1))
        if self.shape is None:
            hidden = self.layers(wires[self.image]).flatten(1)
            return _parts(self.end(torch.cat([hidden, *flat], dim=1)), self.outputs)
        image = self.layers(F.relu(self.begin(torch.cat(flat, dim=1))).unflatten(1, self.start))
        return image[..., : self.shape[1], : self.shape[2]]


class Centres(nn.Module):
    """The class of the nearest of some centres, and that centre: a point to a class and a point.

    Its logits are the negative squared distances. The gradient of a row's distance to its centre is that of k-means (Bottou and
    Bengio, 1995). The centres start at rows of the first training batch, by k-means++.
    """

    def __init__(self, inputs: list[Kind], outputs: list[Kind], name: str):
        super().__init__()
        found = len(inputs) == 1 and len(outputs) == 2 and outputs[0].name == "class" and outputs[1] == inputs[0]
        if not found or inputs[0].name not in ("pixels", "vector"):
            raise AtomError(
                f"learner {name}: centres takes a point and gives a class and a point, as in point -> cluster, point"
            )
        self.centres = nn.Parameter(torch.zeros(outputs[0].sizes[0], inputs[0].values))
        self.register_buffer("placed", torch.tensor(False))

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        rows = points.flatten(1)
        if self.training and not self.placed:
            self._place(rows.detach())
        distances = torch.cdist(rows, self.centres).square()
        return -distances, self.centres[distances.argmin(1)].view_as(points)

    @torch.no_grad()
    def _place(self, rows: Tensor) -> None:
        from sklearn.cluster import kmeans_plusplus  # takes a second to import

        rows = gather_rows(rows)
        if len(rows) < len(self.centres):
            raise AtomError(f"centres: {len(self.centres)} of them need a batch of as many rows, got {len(rows)}")
        seed = int(torch.randint(2**31, ()))  # alike on all processes
        centres, _ = kmeans_plusplus(rows.double().cpu().numpy(), len(self.centres), random_state=seed)
        self.centres.copy_(torch.as_tensor(centres))
        self.placed.fill_(True)


def _halving(channels: list[int]) -> list[nn.Module]:
    pairs = pairwise(channels)
    return [layer for a, b in pairs for layer in (nn.Conv2d(a, b, 3, stride=2, padding=1), nn.ReLU())]


def _same_size(channels: list[int]) -> list[nn.Module]:
    pairs = pairwise(channels)
    return [layer for a, b in pairs for layer in (nn.Conv2d(a, b, 3, padding=1), nn.ReLU())]


def _doubling(channels: list[int]) -> list[nn.Module]:
    pairs = pairwise(channels)
    return [layer for a, b in pairs for layer in (nn.ConvTranspose2d(a, b, 4, stride=2, padding=1), nn.ReLU())][:-1]


def _parts(values: Tensor, sizes: list[int]) -> Tensor | tuple[Tensor, ...]:
    return values if len(sizes) == 1 else values.split(sizes, dim=1)
