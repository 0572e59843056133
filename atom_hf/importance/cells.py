"""Cells of an image's input, to mask where a model has no token for each patch: a Swin, a ConvNeXt, a ResNet."""

from typing import Any

import torch
from torch import Tensor

from ..errors import AtomError
from ..explainer.masking import blur
from ..modeling.tokens import patch_grid

CELLS = 7
"""Cells along each side: those of the last feature map of such models at 224 pixels."""

MOST_PATCHES = 2048
"""The most patches that are masked one by one: more than any model has a token for at its usual size."""


def cells_of(model: Any, pixels: Tensor) -> tuple[int, int]:
    """(rows, columns) of what can be masked of images [B, C, H, W]: the patches of a model that keeps them, else cells.

    Raises:
        AtomError: pixels that are no images.
    """
    if pixels.dim() != 4:
        raise AtomError(f"pixel_values {list(pixels.shape)} cannot be masked; give images [B, C, H, W]")
    grid = None if hasattr(model.config, "depths") else patch_grid(pixels, model.config)
    if (
        grid is not None and grid[0] * grid[1] > MOST_PATCHES
    ):  # patches of a convolutional model's own, such as MobileViT's
        grid = None
    return grid or (min(CELLS, pixels.shape[2]), min(CELLS, pixels.shape[3]))


class CellMasker:
    """Masks cells of images, as `explainer.masking.Masker` masks patches.

    Args:
        grid: (rows, columns). A pixel belongs to the cell that its top left corner lies in: sizes differ by a pixel at most.
        strategy: one of `explainer.masking.IMAGE_MASKING`.
    """

    def __init__(self, grid: tuple[int, int], strategy: str):
        self.grid, self.strategy = grid, strategy

    def __call__(self, inputs: dict[str, Tensor], keep: Tensor) -> dict[str, Tensor]:
        """The inputs, with the cells [B, rows * columns] alone that `keep` says."""
        pixels, (rows, columns) = inputs["pixel_values"], self.grid
        height, width = pixels.shape[2:]
        down = torch.arange(height, device=pixels.device) * rows // height
        across = torch.arange(width, device=pixels.device) * columns // width
        shown = keep.view(-1, rows, columns)[:, down][:, :, across]
        if self.strategy == "mean":
            ground = pixels.mean((2, 3), keepdim=True).expand_as(pixels)
        else:
            ground = blur(pixels, [height / rows / 2, width / columns / 2])
        return {**inputs, "pixel_values": torch.where(shown[:, None], pixels, ground)}
