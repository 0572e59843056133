"""Any data set that `--dataset` may name, as the rows to train on and the rows to evaluate on.

A name is a built-in data set, else a path that exists, else an id on the Hugging Face Hub. Whatever it is, what comes
out has the same few columns, and whatever is wrong with it is said before anything is trained.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import datasets
import numpy as np

from .builtin import BUILT_IN_DATASETS
from .errors import AtomError
from .sources import EVAL_SPLITS, load_source, short_name

__all__ = ["BUILT_IN_DATASETS", "TASKS", "TaskData", "load_data"]

logger = logging.getLogger(__name__)

TASKS = ("text-classification", "image-classification", "causal-lm")

LABEL_NAMES = ("label", "labels", "class", "class_id", "target", "category", "y", "fine_label")
TEXT_NAMES = ("text", "sentence", "verse", "verse_text", "line", "content", "review", "document")
TEXT_PAIRS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("text1", "text2"),
)
NEVER_TEXT = ("idx", "id", "index", "source")


@dataclass(frozen=True)
class TaskData:
    """A data set ready for its task: the same columns in both parts, and no others.

    The columns are "text" and perhaps "text_pair", or "image", and for classification "label" (a ClassLabel).
    `labels` are the names of the classes in the order of their ids, None for causal-lm. `splits` are the names of the splits
    that the rows are of, the second None where rows of the first were held out.
    """

    name: str
    task: str
    train: datasets.Dataset
    eval: datasets.Dataset
    labels: list[str] | None
    splits: tuple[str | None, str | None] = (None, None)

    @property
    def is_image(self) -> bool:
        """Whether images are classified; else the rows are texts."""
        return self.task == "image-classification"


def load_data(
    dataset: str,
    *,
    task: str | None = None,
    dataset_config: str | None = None,
    eval_dataset: str | None = None,
    text_column: str | None = None,
    text_pair_column: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    train_split: str | None = None,
    eval_split: str | None = None,
    max_train_samples: int | None = None,
    max_eval_samples: int | None = None,
    eval_fraction: float = 0.2,
    hold_out: bool = False,
    sample_seed: int = 0,
) -> TaskData:
    """Load a data set, find its columns and its classes, and draw the rows that are asked for.

    Args:
        dataset: the name of a built-in data set (`BUILT_IN_DATASETS`); or a path: a csv, tsv, jsonl, json, parquet, txt or npz
            file, a folder of such files, or a folder with one sub-folder of images per class; or an id on the Hub.
        task: one of `TASKS`; by default the one that the columns suggest.
        dataset_config: which configuration of a data set on the Hub.
        eval_dataset: another data set whose rows are the evaluation data.
        text_column, text_pair_column, image_column, label_column: names of columns; by default they are found.
        train_split: by default "train", or the only split.
        eval_split: by default a validation split, else a test split, else `eval_fraction` of the training rows. Several
            are joined by "+", as in "validation+test".
        max_train_samples, max_eval_samples: draw so many rows, every class in proportion.
        eval_fraction: the part of the training rows that is held out where there is no evaluation split.
        hold_out: hold it out even where there is one: settings are chosen on such rows, not on those that judge them.
        sample_seed: the same seed draws the same rows.

    Returns:
        The data set's name, its task, the rows of both parts, and the names of the classes.

    Raises:
        AtomError: an argument is wrong, or the data set cannot be had or does not fit the task.
    """
    if task is not None and task not in TASKS:
        raise AtomError(f"--task {task!r} is unknown; give one of {', '.join(TASKS)}")
    if not 0 < eval_fraction < 1:
        raise AtomError(f"--eval_fraction is {eval_fraction}; give a number between 0 and 1, such as 0.2")
    for flag, count in (("--max_train_samples", max_train_samples), ("--max_eval_samples", max_eval_samples)):
        if count is not None and count < 1:
            raise AtomError(f"{flag} is {count}; give 1 or more, or leave it out to use every row")

    if hold_out and (eval_dataset or eval_split):
        raise AtomError("--hold_out evaluates on training rows; leave out --eval_dataset and --eval_split")

    splits = load_source(dataset, dataset_config, "--dataset")
    train_name = _main_split(splits, train_split, "--train_split", dataset)
    train = _named_split(splits, train_name, "--train_split", dataset)
    given = {"text": text_column, "text_pair": text_pair_column, "image": image_column, "label": label_column}
    task, columns = _find_columns(train, task, given, dataset)

    if eval_dataset is not None:
        others = load_source(eval_dataset, None, "--eval_dataset")
        eval_name = _main_split(others, eval_split, "--eval_split", eval_dataset)
        evaluation = _named_split(others, eval_name, "--eval_split", eval_dataset)
        eval_flag = f"--eval_dataset {eval_dataset!r}"
    else:
        eval_name = None if hold_out else eval_split or _first_eval_split(splits, train_name, columns)
        evaluation = None if eval_name is None else _named_split(splits, eval_name, "--eval_split", dataset)
        eval_flag = f"--eval_split {eval_name!r}"

    train = _select(train, columns, f"--dataset {dataset!r}")
    if evaluation is not None:
        evaluation = _select(evaluation, columns, eval_flag)
    names = None
    if task != "causal-lm":
        train, names = _train_labels(train, columns["label"], dataset)
        if evaluation is not None:
            evaluation = _eval_labels(evaluation, names, columns["label"], eval_flag)
    if evaluation is None:
        train, evaluation = _hold_out(train, eval_fraction, sample_seed, dataset)
    train = _draw(train, max_train_samples, sample_seed, "--max_train_samples")
    evaluation = _draw(evaluation, max_eval_samples, sample_seed, "--max_eval_samples")
    logger.info("%s: %s of %s, %d training and %d evaluation rows", dataset, task, columns, len(train), len(evaluation))
    return TaskData(short_name(dataset, dataset_config), task, train, evaluation, names, (train_name, eval_name))


def stratified_rows(classes: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Draw `count` of the rows whose class ids are given: in ascending order, each class in proportion.

    Every class keeps at least one row where `count` allows it. The same seed draws the same rows.
    """
    rng = np.random.default_rng(seed)
    ids, sizes = np.unique(classes, return_counts=True)
    share = sizes * count / len(classes)
    quota = np.floor(share).astype(int)
    if count >= len(ids):
        quota = np.maximum(quota, 1)
    while quota.sum() > count:
        quota[np.argmax(np.where(quota > 1, quota - share, -np.inf))] -= 1
    while quota.sum() < count:
        quota[np.argmax(np.where(quota < sizes, share - quota, -np.inf))] += 1
    drawn = [rng.permutation(np.flatnonzero(classes == i))[:n] for i, n in zip(ids, quota, strict=True)]
    return np.sort(np.concatenate(drawn))


