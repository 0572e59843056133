"""Describe a run without training: `atom-hf train --dry_run`."""

from collections import Counter
from typing import Any

from ..data.columns import column_values
from ..data.load import TaskData
from ..training.arguments import AtomTrainingArguments
from .arguments import RunArguments, load_run_data
from .inputs import TrainingInputs, prepare_run_inputs

SHOWN = 3

LONGEST = 100  # characters of a text

MOST_CLASSES = 20


def describe_run(run: RunArguments, args: AtomTrainingArguments) -> str:
    """Loads the data and the model as a run would, and says in lines what they are, with three training rows.

    Raises `AtomError` for whatever is wrong with them. Nothing is written but the cache of data sets.
    """
    if args.atom:
        args.atom_config()
    data = load_run_data(run)
    task = prepare_run_inputs(run, data)
    count = sum(parameter.numel() for parameter in task.model.parameters())
    columns = ", ".join(f"{role} from column {column!r}" for role, column in data.columns.items())
    lines = [
        ("task", data.task),
        (
            "model",
            f"{type(task.model).__name__} of {run.model or 'a new ' + str(run.model_type)}, {count:,} parameters",
        ),
        ("atom", "with the atom loss" if args.atom else "without the atom loss (--atom is not given)"),
        ("data", f"{run.dataset}: {columns}"),
        ("train on", f"{len(data.train):,} rows of split {data.splits[0]}"),
        ("evaluate on", f"{len(data.eval):,} rows {_eval_source(run, data)}"),
    ]
    if data.labels is not None:
        lines.append(("classes", _classes(data)))
    shown = sorted({0, len(data.train) // 2, len(data.train) - 1})[:SHOWN]
    lines += [(f"row {number}", _row(data, task, number)) for number in shown]
    return "\n".join(f"{name:<12}  {text}" for name, text in lines)


def _eval_source(run: RunArguments, data: TaskData) -> str:
    if data.splits[1] is None:
        return "held out of them"
    return f"of split {data.splits[1]}" + (f" of {run.eval_dataset}" if run.eval_dataset else "")


def _classes(data: TaskData) -> str:
    counts = Counter(column_values(data.train, "label"))
    shown = [f"{name!r} ({counts[number]:,})" for number, name in enumerate(data.labels[:MOST_CLASSES])]
    return f"{len(data.labels)}: {', '.join(shown)}{', ...' if len(data.labels) > MOST_CLASSES else ''}"


def _row(data: TaskData, task: TrainingInputs, number: int) -> str:
    row = data.train[number]
    label = f" -> {data.labels[row['label']]!r}" if data.labels is not None else ""
    if data.is_image:
        image, shape = row["image"], list(task.train[number]["pixel_values"].shape)
        return f"picture {image.width} x {image.height}, {image.mode}, as pixels {shape}{label}"
    texts = " | ".join(_short(row[role]) for role in ("text", "text_pair") if role in row)
    return f"{texts} ({len(task.train[number]['input_ids'])} tokens){label}"


def _short(text: Any) -> str:
    return repr(text if len(text) <= LONGEST else text[:LONGEST] + "...")
