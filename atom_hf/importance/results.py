"""Results: a text or image with the importance of its parts, its atom, and what the model predicts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

import numpy as np
from PIL import Image

# By its name: what draws results stands above them, and imports them.
_NOTEBOOK = f"{__package__.rpartition('.')[0]}.visualization.notebook"


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
class Explained:
    """What an importance is of, in terms of a value that the model gives, such as a probability; nan for what is not known."""

    target: str
    """The name of the class or label, or the text."""
    is_predicted: bool
    """Whether the target is what the model itself predicts."""
    everything: float
    """The value of the sample as it is."""
    nothing: float = math.nan
    """The value with all of its tokens masked."""
    parts: float = math.nan
    """The sum of the changes that the importances stand for."""
    novelty: float = math.nan
    """In [0, 1]: how unlike the samples that the importance was fitted on."""


@dataclass(frozen=True)
class Verified:
    """What happened to the value of the target when the parts with the largest importance were masked."""

    masked: list[str]
    """Words; of an image, how many patches."""
    before: float
    after: float
    promised: float
    """What the importances say that it would be then; nan where they have no scale."""
    others: float
    """The mean value with as many other parts masked, drawn at random; nan where there are too few others."""


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
    explained: Explained | None = None
    """None where importance is not fitted to what the model predicts."""
    verified: Verified | None = None

    def _repr_html_(self) -> str:
        return _html([self])


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
    explained: Explained | None = None
    verified: Verified | None = None
    box: tuple[float, float, float, float] | None = None
    """(left, top, right, bottom) of what the patches cover, in pixels of the picture; None for all of it. It may reach beyond
    the picture, where the processor pads."""

    def _repr_html_(self) -> str:
        return _html([self])

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


class Readings(list[TextImportance | ImageImportance]):
    """A list of results that shows itself in a notebook."""

    def _repr_html_(self) -> str:
        return _html(self)


def _html(results: Sequence[TextImportance | ImageImportance]) -> str:
    return import_module(_NOTEBOOK).to_html(results)
