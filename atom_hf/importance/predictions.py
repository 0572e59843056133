"""Predictions for rows of a file, with the importance of words or patches, as records that are made part by part."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ..data.rows import Rows
from .image import ImageScorer
from .results import ImageImportance, TextImportance
from .scoring import Scores, predict, probabilities
from .text import TextScorer
from .truth import Truth

PART = 16
"""How many batches are sorted by length, and written, together."""

DIGITS = 6
"""Of numbers in records: more than what differs between batches."""


def columns_of(rows: Rows, truth: Truth, importance: bool) -> list[str]:
    """The keys of the records, in their order."""
    sample = ["text", "text_pair"] if "text_pair" in rows.rows.column_names else ["text"]
    is_image = "image" in rows.rows.column_names
    found = ["row", *(["file"] if is_image else sample), "predicted", "confidence", "probabilities"]
    found += ["label"] if truth.exists else []
    return found + ((["grid", "box"] if is_image else ["words"]) if importance else [])


def make_records(
    scorer: TextScorer | ImageScorer, rows: Rows, truth: Truth, start: int, batch_size: int
) -> Iterator[list[dict[str, Any]]]:
    """The records of the rows from `start` on, in order, in lists.

    Lists begin at the same rows wherever one starts, so that an interrupted command ends with the very numbers of one that was
    not. Memory holds one list.
    """
    size = PART * batch_size
    with tqdm(total=len(rows), initial=start, desc="predicting", unit="row", leave=False) as bar:
        for first in range(start - start % size, len(rows), size):
            part = rows.part(first, min(first + size, len(rows)))
            records = _records(scorer, part, truth, first, batch_size, bar if first >= start else None)
            yield records[max(0, start - first) :]


def _records(scorer: Any, part: list[dict], truth: Truth, first: int, batch_size: int, bar: Any) -> list[dict]:
    is_image = isinstance(scorer, ImageScorer)
    encoded = [
        scorer.encode(row["image"]) if is_image else scorer.encode(row["text"], row.get("text_pair")) for row in part
    ]
    # Alike ones go together: a batch is as long as its longest text.
    order = (
        range(len(part)) if is_image else sorted(range(len(part)), key=lambda i: len(encoded[i].inputs["input_ids"]))
    )
    records: list[dict] = [{}] * len(part)
    for place in range(0, len(part), batch_size):
        batch = list(order[place : place + batch_size])
        for i, found in zip(batch, scorer.forward([encoded[i] for i in batch]), strict=True):
            records[i] = _record(scorer, part[i], encoded[i], found, truth, first + i)
        if bar is not None:
            bar.update(len(batch))
    return records


def _record(scorer: Any, row: dict, encoded: Any, found: Scores, truth: Truth, number: int) -> dict[str, Any]:
    config = scorer.model.config
    record = {"row": number, **{name: row[name] for name in ("text", "text_pair", "file") if name in row}}
    predicted, _ = predict(found.logits, config)
    chances = probabilities(found.logits, config)
    if found.logits is not None and chances is None:
        predicted = [_rounded(value) for value in found.logits]
        predicted = predicted[0] if len(predicted) == 1 else predicted
    record |= {"predicted": predicted, "confidence": None, "probabilities": None}
    if chances is not None:
        record["confidence"] = _rounded(chances.max())
        record["probabilities"] = {config.id2label[i]: _rounded(value) for i, value in enumerate(chances)}
    if truth.exists:
        record["label"] = truth.read(row["label"])
    return record | (_importance(scorer.result(encoded, found)) if scorer.importance else {})


def _importance(result: TextImportance | ImageImportance) -> dict[str, Any]:
    if isinstance(result, ImageImportance):
        grid = [[_rounded(value) for value in line] for line in np.asarray(result.importance)]
        return {"grid": grid, "box": None if result.box is None else list(map(float, result.box))}
    words = []
    for word in result.words:
        one = {"word": word.text, "importance": _rounded(word.importance), "start": word.start, "end": word.end}
        words.append(one if result.pair is None else {**one, "source": word.source})
    return {"words": words}


def _rounded(value: float) -> float | None:
    """None for nan, which JSON has not."""
    return None if math.isnan(value) else round(float(value), DIGITS)
