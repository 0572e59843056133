"""Read the importance of words and image patches, in one forward pass."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tqdm.auto import tqdm

from ..data.load import TaskData
from ..errors import AtomError
from .image import ImageScorer
from .results import ImageImportance, TextImportance
from .text import TextScorer


def read_texts(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str],
    labels: Sequence[str] | None = None,
    *,
    pairs: Sequence[str] | None = None,
    batch_size: int = 32,
) -> list[TextImportance]:
    """The importance of each word and piece of each text, or of each text and its pair, with what the model predicts.

    A word's importance is the mean over its tokens. A language model predicts no class. What stands behind the last token that
    the model can take is not read, and its words have nan.

    Raises:
        AtomError: a model without heads or that reads no texts, a tokenizer that is not a fast one, lists of other lengths.
    """
    reader = TextScorer(model, tokenizer)
    pairs = [None] * len(texts) if pairs is None else pairs
    _check_lengths("texts", texts, batch_size, pairs=pairs, labels=labels)
    return _read(reader, list(zip(texts, pairs, strict=True)), labels, batch_size, "text")


def read_images(
    model: Any,
    processor: Any,
    images: Sequence[Any],
    labels: Sequence[str] | None = None,
    *,
    names: Sequence[str] | None = None,
    batch_size: int = 32,
) -> list[ImageImportance]:
    """The importance of each patch of each image (PIL), on the patch grid, with what the model predicts.

    `names` are those of their files, to be shown.

    Raises:
        AtomError: a model without heads or that sees no images, lists of other lengths.
    """
    reader = ImageScorer(model, processor)
    _check_lengths("images", images, batch_size, labels=labels, names=names)
    found = _read(reader, [(image,) for image in images], labels, batch_size, "image")
    return [replace(one, name=name) for one, name in zip(found, names, strict=True)] if names is not None else found


def _read(reader: Any, samples: list[tuple], labels: Sequence[str] | None, batch_size: int, unit: str) -> list:
    readings = []
    few = len(samples) <= batch_size
    with tqdm(total=len(samples), desc="reading", unit=unit, leave=False, disable=few) as bar:
        for start in range(0, len(samples), batch_size):
            batch = [reader.encode(*sample) for sample in samples[start : start + batch_size]]
            for encoded, found in zip(batch, reader.forward(batch), strict=True):
                reading = reader.reading(encoded, found)
                readings.append(replace(reading, label=labels[len(readings)]) if labels is not None else reading)
            bar.update(len(batch))
    return readings


def _check_lengths(name: str, samples: Sequence, batch_size: int, **others: Sequence | None) -> None:
    if isinstance(samples, str):
        raise AtomError(f"{name} must be a list, got one string; give [text]")
    for other, values in others.items():
        if values is not None and len(values) != len(samples):
            raise AtomError(f"{other}: {len(values)} for {len(samples)} {name}; give one each")
    if batch_size < 1:
        raise AtomError(f"batch_size must be at least 1, got {batch_size}")


def read_samples(model: Any, processor: Any, data: TaskData, samples: int) -> dict[str, list]:
    """Readings of so many evaluation samples, drawn with a fixed seed, as `write_files` takes them."""
    rows = data.eval.shuffle(seed=0).select(range(min(samples, len(data.eval))))
    labels = [data.labels[i] for i in rows["label"]] if data.labels else None
    if data.is_image:
        return {"images": read_images(model, processor, list(rows["image"]), labels)}
    pairs = list(rows["text_pair"]) if "text_pair" in rows.column_names else None
    return {"texts": read_texts(model, processor, list(rows["text"]), labels, pairs=pairs)}
