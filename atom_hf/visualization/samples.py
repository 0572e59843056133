"""All samples as one table: the cells of each, as they are shown and as they are sorted."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..importance.results import ImageImportance, TextImportance
from .colors import CLASSES
from .values import outcome, percent, signed, tokens

Result = ImageImportance | TextImportance

SHAPES = 6  # with 7 colours: 42 marks


@dataclass(frozen=True)
class Column:
    """`cells` are (as shown, by what it is sorted; "" for unknown), one per sample."""

    title: str
    cells: list[tuple[str, str]]
    numeric: bool = False


def sample_columns(results: list[Result]) -> list[Column]:
    """The columns for which any sample has a value; the first names the sample."""
    predicted, true = ([outcome(result)[i] for result in results] for i in (1, 2))
    columns = [
        Column("sample", _words([sample_name(result, i + 1) for i, result in enumerate(results)])),
        Column("true", _words(true)),
        Column("predicted", _words(predicted)),
        Column("confidence", _numbers([r.confidence for r in results], percent), True),
        Column("net charge", _numbers([r.atom and r.atom.net_charge for r in results], signed), True),
        Column("radius", _numbers([r.atom and r.atom.radius for r in results], "{:#.3g}".format), True),
        Column("mean |importance|", _numbers([_mean(np.abs(tokens(r))) for r in results], "{:.2f}".format), True),
        Column("tokens", _numbers([len(tokens(r)) for r in results], "{:,.0f}".format), True),
    ]
    return [column for column in columns if any(key for _, key in column.cells)]


def class_marks(results: list[Result]) -> dict[str, Any]:
    """A mark (shape, colour) for the class of each sample: its label, or its prediction where no sample has a label.

    The most frequent classes get one of their own. "of": the mark of each sample; "names": (class, mark, how many);
    "others": (their mark, how many); "by": what the class is.
    """
    by = "true class" if any(result.label for result in results) else "prediction"
    names = [str((result.label if by == "true class" else result.predicted) or "") for result in results]
    counts = {name: names.count(name) for name in sorted(set(names))}
    most = sorted(counts, key=lambda name: -counts[name])[: SHAPES * len(CLASSES) - 1]
    own = [name for name in counts if name in most]
    style = {name: (i % SHAPES, i % len(CLASSES)) for i, name in enumerate(own)}
    rest = (len(own) % SHAPES, len(own) % len(CLASSES))
    return {
        "by": by,
        "of": [style.get(name, rest) for name in names],
        "names": [(name or "unknown", style[name], counts[name]) for name in own],
        "others": (rest, sum(counts.values()) - sum(counts[name] for name in own)),
    }


def sample_name(result: Result, number: int) -> str:
    """The name of a sample: the beginning of its text, its file name, or its number."""
    if isinstance(result, ImageImportance):
        return result.name or f"picture {number}"
    text = " ".join(" / ".join(filter(None, (result.text, result.pair))).split())
    return (text[:60].rstrip() + "…" if len(text) > 60 else text) or f"text {number}"


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _words(values: list[str]) -> list[tuple[str, str]]:
    return [(value, value) for value in values]


def _numbers(values: list[float | None], show: Callable[[float], str]) -> list[tuple[str, str]]:
    known = (None if value is None or not np.isfinite(value) else float(value) for value in values)
    return [("", "") if value is None else (show(value), f"{value:.9g}") for value in known]
