"""Random changes of samples that leave what they show: what a channel says all the same is what they have in common."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..utils.pictures import eight_bit

SHIFT = 0.1  # of an image's side, at most

DROPPED = 0.1  # of a text's words, on average


@dataclass(frozen=True)
class Augmentation:
    """`passes` random copies of each sample; the same sample always gives the same copies."""

    passes: int
    change: Callable[[dict[str, Any], np.random.Generator], dict[str, Any]]
    """Takes a row ("text" or "image") and a generator, and returns a changed row."""
    seed: int = 0

    def copies(self, rows: list[dict[str, Any]], first: int) -> Iterator[list[dict[str, Any]]]:
        """Changed rows, `passes` times; `first` is the number of the first row among all."""
        for number in range(self.passes):
            generators = (np.random.default_rng((self.seed, number, first + place)) for place in range(len(rows)))
            yield [self.change(row, generator) for row, generator in zip(rows, generators, strict=True)]


def change_sample(row: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Shift an image by up to a tenth of its side each way, its border repeated; leave out a tenth of a text's words."""
    if "image" in row:
        return {**row, "image": _shifted(row["image"], rng)}
    return {name: _thinned(value, rng) if isinstance(value, str) else value for name, value in row.items()}


def _shifted(image: Any, rng: np.random.Generator) -> Any:
    from PIL import Image

    pixels = np.asarray(eight_bit(image) if image.mode != "P" else image.convert("RGB"))
    for axis in (0, 1):
        side = pixels.shape[axis]
        most = max(1, round(SHIFT * side))
        places = np.arange(side) + rng.integers(-most, most + 1)
        pixels = np.take(pixels, places.clip(0, side - 1), axis)
    return Image.fromarray(pixels)


def _thinned(text: str, rng: np.random.Generator) -> str:
    words = text.split()
    kept = [word for word, drawn in zip(words, rng.random(len(words)), strict=True) if drawn >= DROPPED]
    return " ".join(kept or words)
