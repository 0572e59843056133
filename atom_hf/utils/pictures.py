"""Convert pictures of any mode to 8 bits a channel: Pillow's own conversion clips deeper ones to white or black."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..errors import AtomError

if TYPE_CHECKING:
    from PIL.Image import Image

SIXTEEN_BITS = 65535


def is_deep(image: Image) -> bool:
    """Whether a picture holds more than 8 bits a channel: integers of 16 or 32 bits, or floats."""
    return image.mode.startswith(("I", "F"))


def value_scale(image: Image) -> tuple[float, float]:
    """(the largest value of a deep picture, the value that white has in it).

    A mode of 16 bits says itself what white is. Integers of 32 bits and floats do not: theirs is the least of 1 (floats), 255
    and 65535 that no value exceeds. Raises `AtomError` for values that are in none of these ranges.
    """
    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    if image.mode.startswith("I;16"):
        return high, SIXTEEN_BITS
    ranges = (1, 255, SIXTEEN_BITS) if image.mode == "F" else (255, SIXTEEN_BITS)
    white = next((top for top in ranges if high <= top), None)  # none for nan and infinity
    if white is None or not low >= 0:
        raise AtomError(
            f"the picture's values run from {low:g} to {high:g}; give a picture of values from 0 to "
            + " or 0 to ".join(map(str, ranges))
        )
    return high, white


def eight_bit(image: Image) -> Image:
    """The picture, scaled to 8 bits if it is deeper. Raises `AtomError` for values that cannot be scaled."""
    from PIL import Image as images

    if not is_deep(image):
        return image
    _, white = value_scale(image)
    return images.fromarray(np.rint(np.asarray(image, dtype=np.float64) * (255 / white)).astype(np.uint8))


def in_mode(image: Image, mode: str) -> Image:
    """The picture in mode "L" or "RGB". Raises `AtomError` for one that cannot be converted."""
    try:
        return eight_bit(image).convert(mode)
    except ValueError as error:
        if isinstance(error, AtomError):
            raise
        raise AtomError(f"the picture's mode {image.mode} cannot be converted to {mode}; save it as RGB") from error


def has_colour(image: Image) -> bool:
    """Whether any pixel differs from grey by more than rounding."""
    if image.mode in ("1", "L", "LA") or is_deep(image):
        return False
    pixels = np.asarray(in_mode(image, "RGB")).astype(np.int16)
    return bool((pixels.max(2) - pixels.min(2) > 8).any())


def has_transparency(image: Image) -> bool:
    """Whether any pixel is not opaque."""
    if image.mode not in ("RGBA", "LA", "PA") and "transparency" not in image.info:
        return False
    return image.convert("RGBA").getchannel("A").getextrema()[0] < 255
