"""Convert labels of any type to class ids with names."""

from __future__ import annotations

import datasets

from ..errors import AtomError
from .columns import column_values, is_text


def _labels(rows: datasets.Dataset, column: str, given: str) -> tuple[list[str], list[str]]:
    """The names of the classes in the order of their ids, and the name of each row's class."""
    feature, values = rows.features["label"], column_values(rows, "label")
    declared = isinstance(feature, datasets.ClassLabel)
    if missing := sum(value is None or (declared and value == -1) for value in values):
        raise AtomError(f"{given}: {missing} of {len(values)} rows have no label in {column!r}; fill or remove them")
    if declared:
        return feature.names, [feature.names[value] for value in values]
    kind = feature.dtype if isinstance(feature, datasets.Value) else "lists"
    if not (is_text(feature) or kind == "bool" or kind.lstrip("u").startswith("int")):
        regression = " (regression is not supported)" if kind.startswith("float") else ""
        raise AtomError(f"--label_column {column!r} holds {kind}{regression}; give one of integers or strings")
    return [str(value) for value in sorted(set(values))], [str(value) for value in values]


def train_labels(rows: datasets.Dataset, column: str, dataset: str) -> tuple[datasets.Dataset, list[str]]:
    """The training rows with a ClassLabel, and the names of the classes. Raises `AtomError` for unusable labels."""
    names, labels = _labels(rows, column, f"--dataset {dataset!r}")
    found = set(labels)
    if len(found) == 1:
        raise AtomError(f"--label_column {column!r} has one class only, {labels[0]!r}; give data with two or more")
    if len(found) == len(labels) > 50:
        raise AtomError(f"--label_column {column!r} has as many classes as rows ({len(labels)}); give one of classes")
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
