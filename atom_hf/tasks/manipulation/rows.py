"""Rows with their classes, as a manipulator is trained and judged on them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...data.splits import stratified_rows
from ...errors import AtomError
from ..kinds import Kind
from ..rows import Column, TaskRows


@dataclass(frozen=True)
class LabelledRows:
    """Images or vectors, each of a class.

    Args:
        values: pixels [N, c, h, w], as bytes or from 0 to 1; or vectors [N, n].
        labels: int64 [N].
    """

    values: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if len(self.values) != len(self.labels) or self.values.dim() not in (2, 4) or self.labels.dim() != 1:
            raise AtomError(
                f"rows: give pixels [N, c, h, w] or vectors [N, n], and labels [N]; got {list(self.values.shape)} and "
                f"{list(self.labels.shape)}"
            )
        if self.values.is_floating_point() and not bool(self.values.isfinite().all()):
            raise AtomError("rows: there are values that are not finite numbers; leave those rows out")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def kind(self) -> Kind:
        """Of a row."""
        name = "pixels" if self.values.dim() == 4 else "vector"
        return Kind(name, tuple(self.values.shape[1:]))

    @property
    def floats(self) -> Tensor:
        """The values; of bytes the pixels from 0 to 1."""
        return self.values.float() / 255 if self.values.dtype == torch.uint8 else self.values.float()

    def take(self, which: Tensor | np.ndarray | Sequence[int]) -> "LabelledRows":
        """Some of the rows."""
        which = torch.as_tensor(which, dtype=torch.long)
        return LabelledRows(self.values[which], self.labels[which])

    def draw(self, count: int, seed: int = 0) -> "LabelledRows":
        """At most so many rows, each class in proportion."""
        return self if count >= len(self) else self.take(stratified_rows(self.labels.numpy(), count, seed))

    def split(self, fraction: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of a part of the rows, each class in proportion, and those of the others."""
        first = stratified_rows(self.labels.numpy(), round(fraction * len(self)), seed)
        return first, np.setdiff1d(np.arange(len(self)), first)

    def of_class(self, label: int) -> Tensor:
        """The values of one class, as `floats`."""
        return self.take((self.labels == label).nonzero().flatten()).floats

    def as_task_rows(self, seed: int) -> TaskRows:
        """The rows of the source `D` of a task."""
        return TaskRows({"D": [Column(self.values), Column(self.labels)]}, seed)
