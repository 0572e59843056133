"""Load any data set that `--dataset` may name: training rows and evaluation rows.

A name is a built-in data set, else an existing path, else an id on the Hugging Face Hub. The result has the same few columns
whatever the source, and unusable data are rejected before training.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import datasets

from ..builtin import BUILT_IN_DATASETS
from ..errors import AtomError
from ..utils.terminal import get_logger
from .columns import GENERATION, TASKS, find_columns, select_columns
from .labels import eval_labels, train_labels
from .sources import load_source, short_name
from .splits import draw_rows, first_eval_split, hold_out_rows, main_split, named_split

logger = get_logger(__name__)

__all__ = ["BUILT_IN_DATASETS", "TASKS", "TaskData", "load_data"]


@dataclass(frozen=True)
class TaskData:
    """A data set ready for its task: the same columns in both parts, and no others.

    The columns are "text" and optionally "text_pair", or "image", and for classification "label" (a ClassLabel).
    `labels` are the names of the classes in the order of their ids, None without labels. `splits` are the names of the splits
    of both parts, the second None if rows of the first were held out. `columns` are their names in the source, by role.
    """

    name: str
    task: str
    train: datasets.Dataset
    eval: datasets.Dataset
    labels: list[str] | None
    splits: tuple[str | None, str | None] = (None, None)
    columns: dict[str, str] = field(default_factory=dict)

    @property
    def is_image(self) -> bool:
        """Whether the rows are images; else they are texts."""
        return self.task in ("image-classification", GENERATION)


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
    """Load a data set, find its columns and classes, and draw the requested rows.

    Args:
        dataset: the name of a built-in data set (`BUILT_IN_DATASETS`); or a path: a csv, tsv, jsonl, json, parquet, txt or npz
            file, a folder of such files, or a folder with one sub-folder of images per class; or an id on the Hub.
        task: one of `TASKS`, or "unconditional-image-generation"; by default the one of `TASKS` that the columns suggest.
        dataset_config: the configuration of a data set on the Hub.
        eval_dataset: another data set whose rows are the evaluation data.
        text_column, text_pair_column, image_column, label_column: names of columns; by default they are found.
        train_split: by default "train", or the only split.
        eval_split: by default a validation split, else a test split, else `eval_fraction` of the training rows. Several
            are joined by "+", as in "validation+test".
        max_train_samples, max_eval_samples: draw this many rows, every class in proportion.
        eval_fraction: the fraction of the training rows to hold out if there is no evaluation split.
        hold_out: hold rows out even if there is one: settings are to be chosen on other rows than those that judge them.
        sample_seed: the same seed draws the same rows.

    Returns:
        The data set's name, its task, the rows of both parts, and the names of the classes.

    Raises:
        AtomError: an argument is wrong, or the data set cannot be loaded or does not fit the task.
    """
    if task is not None and task not in (*TASKS, GENERATION):
        raise AtomError(f"--task {task!r} is unknown; give one of {', '.join((*TASKS, GENERATION))}")
    if not 0 < eval_fraction < 1:
        raise AtomError(f"--eval_fraction is {eval_fraction}; give a number between 0 and 1, such as 0.2")
    for flag, count in (("--max_train_samples", max_train_samples), ("--max_eval_samples", max_eval_samples)):
        if count is not None and count < 1:
            raise AtomError(f"{flag} is {count}; give 1 or more, or leave it out to use every row")

    if hold_out and (eval_dataset or eval_split):
        raise AtomError("--hold_out evaluates on training rows; leave out --eval_dataset and --eval_split")

    given = {"text": text_column, "text_pair": text_pair_column, "image": image_column, "label": label_column}
    named = [column for column in given.values() if column is not None]
    splits = load_source(dataset, dataset_config, "--dataset", named)
    train_name = main_split(splits, train_split, "--train_split", dataset)
    train = named_split(splits, train_name, "--train_split", dataset)
    task, columns = find_columns(train, task, given, dataset)

    if eval_dataset is not None:
        others = load_source(eval_dataset, None, "--eval_dataset", list(columns.values()))
        eval_name = main_split(others, eval_split, "--eval_split", eval_dataset)
        evaluation = named_split(others, eval_name, "--eval_split", eval_dataset)
        eval_flag = f"--eval_dataset {eval_dataset!r}"
    else:
        eval_name = None if hold_out else eval_split or first_eval_split(splits, train_name, columns)
        evaluation = None if eval_name is None else named_split(splits, eval_name, "--eval_split", dataset)
        eval_flag = f"--eval_split {eval_name!r}"

    train = select_columns(train, columns, f"--dataset {dataset!r}")
    if evaluation is not None:
        evaluation = select_columns(evaluation, columns, eval_flag)
    names = None
    if "label" in columns:
        train, names = train_labels(train, columns["label"], dataset)
        if evaluation is not None:
            evaluation = eval_labels(evaluation, names, columns["label"], eval_flag)
    if evaluation is None:
        train, evaluation = hold_out_rows(train, eval_fraction, sample_seed, dataset)
    train = draw_rows(train, max_train_samples, sample_seed, "--max_train_samples")
    evaluation = draw_rows(evaluation, max_eval_samples, sample_seed, "--max_eval_samples")
    logger.info("%s: %s of %s, %d training and %d evaluation rows", dataset, task, columns, len(train), len(evaluation))
    return TaskData(
        short_name(dataset, dataset_config), task, train, evaluation, names, (train_name, eval_name), columns
    )