# Which rows


def _named_split(splits: dict[str, datasets.Dataset], name: str, flag: str, dataset: str) -> datasets.Dataset:
    parts = name.split("+")
    if not set(parts) <= set(splits):
        raise AtomError(f"{flag} {name!r}: {dataset!r} has no such split; give one of {', '.join(splits)}")
    return datasets.concatenate_datasets([splits[part] for part in parts]) if len(parts) > 1 else splits[name]


def _main_split(splits: dict[str, datasets.Dataset], wanted: str | None, flag: str, dataset: str) -> str:
    name = wanted or ("train" if "train" in splits else next(iter(splits)))
    if wanted is None and "train" not in splits and len(splits) > 1:
        raise AtomError(f"{flag}: {dataset!r} has no split called train; give one of {', '.join(splits)}")
    if not len(_named_split(splits, name, flag, dataset)):
        raise AtomError(f"{flag} {name!r}: this split of {dataset!r} is empty; give one that has rows")
    return name


def _first_eval_split(splits: dict[str, datasets.Dataset], train_name: str, columns: dict[str, str]) -> str | None:
    """The first validation or test split with rows whose labels are known: a benchmark's test labels are often -1."""
    for start in EVAL_SPLITS:
        for name, rows in splits.items():
            if name in (train_name, *train_name.split("+")) or not name.startswith(start) or not len(rows):
                continue
            label = columns.get("label")
            if label is None or (label in rows.column_names and not set(_column(rows, label)) <= {-1, None}):
                return name
            logger.info("split %s has no labels: it is not used", name)
    return None


