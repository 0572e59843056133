"""Rows that a Trainer is given as whole batches."""

from typing import Any

from torch import Tensor
from torch.utils.data import Dataset, default_collate


class Rows(Dataset):
    """Images as rows; a batch is fetched at once."""

    def __init__(self, images: Tensor):
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        return {"pixel_values": self.images[number]}

    def __getitems__(self, numbers: list[int]) -> dict[str, Tensor]:
        return {"pixel_values": self.images[numbers]}


def collate(rows: Any) -> dict[str, Tensor]:
    """A batch that was fetched at once as it is, and one of single rows put together."""
    return rows if isinstance(rows, dict) else default_collate(rows)
