"""What the arms of a comparison have in common, and the rejection of arms whose metrics cannot be compared."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset

from ..data.load import TaskData
from ..errors import AtomError
from ..finetune.arguments import DATA_FIELDS, load_run_data
from ..finetune.card_facts import GPT2, GPT2_LOSS
from ..finetune.run import Prepared
from .arms import Arms

# Which columns are the model's inputs: the same rows may be read in different ways.
_INPUTS = ("text_column", "text_pair_column", "image_column")

# What the order of the rows depends on beside the seed and the rows themselves.
_ORDER = ("data_seed", "train_sampling_strategy", "length_column_name")


class Start(NamedTuple):
    """An arm's run of the first seed as it starts."""

    steps: int
    model_class: str
    weights: str | None
    """A hash of the initial weights, without the heads; None if they can be no others than the reference's."""
    predicted: str | None
    """A hash of the tokens that a language model is evaluated on; None for other tasks."""


def load_arms(arms: Arms) -> dict[str, TaskData]:
    """The data of each arm. Raises `AtomError` for arms whose metrics are of different tasks, classes or rows."""
    loaded: dict[tuple, TaskData] = {}
    found = {}
    for name, (run, _) in arms.runs.items():
        key = tuple(getattr(run, flag) for flag in ("dataset", *DATA_FIELDS))
        if key not in loaded:
            loaded[key] = load_run_data(run)
        found[name] = loaded[key]
    (one, first), *others = found.items()
    for other, data in others:
        if data is first:
            continue
        if data.task != first.task:
            _reject(arms, f"the task of {one!r} is {first.task} and that of {other!r} {data.task}", "--task")
        if data.labels != first.labels:
            _reject(arms, f"{one!r} and {other!r} have different classes", "--dataset, or label column")
        reads_alike = not any(flag in arms.differences for flag in _INPUTS)
        if not _same(first.eval, data.eval, reads_alike or first.labels is None):
            what = f"{one!r} is evaluated on {len(first.eval)} rows and {other!r} on {len(data.eval)} others"
            _reject(arms, what, "evaluation data, as by --eval_dataset or --eval_split")
    return found


def _reject(arms: Arms, what: str, remedy: str) -> None:
    raise AtomError(f"{arms.given}: {what}, so that their metrics cannot be compared; give both the same {remedy}")


def _same(first: Dataset, second: Dataset, inputs: bool) -> bool:
    """Whether two data sets have the same rows; without their `inputs`, whether they have the same labels in this order."""
    if len(first) != len(second):
        return False
    if not inputs:
        first, second = first.select_columns("label"), second.select_columns("label")
    return _hash(first) == _hash(second)


def look_at(prepared: Prepared, weights: bool) -> Start:
    """A run as it starts; of its weights only if asked to, since a large model takes a while."""
    trainer, data, task = prepared
    *_, steps = trainer.set_initial_training_values(trainer.args, trainer.get_train_dataloader())
    is_lm = data.task == "causal-lm"
    tokens = _hash(task.eval.select_columns("input_ids")) if is_lm else None
    return Start(steps, type(task.model).__name__, _hash_weights(task.model) if weights else None, tokens)


def may_start_otherwise(arms: Arms) -> bool:
    """Whether arms may begin with other weights: they do so by the flags of the model and of its data alone."""
    return any(name in vars(arm.run) or "." in name for name in arms.differences for arm in arms.runs.values())


def check_starts(arms: Arms, starts: Mapping[str, Start]) -> None:
    """Reject language models whose loss is not of the same tokens, or not the same loss. Raises `AtomError`."""
    (one, first), *others = starts.items()
    if first.predicted is None:
        return
    for other, start in others:
        if start.predicted != first.predicted:
            what = f"{one!r} and {other!r} cut the evaluation texts into different tokens"
            _reject(arms, what, "--tokenizer (or --vocabulary_size) and --max_length")
    if "label_smoothing_factor" in arms.differences:
        _reject(arms, "Trainer smooths the labels in evaluation too", "--label_smoothing_factor")


def not_compared(arms: Arms) -> dict[str, str]:
    """Metrics that are not of the same thing in all arms, each with the reason."""
    if "label_smoothing_factor" in arms.differences:
        return {"loss": "Trainer smooths the labels in evaluation too, so that the losses are not comparable"}
    return {}


def in_common(arms: Arms, data: Mapping[str, TaskData], starts: Mapping[str, Start]) -> str:
    """One line: what differs between the arms, what follows from it, and what is the same in all of them."""
    sets = list({id(each): each for each in data.values()}.values())
    rows = len(sets) == 1 or len({_hash(each.train) for each in sets}) == 1
    steps = list(dict.fromkeys(start.steps for start in starts.values()))
    parts = {
        "evaluation rows": True,
        "training rows": rows,
        "initial weights": len({start.weights for start in starts.values()}) == 1,
        "order of rows": rows and not any(name in arms.differences for name in _ORDER),
        f"number of steps ({', '.join(f'{count:,}' for count in steps)})": len(steps) == 1,
    }
    same = [name for name, is_same in parts.items() if is_same]
    follows = [name for name, is_same in parts.items() if not is_same]
    also = f", and with that the {_listed(follows)}" if follows else ""
    line = f"What differs: {arms.says()}{also}. The same in all runs of a seed: {_listed(same)}."
    if sets[0].task == "causal-lm" and len({start.model_class == GPT2 for start in starts.values()}) > 1:
        line += f" {GPT2_LOSS}"
    return line


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def hashed_rows(data: TaskData) -> str:
    """A hash of the rows, wherever they lie: sixteen hexadecimal digits. An image file counts by its modification time."""
    digest = hashlib.sha256(repr(data.labels).encode())
    for rows in (data.train, data.eval):
        _add(digest, rows)
        digest.update(b"end")
    return digest.hexdigest()[:16]


def _hash(rows: Dataset) -> str:
    _add(digest := hashlib.sha256(), rows)
    return digest.hexdigest()


def _add(digest: Any, rows: Dataset) -> None:
    for batch in rows.with_format("arrow").iter(1000):
        for name, column in batch.to_pydict().items():
            digest.update(repr((name, [_with_time(value) for value in column])).encode())


def _with_time(value: Any) -> Any:
    if isinstance(value, dict) and value.get("bytes", 0) is None and Path(str(value.get("path"))).is_file():
        return value["path"], Path(value["path"]).stat().st_mtime_ns
    return value


def _hash_weights(model: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        if not name.startswith("atom_heads."):
            digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
            digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
