"""Results: a text or image with the importance of its parts, its atom, and what the model predicts."""

from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class WordImportance:
    """A word or a word piece: `text == source[start:end]`, as it stands in its source."""

    text: str
    start: int
    end: int
    importance: float
    """In [-1, 1]; nan where it is not a token of the atom, or was cut off."""
    source: int = 0
    """0 for the text, 1 for its pair."""


@dataclass(frozen=True)
class SampleAtom:
    """The atom of one sample: one row of `atoms.energy.Atoms`."""

    positive: float
    negative: float
    center: np.ndarray
    """[h], float32."""
    radius: float

    @property
    def net_charge(self) -> float:
        """`positive - negative`."""
        return self.positive - self.negative


@dataclass(frozen=True)
class TextImportance:
    """A text, or a text and its pair, with the importance of their words.

    Words stand in the order of the text, the pair's after the text's. White space stands between them: the text as it was
    written is what their offsets leave of it.
    """

    text: str
    words: list[WordImportance]
    pieces: list[WordImportance] = ()
    """The tokenizer's pieces of the words; those that share a character are one."""
    pair: str | None = None
    label: str | None = None
    predicted: str | None = None
    confidence: float | None = None
    atom: SampleAtom | None = None
    """None for a text without tokens."""
    truncated: bool = False
    """Whether the text was cut off at the model's maximum length: the words beyond have nan."""


@dataclass(frozen=True)
class ImageImportance:
    """A picture (any size and mode) with the importance of its patches."""

    image: Image.Image
    importance: np.ndarray
    """[rows, columns] on the patch grid, in [-1, 1]; nan for none."""
    label: str | None = None
    predicted: str | None = None
    confidence: float | None = None
    atom: SampleAtom | None = None
    name: str | None = None
    """The name of its file."""
    box: tuple[float, float, float, float] | None = None
    """(left, top, right, bottom) of what the patches cover, in pixels of the picture; None for all of it. It may reach beyond
    the picture, where the processor pads."""

    def on_pixels(self) -> np.ndarray:
        """The importance of each pixel of the picture, float32 [height, width]: that of the patch its centre lies in, nan
        where no patch covers it."""
        width, height = self.image.size
        left, top, right, bottom = self.box or (0, 0, width, height)
        rows, columns = self.importance.shape
        down = np.floor((np.arange(height) + 0.5 - top) * rows / (bottom - top)).astype(int)
        across = np.floor((np.arange(width) + 0.5 - left) * columns / (right - left)).astype(int)
        inside = np.ix_((down >= 0) & (down < rows), (across >= 0) & (across < columns))
        pixels = np.full((height, width), np.nan, np.float32)
        pixels[inside] = self.importance[np.ix_(down[inside[0].ravel()], across[inside[1].ravel()])]
        return pixels
