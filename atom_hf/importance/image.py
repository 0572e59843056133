"""Importance of the patches of an image."""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.encoding import image_inputs
from ..errors import AtomError
from ..modeling.mixin import AtomMixin
from ..modeling.tokens import patch_grid
from ..modeling.unwrap import inner_model
from ..utils.pictures import eight_bit
from .cells import cells_of
from .results import ImageImportance
from .scoring import Scores, check_model, forward_logits, forward_scores, predict, scores_by_masking
from .visible_region import seen_box


@dataclass(frozen=True)
class EncodedImage:
    """An image as the model's input."""

    image: Any
    pixels: Tensor
    """[C, H, W]."""


class ImageScorer:
    """Scores images in the three steps of `TextScorer`."""

    def __init__(self, model: Any, processor: Any, importance: bool = True, method: str = "explainer"):
        check_model(model, "pixel_values", "images", importance, method)
        self.importance, self.method = importance, method
        self.reads_heads = importance and isinstance(inner_model(model), AtomMixin)
        self.model, self.processor = model, processor
        self._box = functools.lru_cache(maxsize=256)(lambda size: seen_box(processor, size, model.config))

    def encode(self, image: Any) -> EncodedImage:
        """The pixels of one picture."""
        image = eight_bit(image)  # as the pages show it too
        pixels = image_inputs([image], self.processor, self.model.config)
        if pixels.ndim != 4 or len(pixels) != 1:
            raise AtomError(
                f"the image processor makes pixel_values {list(pixels.shape)} of one image; "
                "one that makes [1, C, H, W] is needed"
            )
        return EncodedImage(image, pixels[0])

    def forward(self, batch: list[EncodedImage], target: Any = None) -> list[Scores]:
        """One forward pass for each run of pictures of the same shape, and those of masked copies if asked for."""
        found: list[Scores] = []
        while len(found) < len(batch):
            rest = batch[len(found) :]
            shape = rest[0].pixels.shape
            count = next((i for i, one in enumerate(rest) if one.pixels.shape != shape), len(rest))
            found += self._scores({"pixel_values": torch.stack([one.pixels for one in rest[:count]])}, target)
        return found

    def _scores(self, inputs: dict[str, Tensor], target: Any) -> list[Scores]:
        if self.reads_heads and self.method == "explainer":
            return forward_scores(self.model, inputs, target)
        found = forward_scores(self.model, inputs) if self.reads_heads else forward_logits(self.model, inputs)
        return scores_by_masking(self.model, self.processor, inputs, target, found) if self.importance else found

    def result(self, encoded: EncodedImage, found: Scores) -> ImageImportance:
        """The scores on the patch grid, with the place of the grid in the picture."""
        rows, columns, tall, wide = _grid(encoded.pixels, len(found.importance), self.model.config)
        if self.method == "masking" and (rows, columns) != (cells := cells_of(self.model, encoded.pixels[None])):
            (rows, columns), tall, wide = cells, 1.0, 1.0
        values = found.importance[len(found.importance) - rows * columns :].reshape(rows, columns)
        box = self._box(encoded.image.size)
        if box is not None:
            left, top, right, bottom = box
            box = (left, top, left + (right - left) * wide, top + (bottom - top) * tall)
            box = None if box == (0, 0, *encoded.image.size) else box
        predicted, confidence = predict(found.logits, self.model.config)
        return ImageImportance(
            encoded.image,
            values,
            predicted=predicted,
            confidence=confidence,
            atom=found.atom,
            explained=found.explained,
            box=box,
        )


def _grid(pixels: Tensor, count: int, model_config: Any) -> tuple[int, int, float, float]:
    """(rows, columns) of an image's tokens, and the shares of its height and width that they cover.

    Args:
        pixels: [C, H, W].
        count: how many tokens there are, with those that stand before the patches.
    """
    grid = patch_grid(pixels[None], model_config)
    high, wide = pixels.shape[-2:]
    if grid is not None and grid[0] * grid[1] <= count:
        patch = getattr(model_config, "vision_config", model_config).patch_size
        height, width = (patch, patch) if isinstance(patch, int) else patch
        # What is left over at the bottom and at the right is in no patch.
        return *grid, grid[0] * height / high, grid[1] * width / wide
    # A hierarchical model or feature map: as many cells as tokens, in the shape of the image.
    shapes = [(rows, count // rows) for rows in range(1, count + 1) if count % rows == 0]
    rows, columns = min(shapes, key=lambda shape: abs(np.log(shape[0] / shape[1] * wide / high)))
    return rows, columns, 1.0, 1.0