def _hold_out(rows: datasets.Dataset, fraction: float, seed: int, dataset: str) -> tuple[datasets.Dataset, ...]:
    count = len(rows) - max(1, round(len(rows) * fraction))
    if count < 1:
        raise AtomError(f"--eval_dataset is missing and {dataset!r} has too few rows ({len(rows)}) to hold any out")
    kept = stratified_rows(_classes(rows), count, seed)
    logger.info("%s has no evaluation split: %d of %d rows are held out", dataset, len(rows) - count, len(rows))
    return rows.select(kept), rows.select(np.setdiff1d(np.arange(len(rows)), kept))


def _draw(rows: datasets.Dataset, count: int | None, seed: int, flag: str) -> datasets.Dataset:
    if count is None:
        return rows
    if count >= len(rows):
        logger.info("%s is %d and there are %d rows: all are used", flag, count, len(rows))
        return rows
    return rows.select(stratified_rows(_classes(rows), count, seed))


def _classes(rows: datasets.Dataset) -> np.ndarray:
    return np.array(_column(rows, "label")) if "label" in rows.column_names else np.zeros(len(rows), int)


# Which columns


def _find_columns(
    rows: datasets.Dataset, task: str | None, given: dict[str, str | None], dataset: str
) -> tuple[str, dict[str, str]]:
    """The task, and which column holds the "text", "text_pair", "image" and "label" that it needs."""
    features = rows.features
    present = f"the columns of {dataset!r} are {', '.join(features)}"
    chosen = {role: column for role, column in given.items() if column is not None}
    for role, column in chosen.items():
        if column not in features:
            raise AtomError(f"--{role}_column {column!r} does not exist; {present}")
        if list(chosen.values()).count(column) > 1:
            raise AtomError(f"--{role}_column {column!r} is given for two purposes; give another: {present}")

    free = {column.lower(): column for column in features if column not in chosen.values()}
    label = chosen.get("label") or next((free[name] for name in LABEL_NAMES if name in free), None)
    image = chosen.get("image") or next((column for column in features if _is_image(features[column])), None)
    if "text" not in chosen and task in (None, "text-classification"):
        first, second = next((pair for pair in TEXT_PAIRS if {*pair} <= {*free}), (None, None))
        if first and "text_pair" not in chosen:
            chosen |= {"text": free[first], "text_pair": free[second]}
    text = chosen.get("text") or _find_text(rows, [c for c in free.values() if c != label])

    if task is None:
        by_image = image is not None and given["text"] is None
        task = "image-classification" if by_image else "causal-lm" if label is None else "text-classification"
        if not by_image and text is None:
            raise AtomError(f"--dataset {dataset!r}: no column of images or text is found; {present}")
    if task == "image-classification":
        if image is None:
            raise AtomError(f"--task {task} needs a column of images (--image_column), else give another; {present}")
        if not _is_image(features[image]):
            raise AtomError(f"--image_column {image!r} does not hold images; {present}")
        needed = {"image": image}
    else:
        if text is None:
            raise AtomError(f"--task {task} needs a column of text (--text_column), else give another; {present}")
        needed = {"text": text}
        if "text_pair" in chosen and task == "text-classification":
            needed["text_pair"] = chosen["text_pair"]
        strings = ", ".join(column for column in features if _is_text(features[column])) or "none"
        for role, column in needed.items():
            if not _is_text(features[column]):
                raise AtomError(f"--{role}_column {column!r} does not hold strings; the columns that do: {strings}")
    if task == "causal-lm":
        return task, needed
    if label is None:
        raise AtomError(
            f"--label_column: --task {task} needs one and none is called {', '.join(LABEL_NAMES)}; {present}"
        )
    return task, {**needed, "label": label}


