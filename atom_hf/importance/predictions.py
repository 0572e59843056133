"""Predictions for rows of a file, with the importance of words or patches, as records that are made part by part."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ..data.rows import Rows
from .image import ImageScorer
from .results import ImageImportance, TextImportance
from .scoring import Scores, prediction, probabilities
from .text import TextScorer
from .truth import Truth
from .verify import verify

PART = 16
"""How many batches are sorted by length, and written, together."""

DIGITS = 6
"""Of numbers in records: more than what differs between batches."""


@dataclass(frozen=True)
class Wanted:
    """What is read of each row beside the prediction."""

    importance: bool = True
    target: Any = None
    """What it is for, as `AtomMixin.atom_importance` takes it."""
    verified: bool = False
    """Whether the parts with the largest importance are masked, to see what happens (`verify.py`)."""


def columns_of(rows: Rows, truth: Truth, wanted: Wanted) -> list[str]:
    """The keys of the records, in their order."""
    sample = ["text", "text_pair"] if "text_pair" in rows.rows.column_names else ["text"]
    is_image = "image" in rows.rows.column_names
    found = ["row", *(["file"] if is_image else sample), "predicted", "confidence", "probabilities"]
    found += ["label"] if truth.exists else []
    if wanted.importance:
        found += ["target", *(["grid", "box"] if is_image else ["words"])]
    return found + (["verified"] if wanted.verified else [])


def make_records(
    scorer: TextScorer | ImageScorer, rows: Rows, truth: Truth, wanted: Wanted, start: int, batch_size: int
) -> Iterator[list[dict[str, Any]]]:
    """The records of the rows from `start` on, in order, in lists.

    Lists begin at the same rows wherever one starts, so that an interrupted command ends with the very numbers of one that was
    not. Memory holds one list.
    """
    size = PART * batch_size
    with tqdm(total=len(rows), initial=start, desc="predicting", unit="row", leave=False) as bar:
        for first in range(start - start % size, len(rows), size):
            part = rows.part(first, min(first + size, len(rows)))
            records = _records(scorer, part, truth, wanted, first, batch_size, bar if first >= start else None)
            yield records[max(0, start - first) :]


def _records(
    scorer: Any, part: list[dict], truth: Truth, wanted: Wanted, first: int, batch_size: int, bar: Any
) -> list[dict]:
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
        for i, found in zip(batch, scorer.forward([encoded[i] for i in batch], wanted.target), strict=True):
            records[i] = _record(part[i], found, truth, first + i, scorer.model.config)
            if wanted.importance:
                records[i] |= _importance(scorer, encoded[i], found, wanted)
        if bar is not None:
            bar.update(len(batch))
    return records


def _record(row: dict, found: Scores, truth: Truth, number: int, config: Any) -> dict[str, Any]:
    record = {"row": number, **{name: row[name] for name in ("text", "text_pair", "file") if name in row}}
    predicted, confidence = prediction(found, config)
    chances = probabilities(found.logits, config)
    if found.logits is not None and chances is None:
        predicted = [_rounded(value) for value in found.logits]
        predicted = predicted[0] if len(predicted) == 1 else predicted
    confidence = None if confidence is None else _rounded(confidence)
    record |= {"predicted": predicted, "confidence": confidence, "probabilities": None}
    if chances is not None:
        record["probabilities"] = {config.id2label[i]: _rounded(value) for i, value in enumerate(chances)}
    if truth.exists:
        record["label"] = truth.read(row["label"])
    return record


def _importance(scorer: Any, encoded: Any, found: Scores, wanted: Wanted) -> dict[str, Any]:
    result = scorer.result(encoded, found)
    record: dict[str, Any] = {"target": None if found.explained is None else found.explained.target}
    if isinstance(result, ImageImportance):
        record["grid"] = [[_rounded(value) for value in line] for line in np.asarray(result.importance)]
        record["box"] = None if result.box is None else list(map(float, result.box))
    else:
        record["words"] = _words(result)
    if wanted.verified:
        seen = verify(scorer, encoded, found, result, wanted.target)
        numbers = (
            {name: _rounded(getattr(seen, name)) for name in ("before", "after", "promised", "others")} if seen else {}
        )
        record["verified"] = {"masked": seen.masked, **numbers} if seen else None
    return record


def _words(result: TextImportance) -> list[dict[str, Any]]:
    words = []
    for word in result.words:
        one = {"word": word.text, "importance": _rounded(word.importance), "start": word.start, "end": word.end}
        words.append(one if result.pair is None else {**one, "source": word.source})
    return words


def _rounded(value: float) -> float | None:
    """None for nan, which JSON has not."""
    return None if math.isnan(value) else round(float(value), DIGITS)
