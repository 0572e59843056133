"""Texts with their classes, as an editor of texts is trained and judged on them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ....data.encoding import readable
from ....data.splits import stratified_rows
from ....errors import AtomError
from ...rows import Column, TaskRows
from ...wires import Tokens

BATCH = 64  # texts in a forward pass


@dataclass(frozen=True)
class TextRows:
    """Texts, each of a class.

    Args:
        texts: strings.
        labels: int64 [N].
    """

    texts: list[str]
    labels: Tensor

    def __post_init__(self) -> None:
        if len(self.texts) != len(self.labels):
            raise AtomError(f"rows: {len(self.texts)} texts and {len(self.labels)} labels; give one label each")

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, which: Tensor | np.ndarray | Sequence[int]) -> "TextRows":
        """Some of the rows."""
        which = torch.as_tensor(which, dtype=torch.long)
        return TextRows([self.texts[row] for row in which.tolist()], self.labels[which])

    def draw(self, count: int, seed: int = 0) -> "TextRows":
        """At most so many rows, each class in proportion."""
        return self if count >= len(self) else self.take(stratified_rows(self.labels.numpy(), count, seed))

    def split(self, fraction: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of a part of the rows, each class in proportion, and those of the others."""
        first = stratified_rows(self.labels.numpy(), round(fraction * len(self)), seed)
        return first, np.setdiff1d(np.arange(len(self)), first)

    def as_task_rows(self, tokenizer: Any, max_length: int, seed: int) -> TaskRows:
        """The rows of the source `D` of a task."""
        ids = [np.asarray(one, dtype=np.int32) for one in token_ids(self.texts, tokenizer, max_length)]
        return TaskRows({"D": [Column(ids), Column(self.labels)]}, seed)


def token_ids(texts: Sequence[str], tokenizer: Any, max_length: int) -> list[list[int]]:
    """The ids of each text, with those that mark its ends, cut at a length."""
    if not texts:
        return []
    cut = [readable(text, tokenizer, max_length) for text in texts]
    return tokenizer(cut, truncation=True, max_length=max_length, return_attention_mask=False)["input_ids"]


def padded(ids: Sequence[Sequence[int]], device: Any = None) -> Tokens:
    """Texts side by side, filled up behind with 0."""
    length = max(map(len, ids))
    table = torch.tensor([[*row, *[0] * (length - len(row))] for row in ids], dtype=torch.long, device=device)
    sizes = torch.tensor([len(row) for row in ids], device=device)
    return Tokens(table, (torch.arange(length, device=device) < sizes[:, None]).long())
