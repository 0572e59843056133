"""The part of a picture that a model sees: the place of the image processor's pixels in the original."""

from typing import Any

import numpy as np
from PIL import Image

from ..data.encoding import image_inputs

# Of a ramp, towards the other side: rows then differ after resizing too, and what is rounded averages out. No simple fraction,
# so that few rows are rounded alike.
TILT = 0.1618

Box = tuple[float, float, float, float]


def seen_box(processor: Any, size: tuple[int, int], model_config: Any) -> Box | None:
    """(left, top, right, bottom) of what the processor's pixels cover, in pixels of a picture of this size.

    Measured, not read from the settings: with the same settings, processors resize before they crop by factors of their own
    (ConvNeXT's `crop_pct`, LeViT's 256/224). A black, a white and two ramped pictures go through the processor, and what
    comes out says where each column and row was. Ramps are dithered and tilted, since a picture has no more than 256 levels.
    Right to a thousandth of the picture's longer side.

    Args:
        processor: an image processor of Transformers.
        size: (width, height), as PIL gives it.
        model_config: says how many channels the model takes.

    Returns:
        None where that cannot be measured: a processor that does more than resize, crop, pad and normalise.
    """
    width, height = size
    level = np.zeros((height, width), np.uint8)
    pictures = [level, level + 255, _ramp(height, width), _ramp(width, height).T]
    pixels = image_inputs([Image.fromarray(picture) for picture in pictures], processor, model_config)
    if pixels.ndim != 4:
        return None
    black, white, across, down = np.asarray(pixels, np.float64).mean(1)
    contrast = white - black  # none where the processor padded
    real = np.abs(contrast) > np.abs(contrast).max() / 2
    if not real.any():
        return None
    contrast = np.where(real, contrast, np.nan)
    across, down = (across - black) / contrast, (down - black) / contrast
    places = (((1 - TILT) * one - TILT * other) / (1 - 2 * TILT) for one, other in ((across, down), (down, across)))
    horizontal, vertical = _ends(next(places) * width, width), _ends(next(places).T * height, height)
    if horizontal is None or vertical is None:
        return None
    return horizontal[0], vertical[0], horizontal[1], vertical[1]


def _ramp(rows: int, columns: int) -> np.ndarray:
    """uint8 [rows, columns]: 255 times the place of each column in [0, 1], and a little of its row's."""
    exact = np.add.outer(TILT * (np.arange(rows) + 0.5) / rows, (1 - TILT) * (np.arange(columns) + 0.5) / columns)
    # Multiples of the golden ratio are spread evenly, and neighbours differ.
    dither = np.add.outer(np.arange(rows) * 0.6180339887, np.arange(columns) * 0.7548776662) % 1
    return np.floor(255 * exact + dither).clip(0, 255).astype(np.uint8)


def _ends(places: np.ndarray, length: int) -> tuple[float, float] | None:
    """Where the first column of `places` [rows, columns] begins and the last one ends, by a line through their means."""
    real = np.flatnonzero(~np.isnan(places).all(0))
    if length == 1 or len(real) < 2:
        return 0.0, float(length)
    # Towards the border resizing has fewer neighbours to mix, and bends the ramp.
    margin = (len(real) - 2) // 4
    columns = real[margin : len(real) - margin]
    means = np.nanmean(places[:, columns], 0)
    slope, start = np.polyfit(columns + 0.5, means, 1)
    if slope <= 0 or np.abs(slope * (columns + 0.5) + start - means).max() > 1 + length / 20:
        return None
    # An end so near to a border, or to a whole pixel, is there: the ramps are no finer.
    ends = []
    for end in (start, start + slope * places.shape[1]):
        border = min(0.0, float(length), key=lambda border: abs(end - border))
        is_whole = abs(end - round(end)) < 0.1
        near = abs(end - border) < 0.1 + 0.003 * length
        ends.append(border if near else float(round(end)) if is_whole else round(float(end), 2))
    return ends[0], ends[1]
