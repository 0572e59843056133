"""Find the checkpoint that a run resumes from, if any, and train from there."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from transformers import EarlyStoppingCallback, TrainerState

from ..atoms.config import CONFIG_NAME, AtomConfig
from ..atoms.explainer_sizes import explainer_sizes, make_explainer
from ..errors import AtomError
from ..modeling.attach import add_explainer
from ..modeling.finite import check_finite_files
from ..modeling.heads_file import read_heads
from ..modeling.unwrap import inner_model
from ..training.arguments import AtomTrainingArguments
from ..training.trainer import AtomTrainer
from ..utils.files import check_output_folder, complete
from ..utils.terminal import get_logger

logger = get_logger(__name__)

STATE_NAME = "trainer_state.json"  # the file of a checkpoint that Trainer writes last


def find_checkpoint(args: AtomTrainingArguments, save: bool) -> str | None:
    """The checkpoint to resume from, if any. Raises `AtomError` for a folder with another run in it."""
    folder = args.output_dir
    check_output_folder(folder)
    if save:
        complete(folder)
    resume = args.resume_from_checkpoint
    if resume and str(resume).lower() not in ("true", "1", "false"):
        _check_given(resume)
        return resume
    going_on = bool(resume) and str(resume).lower() != "false"
    last = _last_to_resume(folder) if going_on else last_checkpoint(folder)
    if going_on:
        if last is None:
            raise AtomError(
                f"--resume_from_checkpoint: {folder} holds no checkpoint to resume from; leave the flag out"
            )
        return last
    signs = ("config.json", "model.safetensors", STATE_NAME, "results.jsonl")
    if last is not None or (save and any(os.path.exists(os.path.join(folder, name)) for name in signs)):
        raise AtomError(
            f"--output_dir {folder!r} holds another run; resume it by --resume_from_checkpoint true, "
            "or give another --output_dir"
        )
    return None


def is_whole(checkpoint: str | Path) -> bool:
    """Whether a checkpoint was written to its end: Trainer's state is there, and is not cut off itself."""
    try:
        return isinstance(json.loads(Path(checkpoint, STATE_NAME).read_text(encoding="utf-8")), dict)
    except (OSError, ValueError, RecursionError):
        return False


def complete_checkpoints(folder: str | Path) -> list[tuple[int, str]]:
    """The step and the folder of each checkpoint that was written to its end; says which were not."""
    found = []
    for path in Path(folder).glob("checkpoint-*"):
        number = path.name.removeprefix("checkpoint-")
        if number.isdigit() and is_whole(path):
            found.append((int(number), str(path)))
        else:
            logger.warning("%s is incomplete and is skipped", path)
    return found


def last_checkpoint(folder: str | Path) -> str | None:
    """The last checkpoint that was written to its end."""
    return max(complete_checkpoints(folder), default=(0, None))[1]


def last_good_checkpoint(folder: str | Path) -> str | None:
    """The last checkpoint that was written to its end, and whose weights are finite numbers."""
    return next(
        (path for _, path in sorted(complete_checkpoints(folder), reverse=True) if not _what_is_wrong(path)), None
    )


def _last_to_resume(folder: str | Path) -> str | None:
    """The last good checkpoint; says why a later one is passed over."""
    for _, path in sorted(complete_checkpoints(folder), reverse=True):
        if (wrong := _what_is_wrong(path)) is None:
            return path
        logger.warning("%s is skipped: %s", path, wrong)
    return None


def _what_is_wrong(checkpoint: str) -> str | None:
    try:
        check_finite_files(checkpoint)
    except AtomError as error:
        return str(error)
    return None


def _check_given(checkpoint: str) -> None:
    if not os.path.isfile(os.path.join(checkpoint, STATE_NAME)):
        raise AtomError(f"--resume_from_checkpoint {checkpoint!r} is not a checkpoint folder; true takes the last one")
    if os.path.isfile(os.path.join(checkpoint, "all_results.json")):  # the metrics, which a run saves at its end
        raise AtomError(
            f"--resume_from_checkpoint {checkpoint!r} is the folder of a finished run, not a checkpoint: give a "
            "checkpoint-* of the run, or start a new run from its model by --model"
        )


def train(trainer: AtomTrainer, checkpoint: str | None, stopping: EarlyStoppingCallback | None = None) -> bool:
    """Trains, from a checkpoint if one is given. Returns whether that was the end of the run, with nothing left to train.

    Trainer itself would take one step more where a run's last step is not the last of an epoch, and where early stopping ended
    it, it would train on.
    """
    if checkpoint is None:
        trainer.train()
        return False
    state = TrainerState.load_from_json(os.path.join(checkpoint, "trainer_state.json"))
    stopped = False
    if stopping is not None:
        stopping.early_stopping_patience_counter = _evaluations_without_gain(state)
        stopped = stopping.early_stopping_patience_counter >= stopping.early_stopping_patience
    plan, epochs = trainer.set_initial_training_values, []

    def plan_the_rest(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
        planned, *others, steps = plan(*args, **kwargs)
        epochs[:] = [planned] if stopped or state.global_step >= steps else []
        return (0 if epochs else planned, *others, steps)

    trainer.set_initial_training_values = plan_the_rest
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
    finally:
        del trainer.set_initial_training_values
    if epochs:
        (trainer.state.num_train_epochs,) = epochs
        if trainer.is_world_process_zero():
            logger.info("%s is the end of the run: there is nothing left to train", checkpoint)
    return bool(epochs)


def _evaluations_without_gain(state: TrainerState) -> int:
    """How many evaluations early stopping had seen since the best one when the checkpoint was written."""
    found = (state.stateful_callbacks or {}).get(EarlyStoppingCallback.__name__, {})
    found = found[0] if isinstance(found, list) else found
    return found.get("attributes", {}).get("early_stopping_patience_counter", 0)


def restore_explainer(trainer: AtomTrainer) -> bool:
    """Restores the explainer that was fitted at the end of this run. Returns whether its folder holds one.

    Whether it belongs to this run shows in the heads beside it, which every step trains.
    """
    folder, model = trainer.args.output_dir, inner_model(trainer.accelerator.unwrap_model(trainer.model))
    try:
        config = AtomConfig.load(os.path.join(folder, CONFIG_NAME))
        if not config.has_explainer or config.explainer_classes != getattr(model.config, "num_labels", 0):
            return False
        trained = {name: value.cpu() for name, value in model.atom_heads.state_dict().items()}
        with torch.device("meta"):
            fitted = make_explainer(config, model.atom_config.hidden_size).state_dict()
        expected = {**trained, **{f"explainer.{name}": value for name, value in fitted.items()}}
        saved, _ = read_heads(
            folder, {name: tuple(value.shape) for name, value in expected.items()}, type(model).__name__
        )
    except AtomError:
        return False
    if not all(torch.equal(saved[name], value.float()) for name, value in trained.items()):
        return False
    explainer = add_explainer(model, **explainer_sizes(config))
    explainer.load_state_dict({name: saved[f"explainer.{name}"] for name in fitted})
    if trainer.is_world_process_zero():
        logger.info(
            "importance is already fitted to the prediction; atom-hf fit-explainer --model %s fits it again", folder
        )
    return True
