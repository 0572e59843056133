"""Values on wires, by their kind, and how a module takes and gives them.

Pixels and vectors are tensors, rows first; logits and scalars are [B]. What a box gives that is no tensor goes on to the next
box as it is.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import AtomError
from .kinds import BATCH, Kind


@dataclass
class Simplex:
    """A class: points [B, n] of the simplex, as ids [B] of vertices or as logits [B, n], whichever there are."""

    ids: Tensor | None = None
    logits: Tensor | None = None
    probabilities: Tensor | None = None
    """[B, n], where they are neither of ids nor the softmax of the logits."""
    classes: int | None = None
    """n, of ids."""

    @property
    def point(self) -> Tensor:
        """[B, n]: what a module takes."""
        if self.probabilities is not None:
            return self.probabilities
        if self.ids is not None:
            return F.one_hot(self.ids, self.classes or int(self.ids.max()) + 1).float()
        return self.logits.softmax(-1)

    @property
    def scores(self) -> Tensor:
        """[B, n]: the logits, or the logarithms of the probabilities where nothing has given logits."""
        return self.point.clamp(min=1e-12).log() if self.logits is None else self.logits

    def __len__(self) -> int:
        return len(next(value for value in (self.ids, self.logits, self.probabilities) if value is not None))


@dataclass
class Gaussian:
    """Independent normal distributions: means and log-variances [B, n]."""

    mean: Tensor
    log_variance: Tensor

    def __len__(self) -> int:
        return len(self.mean)


@dataclass
class Tokens:
    """A text: ids [B, N] or logits [B, N, n], and the mask [B, N] of its real tokens."""

    ids: Tensor | None
    mask: Tensor
    logits: Tensor | None = None

    def __len__(self) -> int:
        return len(self.mask)


@dataclass
class Filled(Tokens):
    """A text of which some tokens were written, and the others are what they were.

    `ids` holds the likeliest of the tokens that can be written. `scores` [M, v] are the logits of these v tokens at each of the
    M places that were written, row by row.
    """

    places: Tensor | None = None
    """[B, N], whether a token was written."""
    scores: Tensor | None = None
    vocabulary: Tensor | None = None
    """[v], the ids of the tokens that can be written."""

    def embedded(self, table: nn.Embedding) -> Tensor:
        """The rows [B, N, d] of a table: of written tokens the likeliest one's, with the gradient of the mean over all."""
        rows, chances = table(self.ids), self.scores.softmax(-1)
        through = (chances - chances.detach()) @ table.weight[self.vocabulary]
        return rows.index_put((self.places,), rows[self.places] + through)


Value = Any
"""A Tensor, `Simplex`, `Gaussian` or `Tokens`; between two boxes anything."""


def from_data(kind: Kind, value: Any, where: str) -> Value:
    """A wire of what a data set or a caller gives. Raises `AtomError`, beginning with `where`, for another shape.

    Args:
        value: pixels [B, c, h, w]; a vector [B, n], or of any shape with n numbers a row; ids [B] or probabilities [B, n] of
            classes; ids [B, N] of tokens, or these with their mask; (mean, log-variance) of a gaussian; numbers [B].
    """
    if isinstance(value, Simplex | Gaussian | Tokens):
        return value
    if kind.name == "tokens":
        ids, mask = value if isinstance(value, tuple | list) else (value, None)
        return Tokens(ids, torch.ones_like(ids) if mask is None else mask)
    if kind.name == "class" and torch.is_tensor(value) and not value.is_floating_point():
        ids = value.reshape(-1).long()
        if kind.sizes != (BATCH,) and len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < kind.sizes[0]:
            raise AtomError(
                f"{where}: classes of {kind} are 0 to {kind.sizes[0] - 1}, got {int(ids.min())} to {int(ids.max())}"
            )
        return Simplex(ids=ids, classes=None if kind.sizes == (BATCH,) else kind.sizes[0])
    if kind.name == "class" and torch.is_tensor(value):
        return Simplex(probabilities=_shaped(kind, value, where))
    return from_box(kind, value if not torch.is_tensor(value) or value.is_floating_point() else value.float(), where)


def from_box(kind: Kind, value: Any, where: str) -> Value:
    """A wire of what a module gives: logits of a class or of tokens, [B, 2n] or a pair of a gaussian.

    Raises:
        AtomError: a tensor of another shape.
    """
    if isinstance(value, Simplex | Gaussian | Tokens):
        return value
    if kind.name == "gaussian" and isinstance(value, tuple | list) and len(value) == 2:
        return Gaussian(*value)
    if not torch.is_tensor(value):
        return value
    if kind.name == "class":
        return Simplex(logits=_shaped(kind, value, where))
    if kind.name == "gaussian":
        return Gaussian(*_shaped(kind, value, where).chunk(2, dim=-1))
    if kind.name == "tokens":
        return Tokens(None, torch.ones(value.shape[:2], dtype=torch.long, device=value.device), value)
    return _shaped(kind, value, where)


def _shaped(kind: Kind, value: Tensor, where: str) -> Tensor:
    if kind.sizes == (BATCH,):
        return value
    if kind.name in ("logit", "scalar"):
        if value.dim() < 2 or value.numel() == len(value):
            return value.reshape(-1) if value.dim() else value
        raise AtomError(f"{where}: gives {list(value.shape)}, and a {kind} is one number a row")
    if kind.name == "vector" and value.dim() == 3 and value.shape[-1] == kind.sizes[0]:
        return value  # hidden states
    shape = kind.sizes if kind.name == "pixels" else (kind.values,)
    if value.dim() < 2 or value[:1].numel() not in (0, kind.values):
        raise AtomError(f"{where}: gives {list(value.shape)}, and {kind} is [rows, {', '.join(map(str, shape))}]")
    return value.reshape(len(value), *shape)


def to_box(value: Value) -> Any:
    """What a module takes of a wire: points of the simplex, means beside log-variances, ids of tokens."""
    if isinstance(value, Simplex):
        return value.point
    if isinstance(value, Gaussian):
        return torch.cat([value.mean, value.log_variance], dim=-1)
    if isinstance(value, Tokens):
        return value.ids if value.logits is None else value.logits.softmax(-1)
    return value


def rows_of(value: Value) -> int | None:
    """The number of rows; None of what has none."""
    if torch.is_tensor(value):
        return len(value) if value.dim() else None
    return len(value) if isinstance(value, Simplex | Gaussian | Tokens) else None


def taken(value: Value, rows: Tensor) -> Value:
    """The wire with its rows in another order."""
    match value:
        case Simplex():
            parts = [None if part is None else part[rows] for part in (value.ids, value.logits, value.probabilities)]
            return Simplex(*parts, value.classes)
        case Gaussian():
            return Gaussian(value.mean[rows], value.log_variance[rows])
        case Tokens():
            parts = [None if part is None else part[rows] for part in (value.ids, value.mask, value.logits)]
            return Tokens(*parts)
    return value[rows]
