"""Save a run's model: a full disk does not lose its results, and a model of NaNs is not saved."""

import functools
import json
import os
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..data.load import TaskData
from ..errors import AtomError, DivergedError, WriteError
from ..hub.card import is_own
from ..hub.messages import CLIENT_ERRORS, as_atom_error
from ..modeling.finite import not_finite
from ..modeling.mixin import save_heads
from ..training.push import saved_together
from ..utils.files import write_atomically, write_failure
from ..utils.terminal import get_logger
from .card_samples import sample_facts
from .resume import complete_checkpoints, is_whole, last_good_checkpoint
from .trainer import RenamedWeightsTrainer

logger = get_logger(__name__)

RESULTS_NAMES = ("eval_results.json", "all_results.json")  # Trainer's names; a run writes no other results to combine


class RunTrainer(RenamedWeightsTrainer):
    """The trainer of `atom-hf train`. If a checkpoint cannot be written, it says so, and training continues."""

    @functools.cached_property
    def unsaved(self) -> dict[str, str]:
        """What could not be written: what it is -> why."""
        return {}

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        folder = os.path.join(self._get_output_dir(trial=trial), name)
        if self.args.should_save:
            # An earlier attempt may have left one: until all is written again, nothing says that it is.
            Path(folder, TRAINER_STATE_NAME).unlink(missing_ok=True)
        try:
            super()._save_checkpoint(model, trial)
        except Exception as error:
            if (why := write_failure(error)) is None:
                raise
            if self.args.world_size > 1:  # the other processes may wait for this one
                raise WriteError(f"{folder} could not be saved: {why}", why) from error
            if not is_whole(folder):
                shutil.rmtree(folder, ignore_errors=True)
                if self.state.best_model_checkpoint == folder:
                    self.state.best_model_checkpoint = None
            self.unsaved[name] = why
            logger.warning("%s could not be saved: %s; training continues without it", folder, why)

    evaluated: tuple[np.ndarray, np.ndarray] | None = None
    """The predicted and the true classes [n] of the last evaluation of a classifier."""

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        found = super().evaluation_loop(*args, **kwargs)
        logits = found.predictions[0] if isinstance(found.predictions, tuple) else found.predictions
        if isinstance(logits, np.ndarray) and logits.ndim == 2 and np.ndim(found.label_ids) == 1:
            self.evaluated = logits.argmax(-1), found.label_ids
        return found

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        if self._atom_on:
            return super()._save(output_dir, state_dict=state_dict)
        with saved_together(self, self.args.output_dir if output_dir is None else output_dir) as part:
            super()._save(part, state_dict=state_dict)


def check_diverged(trainer: RunTrainer, save: bool, again: str = "start a new run from it by --model") -> None:
    """Reject a trained model whose weights are not finite numbers; where no model is to be saved, only say so.

    `again` says, before the last good checkpoint, how to go on from there.

    Raises:
        DivergedError: in every process. It names the last checkpoint whose weights are finite.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    names = not_finite(model)
    found = torch.tensor(float(bool(names)), device=trainer.args.device)
    if not trainer.accelerator.reduce(found, "sum").item():
        return
    first = f", the first in {names[0]}" if names else ""
    what = f"training diverged: weights are not finite numbers (NaN{first})"
    if not save:
        logger.warning("seed %d: %s", trainer.args.seed, what)
        return
    good = last_good_checkpoint(trainer.args.output_dir)
    advice = (
        f"the last good checkpoint is {good}: {again} {good}"
        if good
        else "there is no good checkpoint of it: start again"
    )
    raise DivergedError(f"{what}, and the model is not saved; {advice}, with a lower --learning_rate")


def save_trained(trainer: RunTrainer) -> bool:
    """Save the model in the end. Returns whether that could be done; `trainer.unsaved` says why not."""
    if trainer.is_fsdp_enabled:  # whatever form its checkpoints have, the model at the end is whole
        trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
    # Without a push, which may fail, and before a fit that may be broken off.
    return _try(trainer, "the model", functools.partial(trainer.save_model, _internal_call=True))


def save_explainer(trainer: RunTrainer) -> None:
    """Add the fitted heads to the model that `save_trained` has saved; its weights stay as they are."""

    def save() -> None:
        if trainer.is_world_process_zero():
            save_heads(trainer.accelerator.unwrap_model(trainer.model), trainer.args.output_dir)

    _try(trainer, "the fitted importance", save)


def save_card(trainer: RunTrainer, data: TaskData, samples: int) -> None:
    """Write the card anew, with all that is known in the end: the fitted importance, and samples of the evaluation data."""
    folder = trainer.args.output_dir

    def save() -> None:
        if not trainer.is_world_process_zero():
            return
        if trainer.args.world_size == 1 and not is_own(
            folder
        ):  # a model that is spread over processes reads none alone
            model = trainer.accelerator.unwrap_model(trainer.model)
            trainer.card_facts |= sample_facts(model, trainer.processing_class, data, samples, folder)
        trainer.create_model_card()

    _try(trainer, "the model card", save)


def save_results(trainer: RunTrainer, metrics: dict[str, float]) -> None:
    """Save Trainer's state and the metrics beside the model: the files of `save_state` and `save_metrics`, each whole."""

    def save() -> None:
        if not trainer.is_world_process_zero():
            return
        folder = Path(trainer.args.output_dir)
        write_atomically(folder / TRAINER_STATE_NAME, trainer.state.save_to_json)
        for name in RESULTS_NAMES:
            write_atomically(folder / name, json.dumps(metrics, indent=4, sort_keys=True))

    _try(trainer, f"{TRAINER_STATE_NAME} and {RESULTS_NAMES[0]}", save)


def push_trained(trainer: RunTrainer) -> str | None:
    """Pushes as `save_model` would. Returns why it could not, in one line, and what would do."""
    folder, name = trainer.args.output_dir, str(trainer.hub_model_id)
    try:
        with as_atom_error("--push_to_hub", name, errors=CLIENT_ERRORS):
            trainer.push_to_hub(commit_message="Model save", revision=trainer.args.hub_revision)
    except AtomError as error:
        again = ["atom-hf", "push", folder, "--repo", name] if trainer.args.atom else ["hf", "upload", name, folder]
        if trainer.args.hub_revision:
            again += ["--revision", trainer.args.hub_revision]
        return f"{error}; the model is saved in {folder}, and `{shlex.join(again)}` pushes it"
    return None


def why_unsaved(trainer: RunTrainer) -> str | None:
    """What of a run could not be saved, and what can be done, in one line; None if all was."""
    if not trainer.unsaved:
        return None
    folder = trainer.args.output_dir
    reasons = dict.fromkeys(trainer.unsaved.values())
    lists = {why: [what for what, its in trainer.unsaved.items() if its == why] for why in reasons}
    parts = "; ".join(
        f"{', '.join(whats[:3])}{f' and {len(whats) - 3} more' if len(whats) > 3 else ''} could not be saved: {why}"
        for why, whats in lists.items()
    )
    if "the model" not in trainer.unsaved:
        return f"--output_dir {folder!r}: {parts}; the model is saved"
    last = max(complete_checkpoints(folder), default=None)
    advice = f"--resume_from_checkpoint {last[1]} resumes from there" if last else "give another --output_dir"
    return f"--output_dir {folder!r}: {parts}; make room, and {advice}"


def _try(trainer: RunTrainer, what: str, save: Callable[[], Any]) -> bool:
    try:
        save()
    except Exception as error:  # of any library that writes
        if (why := write_failure(error)) is None:
            raise
        trainer.unsaved[what] = why
        logger.warning("%s could not be saved: %s", what, why)
        return False
    return True
