"""Convert labels of any type to class ids with names."""

from __future__ import annotations

import unicodedata

import datasets

from ..errors import AtomError
from ..utils.terminal import get_logger
from .columns import column_values

logger = get_logger(__name__)


def _labels(rows: datasets.Dataset, column: str, given: str) -> tuple[list[str], list[str]]:
    """The names of the classes in the order of their ids, and the name of each row's class."""
    feature, values = rows.features["label"], column_values(rows, "label")
    declared = isinstance(feature, datasets.ClassLabel)
    strings = [value if isinstance(value, str) else None for value in values]
    if missing := sum(
        value is None or (declared and value == -1) or (text is not None and not text.strip())
        for value, text in zip(values, strings, strict=True)
    ):
        raise AtomError(f"{given}: {missing} of {len(values)} rows have no label in {column!r}; fill or remove them")
    if declared:
        return feature.names, [feature.names[value] for value in values]
    kinds = sorted({type(value).__name__ for value in values})
    kind = feature.dtype if isinstance(feature, datasets.Value) else " and ".join(_KINDS.get(k, k) for k in kinds)
    if not set(kinds) <= {"str", "int", "bool"}:
        regression = " (regression is not supported)" if kind.startswith("float") else ""
        raise AtomError(f"--label_column {column!r} holds {kind}{regression}; give one of integers or strings")
    if len(kinds) > 1:
        logger.info("%s: labels in %r are %s: each is the class of its text", given, column, kind)
        values = list(map(str, values))
    if spaced := sum(text is not None and text != text.strip() for text in strings):
        logger.info("%s: blanks around %d labels in %r are left out", given, spaced, column)
        values = [value.strip() if isinstance(value, str) else value for value in values]
    return [str(value) for value in sorted(set(values))], [str(value) for value in values]


_KINDS = {
    "str": "strings",
    "int": "integers",
    "bool": "true and false",
    "float": "floats",
    "list": "lists",
    "dict": "objects",
}


def train_labels(rows: datasets.Dataset, column: str, dataset: str) -> tuple[datasets.Dataset, list[str]]:
    """The training rows with a ClassLabel, and the names of the classes. Raises `AtomError` for unusable labels."""
    names, labels = _labels(rows, column, f"--dataset {dataset!r}")
    found = set(labels)
    if len(found) == 1:
        raise AtomError(f"--label_column {column!r} has one class only, {labels[0]!r}; give data with two or more")
    if len(found) == len(labels) > 50:
        raise AtomError(
            f"--label_column {column!r} has as many classes as rows ({len(labels)}); give a column of classes"
        )
    if len(found) > max(10, len(labels) / 2):
        logger.warning(
            "--label_column %r has %d classes in %d rows: is it a column of classes?", column, len(found), len(labels)
        )
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(unicodedata.normalize("NFKC", name).casefold(), []).append(name)
    for same in (same for same in alike.values() if len(same) > 1):
        logger.warning(
            "--label_column %r: %s differ only in spelling, and count as different classes", column, ", ".join(same)
        )
    return _with_labels(rows, names, labels), names


def eval_labels(rows: datasets.Dataset, names: list[str], column: str, given: str) -> datasets.Dataset:
    """The evaluation rows with the ClassLabel of the training data. Raises `AtomError` for labels that are not in it."""
    _, labels = _labels(rows, column, given)
    if unknown := sorted(set(labels) - set(names)):
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        raise AtomError(
            f"{given}: labels {', '.join(unknown[:5])}{more} in {column!r} are not among those of the training data; "
            f"give data with {', '.join(names[:20])}{' ...' if len(names) > 20 else ''} only"
        )
    return _with_labels(rows, names, labels)


def _with_labels(rows: datasets.Dataset, names: list[str], labels: list[str]) -> datasets.Dataset:
    feature = datasets.ClassLabel(names=names)
    if rows.features["label"] == feature:
        return rows
    ids = {name: number for number, name in enumerate(names)}
    return rows.remove_columns("label").add_column("label", [ids[label] for label in labels], feature=feature)