def _find_text(rows: datasets.Dataset, candidates: list[str]) -> str | None:
    """The column with a usual name, else that of the longest strings."""
    lower = {column.lower(): column for column in candidates}
    if named := next((lower[name] for name in TEXT_NAMES if name in lower), None):
        return named
    strings = [c for c in candidates if _is_text(rows.features[c]) and c.lower() not in NEVER_TEXT]
    head = rows.select(range(min(len(rows), 1000)))
    return max(strings, key=lambda c: sum(len(text or "") for text in _column(head, c)), default=None)


def _is_text(feature: object) -> bool:
    return isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string", "string_view")


def _is_image(feature: object) -> bool:
    # An image column that was written by pandas comes back as the struct that stands behind datasets.Image.
    return isinstance(feature, datasets.Image) or (isinstance(feature, dict) and set(feature) == {"bytes", "path"})


def _column(rows: datasets.Dataset, name: str) -> list:
    return rows.select_columns([name])[:][name]


def _select(rows: datasets.Dataset, columns: dict[str, str], given: str) -> datasets.Dataset:
    """The rows with only these columns, called after their roles, and without rows that hold no text to model."""
    if absent := [column for column in columns.values() if column not in rows.column_names]:
        raise AtomError(
            f"{given} has no column {', '.join(absent)} as the training data has; it has {', '.join(rows.features)}"
        )
    rows = rows.select_columns(list(columns.values())).rename_columns({name: role for role, name in columns.items()})
    if "image" in columns:
        return rows.cast_column("image", datasets.Image())
    for role in columns.keys() - {"label"}:
        if not _is_text(rows.features[role]):
            raise AtomError(
                f"{given}: column {columns[role]!r} does not hold strings as that of the training data does"
            )
        texts = _column(rows, role)
        if none := sum(text is None for text in texts):
            raise AtomError(f"{given}: {none} rows have no text in column {columns[role]!r}; fill or remove them")
    if "label" not in columns:
        written = [row for row, text in enumerate(texts) if text.strip()]
        if not written:
            raise AtomError(f"{given}: column {columns['text']!r} holds only blank text; give one that has words")
        if len(written) < len(texts):
            logger.info("%s: %d blank rows are left out", given, len(texts) - len(written))
            rows = rows.select(written)
    return rows


# Which classes


def _labels(rows: datasets.Dataset, column: str, given: str) -> tuple[list[str], list[str]]:
    """The names of the classes in the order of their ids, and the name of each row's class."""
    feature, values = rows.features["label"], _column(rows, "label")
    declared = isinstance(feature, datasets.ClassLabel)
    if missing := sum(value is None or (declared and value == -1) for value in values):
        raise AtomError(f"{given}: {missing} of {len(values)} rows have no label in {column!r}; fill or remove them")
    if declared:
        return feature.names, [feature.names[value] for value in values]
    kind = feature.dtype if isinstance(feature, datasets.Value) else "lists"
    if not (_is_text(feature) or kind == "bool" or kind.lstrip("u").startswith("int")):
        regression = " (regression is not supported)" if kind.startswith("float") else ""
        raise AtomError(f"--label_column {column!r} holds {kind}{regression}; give one of integers or strings")
    return [str(value) for value in sorted(set(values))], [str(value) for value in values]


def _train_labels(rows: datasets.Dataset, column: str, dataset: str) -> tuple[datasets.Dataset, list[str]]:
    names, labels = _labels(rows, column, f"--dataset {dataset!r}")
    found = set(labels)
    if len(found) == 1:
        raise AtomError(f"--label_column {column!r} has one class only, {labels[0]!r}; give data with two or more")
    if len(found) == len(labels) > 50:
        raise AtomError(f"--label_column {column!r} has as many classes as rows ({len(labels)}); give one of classes")
    return _with_labels(rows, names, labels), names


def _eval_labels(rows: datasets.Dataset, names: list[str], column: str, given: str) -> datasets.Dataset:
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
