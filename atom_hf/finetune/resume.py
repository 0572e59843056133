"""The checkpoint that a run resumes from, if any, and what is left to do from there."""

import os
from pathlib import Path
from typing import Any

import torch
from transformers import EarlyStoppingCallback, TrainerState

from ..atoms.config import CONFIG_NAME, AtomConfig
from ..atoms.heads import ExplainerHead
from ..errors import AtomError
from ..modeling.attach import add_explainer
from ..modeling.heads_file import read_heads
from ..modeling.unwrap import inner_model
from ..training.arguments import AtomTrainingArguments
from ..training.trainer import AtomTrainer
from ..utils.files import check_output_folder
from ..utils.terminal import get_logger

logger = get_logger(__name__)


def find_checkpoint(args: AtomTrainingArguments, save: bool) -> str | None:
    """The checkpoint to resume from, if any. Raises `AtomError` for a folder with another run in it."""
    folder = args.output_dir
    check_output_folder(folder)
    resume = args.resume_from_checkpoint
    if resume and str(resume).lower() not in ("true", "1", "false"):
        if not os.path.isfile(os.path.join(resume, "trainer_state.json")):
            raise AtomError(f"--resume_from_checkpoint {resume!r} is not a checkpoint folder; true takes the last one")
        return resume
    last = last_checkpoint(folder)
    if resume and str(resume).lower() != "false":
        if last is None:
            raise AtomError(
                f"--resume_from_checkpoint: {folder} holds no checkpoint to resume from; leave the flag out"
            )
        return last
    signs = ("config.json", "model.safetensors", "trainer_state.json", "results.jsonl")
    if last is not None or (save and any(os.path.exists(os.path.join(folder, name)) for name in signs)):
        raise AtomError(
            f"--output_dir {folder!r} holds another run; resume it by --resume_from_checkpoint true, "
            "or give another --output_dir"
        )
    return None


def last_checkpoint(folder: str) -> str | None:
    """The last checkpoint that was written to its end; Trainer writes its state last."""
    found = []
    for path in Path(folder).glob("checkpoint-*"):
        number = path.name.removeprefix("checkpoint-")
        if number.isdigit() and (path / "trainer_state.json").is_file():
            found.append((int(number), str(path)))
        else:
            logger.warning("%s is incomplete and is skipped", path)
    return max(found)[1] if found else None


def train(trainer: AtomTrainer, checkpoint: str | None, stopping: EarlyStoppingCallback | None = None) -> bool:
    """Trains, from a checkpoint if one is given. Returns whether that was the end of the run, and nothing was left to train.

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
    """Restores the explainer that was fitted at the end of this very run. Returns whether its folder holds one.

    The heads beside it tell whether it was: every step trains them.
    """
    folder, model = trainer.args.output_dir, inner_model(trainer.accelerator.unwrap_model(trainer.model))
    try:
        config = AtomConfig.load(os.path.join(folder, CONFIG_NAME))
        if not config.has_explainer or config.explainer_classes != getattr(model.config, "num_labels", 0):
            return False
        trained = {name: value.cpu() for name, value in model.atom_heads.state_dict().items()}
        with torch.device("meta"):
            width = model.atom_config.hidden_size
            fitted = ExplainerHead(width, config.explainer_classes, config.explainer_width).state_dict()
        expected = {**trained, **{f"explainer.{name}": value for name, value in fitted.items()}}
        saved, _ = read_heads(
            folder, {name: tuple(value.shape) for name, value in expected.items()}, type(model).__name__
        )
    except AtomError:
        return False
    if not all(torch.equal(saved[name], value.float()) for name, value in trained.items()):
        return False
    explainer = add_explainer(model, config.explainer_classes, config.explainer_width)
    explainer.load_state_dict({name: saved[f"explainer.{name}"] for name in fitted})
    if trainer.is_world_process_zero():
        logger.info(
            "importance is fitted to the prediction already; atom-hf fit-explainer --model %s fits it anew", folder
        )
    return True
