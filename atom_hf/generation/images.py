"""Rows of a data set as images in [-1, 1] for a denoiser."""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ..utils.pictures import in_mode


class ImageRows(Dataset):
    """The images of a data set as `pixel_values` [C, H, W] in [-1, 1], and their classes as `labels`, where there are any.

    Args:
        rows: with a column "image", and with `labelled` "label".
        size: (height, width). The larger side of an image is cut to this shape in the middle, and the rest scaled.
        channels: 1 for grey, 3 for colour.
        labelled: whether to give the classes.
        flip: whether to mirror images at random.
    """

    def __init__(self, rows: Any, size: tuple[int, int], channels: int, *, labelled: bool = False, flip: bool = False):
        self.rows, self.size, self.channels, self.labelled, self.flip = rows, size, channels, labelled, flip

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> dict[str, Any]:
        row = self.rows[number]
        pixels = pixels_of(row["image"], self.size, self.channels)
        if self.flip and torch.rand(()) < 0.5:
            pixels = pixels.flip(-1)
        return {"pixel_values": pixels, **({"labels": row["label"]} if self.labelled else {})}


def pixels_of(image: Image.Image, size: tuple[int, int], channels: int) -> Tensor:
    """A PIL image as float32 [C, H, W] in [-1, 1]; `size` and `channels` as of `ImageRows`."""
    height, width = size
    image = in_mode(image, "L" if channels == 1 else "RGB")
    if image.size != (width, height):
        wide = min(image.width, round(image.height * width / height))
        high = min(image.height, round(image.width * height / width))
        left, top = (image.width - wide) // 2, (image.height - high) // 2
        box = (left, top, left + max(1, wide), top + max(1, high))
        image = image.resize((width, height), Image.Resampling.BICUBIC, box=box)
    values = torch.from_numpy(np.array(image, dtype=np.float32)).view(height, width, channels)
    return values.permute(2, 0, 1).contiguous() / 127.5 - 1
