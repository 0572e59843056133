"""Choose the training and evaluation rows: splits, held-out rows, stratified samples."""

from __future__ import annotations

import datasets
import numpy as np

from ..errors import AtomError
from ..utils.terminal import get_logger
from .columns import column_values
from .sources import EVAL_SPLITS

logger = get_logger(__name__)


def stratified_rows(classes: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Draw `count` of the rows whose class ids are given, each class in proportion; returns indices in ascending order.

    Every class keeps at least one row where `count` allows it. The same seed draws the same rows.
    """
    # Not scikit-learn's train_test_split, which draws other rows: committed results must not change.
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


def named_split(splits: dict[str, datasets.Dataset], name: str, flag: str, dataset: str) -> datasets.Dataset:
    """The rows of a split, or of several joined by "+"."""
    parts = name.split("+")
    if not set(parts) <= set(splits):
        raise AtomError(f"{flag} {name!r}: {dataset!r} has no such split; give one of {', '.join(splits)}")
    return datasets.concatenate_datasets([splits[part] for part in parts]) if len(parts) > 1 else splits[name]


def main_split(splits: dict[str, datasets.Dataset], wanted: str | None, flag: str, dataset: str) -> str:
    """The name of the wanted split; by default "train", or the only one."""
    name = wanted or ("train" if "train" in splits else next(iter(splits)))
    if wanted is None and "train" not in splits and len(splits) > 1:
        raise AtomError(f"{flag}: {dataset!r} has no split called train; give one of {', '.join(splits)}")
    if not len(named_split(splits, name, flag, dataset)):
        raise AtomError(f"{flag} {name!r}: this split of {dataset!r} is empty; give one that has rows")
    return name


def first_eval_split(splits: dict[str, datasets.Dataset], train_name: str, columns: dict[str, str]) -> str | None:
    """The first non-empty validation or test split with known labels: a benchmark's test labels are often -1."""
    for start in EVAL_SPLITS:
        for name, rows in splits.items():
            if name in (train_name, *train_name.split("+")) or not name.startswith(start) or not len(rows):
                continue
            label = columns.get("label")
            if label is None or (label in rows.column_names and not set(column_values(rows, label)) <= {-1, None}):
                return name
            logger.info("split %s has no labels: it is not used", name)
    return None


def hold_out_rows(rows: datasets.Dataset, fraction: float, seed: int, dataset: str) -> tuple[datasets.Dataset, ...]:
    """(training rows, evaluation rows): a stratified fraction of the rows is held out for evaluation."""
    count = len(rows) - max(1, round(len(rows) * fraction))
    if count < 1:
        raise AtomError(f"--eval_dataset is missing and {dataset!r} has too few rows ({len(rows)}) to hold any out")
    kept = stratified_rows(_classes(rows), count, seed)
    logger.info("%s has no evaluation split: %d of %d rows are held out", dataset, len(rows) - count, len(rows))
    return rows.select(kept), rows.select(np.setdiff1d(np.arange(len(rows)), kept))


def draw_rows(rows: datasets.Dataset, count: int | None, seed: int, flag: str) -> datasets.Dataset:
    """`count` rows, stratified by class; all if None or if there are not as many."""
    if count is None:
        return rows
    if count >= len(rows):
        logger.info("%s is %d and there are %d rows: all are used", flag, count, len(rows))
        return rows
    return rows.select(stratified_rows(_classes(rows), count, seed))


def _classes(rows: datasets.Dataset) -> np.ndarray:
    return np.array(column_values(rows, "label")) if "label" in rows.column_names else np.zeros(len(rows), int)
