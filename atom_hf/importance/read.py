"""Read the importance of words and image patches, in one forward pass."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tqdm.auto import tqdm

from ..data.load import TaskData
from ..data.pictures import say_lost_colour
from ..errors import AtomError
from .image import ImageScorer
from .results import Readings
from .text import TextScorer
from .verify import verify


def read_texts(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str],
    labels: Sequence[str] | None = None,
    *,
    pairs: Sequence[str] | None = None,
    batch_size: int = 32,
    target: Any = None,
    method: str = "explainer",
    verified: bool = False,
) -> Readings:
    """The importance of each word and piece of each text, or of each text and its pair, with what the model predicts.

    A word's importance is the mean over its tokens. A language model predicts no class. Text beyond the model's maximum length
    is cut off, and its words have nan.

    Args:
        model: with heads; by masking, one without will do.
        tokenizer: a fast one.
        texts: the texts.
        labels: their classes, to show.
        pairs: second texts.
        batch_size: texts in a forward pass.
        target: what the importance is for, as `AtomMixin.atom_importance` takes it, the prediction by default. Of a token
            classification (word, label), words counted from 0.
        method: "explainer", at one forward pass, or "masking", at one for each token.
        verified: whether to mask the words with the largest importance, and see what happens (`verify.py`).

    Raises:
        AtomError: a model without heads or that takes no texts, a tokenizer that is not a fast one, lists of other lengths, a
            target that the method cannot explain.
    """
    scorer = TextScorer(model, tokenizer, method=method)
    pairs = [None] * len(texts) if pairs is None else pairs
    _check_lengths("texts", texts, batch_size, pairs=pairs, labels=labels)
    return _read(scorer, list(zip(texts, pairs, strict=True)), labels, batch_size, "text", target, verified)


def read_images(
    model: Any,
    processor: Any,
    images: Sequence[Any],
    labels: Sequence[str] | None = None,
    *,
    names: Sequence[str] | None = None,
    batch_size: int = 32,
    target: Any = None,
    method: str = "explainer",
    verified: bool = False,
) -> Readings:
    """The importance of each patch of each image (PIL), on the patch grid, with what the model predicts.

    `names`: file names to show. The other arguments are those of `read_texts`. By masking, a model that keeps no patches, such
    as a Swin or a ResNet, has cells of its input instead.

    Raises:
        AtomError: a model without heads or that takes no images, lists of other lengths, a target that the method cannot
            explain.
    """
    scorer = ImageScorer(model, processor, method=method)
    _check_lengths("images", images, batch_size, labels=labels, names=names)
    say_lost_colour(images, model.config)
    found = _read(scorer, [(image,) for image in images], labels, batch_size, "image", target, verified)
    if names is None:
        return found
    return Readings(replace(one, name=name) for one, name in zip(found, names, strict=True))


def _read(
    scorer: Any,
    samples: list[tuple],
    labels: Sequence[str] | None,
    batch_size: int,
    unit: str,
    target: Any,
    verified: bool,
) -> Readings:
    results = Readings()
    slow = verified or scorer.method == "masking"
    few = len(samples) <= (1 if slow else batch_size)
    batch_size = 1 if slow else batch_size  # a bar that moves
    with tqdm(total=len(samples), desc="scoring", unit=unit, leave=False, disable=few) as bar:
        for start in range(0, len(samples), batch_size):
            batch = [scorer.encode(*sample) for sample in samples[start : start + batch_size]]
            for encoded, found in zip(batch, scorer.forward(batch, target), strict=True):
                result = scorer.result(encoded, found)
                if verified:
                    result = replace(result, verified=verify(scorer, encoded, found, result, target))
                results.append(replace(result, label=labels[len(results)]) if labels is not None else result)
            bar.update(len(batch))
    return results


def _check_lengths(name: str, samples: Sequence, batch_size: int, **others: Sequence | None) -> None:
    if isinstance(samples, str):
        raise AtomError(f"{name} must be a list, got one string; give [text]")
    for other, values in others.items():
        if values is not None and len(values) != len(samples):
            raise AtomError(f"{other}: {len(values)} for {len(samples)} {name}; give one each")
    if batch_size < 1:
        raise AtomError(f"batch_size must be at least 1, got {batch_size}")


def read_samples(model: Any, processor: Any, data: TaskData, samples: int) -> dict[str, list]:
    """The results of `samples` evaluation samples, drawn with a fixed seed, as keyword arguments of `write_files`."""
    rows = data.eval.shuffle(seed=0).select(range(min(samples, len(data.eval))))
    return read_rows(model, processor, data, rows)


def read_rows(model: Any, processor: Any, data: TaskData, rows: Any, **how: Any) -> dict[str, list]:
    """The results of rows of the data, as arguments of `write_files`. `how`: target, method, verified (`read_texts`)."""
    labels = [data.labels[i] for i in rows["label"]] if data.labels else None
    if data.is_image:
        return {"images": read_images(model, processor, list(rows["image"]), labels, **how)}
    pairs = list(rows["text_pair"]) if "text_pair" in rows.column_names else None
    return {"texts": read_texts(model, processor, list(rows["text"]), labels, pairs=pairs, **how)}
