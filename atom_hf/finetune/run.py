"""One fine-tuning run from its arguments: prepare, train, evaluate, fit the explainer, save, push."""

import copy
import dataclasses
import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
import transformers
from accelerate.state import AcceleratorState
from transformers import EarlyStoppingCallback, PrinterCallback, set_seed
from transformers.trainer_utils import SaveStrategy

from ..data.load import TaskData
from ..errors import AtomError, first_line
from ..explainer.fit import ExplainerFit
from ..hub.card import Comparison
from ..hub.messages import CLIENT_ERRORS, as_atom_error
from ..hub.upload import check_repository, check_token
from ..modeling.attach import attach_atoms
from ..modeling.load import restore_heads
from ..modeling.mixin import AtomMixin
from ..modeling.sharding import name_units
from ..training.arguments import AtomTrainingArguments, check_processes
from ..training.checkpoint_parts import check_fits, check_parts
from ..training.trainer import AtomTrainer
from ..utils.files import check_output_folder
from ..utils.lock import lock_folder
from ..utils.terminal import get_logger
from .arguments import RunArguments, load_run_data
from .card_facts import run_facts
from .card_samples import class_results
from .checks import check_metric, check_optimizer, check_reporters, check_schedule
from .inputs import TrainingInputs, prepare_run_inputs
from .log_lines import log_often, print_lines
from .metrics import importance_metrics, perplexity
from .pretrained import find_model
from .resume import find_checkpoint, restore_explainer, train
from .saving import (
    RunTrainer,
    check_diverged,
    push_trained,
    save_card,
    save_explainer,
    save_results,
    save_trained,
    why_unsaved,
)

logger = get_logger(__name__)

DEFAULT_FOLDER = "trainer_output"  # what TrainingArguments takes for an output_dir that was not given

IMPORTANCE_BATCHES = 32


@dataclass(frozen=True)
class RunResult:
    """The result of a run."""

    metrics: dict[str, float]
    """The task's metrics on the evaluation data, without a prefix: loss, accuracy, f1, mcc; or loss, perplexity."""
    importance: dict[str, float]
    """With the flag on: mean |importance| and the shares of either sign, over the first batches of the evaluation data."""
    output_dir: str
    data: TaskData
    trainer: AtomTrainer
    task: TrainingInputs
    explainer: ExplainerFit | None = None
    """How well the explainer fits, if one was asked for and could be fitted."""
    push_error: str | None = None
    """Why the model, which is saved, could not be pushed in the end."""
    save_error: str | None = None
    """What could not be saved, and why: the model, or something beside it."""
    is_saved: bool = False


def default_output_dir(run: RunArguments, data: TaskData, atom: bool) -> str:
    """`runs/<data>-<model>-<atom or plain>`."""
    model = run.model or f"new-{run.model_type}"
    return os.path.join("runs", f"{data.name}-{os.path.basename(model.rstrip('/'))}-{'atom' if atom else 'plain'}")


class Prepared(NamedTuple):
    """All that a run needs before it trains."""

    trainer: AtomTrainer
    data: TaskData
    task: TrainingInputs


def prepare_run(
    run: RunArguments,
    args: AtomTrainingArguments,
    *,
    save: bool = True,
    trainer_class: type = AtomTrainer,
    holding: ExitStack | None = None,
) -> Prepared:
    """Everything up to training: the data, and the trainer (a subclass of AtomTrainer, if given) with its model.

    The output folder stays locked for other runs as long as `holding`, if given, is open.

    Raises:
        AtomError: whatever is wrong with the arguments, before training starts.
    """
    check_processes(args)
    if args.output_dir != DEFAULT_FOLDER:
        check_output_folder(args.output_dir)
    if args.atom:
        args.atom_config()  # rejects bad values before anything is loaded
    check_reporters(args)
    check_schedule(args)
    if args.push_to_hub:
        check_token(args.hub_token)
        if args.hub_model_id is not None:
            check_repository(args.hub_model_id, "--hub_model_id")
    with args.main_process_first(desc="loading data"):
        data = load_run_data(run)
    check_metric(args, data.task)
    if args.output_dir == DEFAULT_FOLDER:
        args.output_dir = default_output_dir(run, data, args.atom)
    if holding is not None and args.process_index == 0:
        check_output_folder(args.output_dir)
        holding.enter_context(lock_folder(args.output_dir))
    args.resume_from_checkpoint = find_checkpoint(args, save)
    if args.resume_from_checkpoint is not None:
        check_parts(args.resume_from_checkpoint)
    # Pinned memory serves the copy to an accelerator; without one it only warns.
    args.dataloader_pin_memory = args.dataloader_pin_memory and torch.cuda.is_available()

    set_seed(args.seed)
    task = prepare_run_inputs(run, data)
    trainer = make_trainer(run, args, task, trainer_class)
    if args.resume_from_checkpoint is not None:
        check_fits(args.resume_from_checkpoint, task.model)
    if args.atom:
        trainer.card_facts.update(run_facts(run, data, type(task.model).__name__))
    return Prepared(trainer, data, task)


def make_trainer(
    run: RunArguments, args: AtomTrainingArguments, task: TrainingInputs, trainer_class: type = AtomTrainer
) -> AtomTrainer:
    """The trainer of a task, with the heads that the model was trained with, if any. Raises `AtomError`."""
    name_units(task.model)
    args.remove_unused_columns = args.remove_unused_columns and task.remove_unused_columns
    if args.atom and run.model is not None:
        # A model that was trained with atoms keeps its heads, from the same commit as its weights.
        commit = getattr(task.model.config, "_commit_hash", None)
        restore_heads(task.model, find_model(run.model), explainer=False, revision=commit or run.model_revision)
    if args.atom and not isinstance(task.model, AtomMixin):
        # The seed is already set: new heads draw from the same random numbers as the model's own new layers, after these.
        attach_atoms(task.model, args.atom_config(), task.processing_class)
    with as_atom_error("--push_to_hub", str(args.hub_model_id), errors=CLIENT_ERRORS):
        trainer = trainer_class(
            model=task.model,
            args=args,
            train_dataset=task.train,
            eval_dataset=task.eval,
            data_collator=task.collator,
            processing_class=task.processing_class,
            compute_metrics=task.compute_metrics,
        )
    check_optimizer(trainer)
    if args.atom:
        trainer.check_atoms()
    return trainer


def fine_tune(
    run: RunArguments,
    args: AtomTrainingArguments,
    *,
    save: bool = True,
    explainer_samples: int = 0,
    explainer_seconds: float | None = None,
    card_samples: int = 0,
    least_logs: int = 0,
    patience: int | None = None,
    find_comparison: Callable[[TaskData], Comparison | None] | None = None,
) -> RunResult:
    """Trains, evaluates, fits the explainer on `explainer_samples` training samples, and saves.

    The explainer is fitted on fewer samples where `explainer_seconds` would not do for all of them.

    With a `patience`, training stops after that many evaluations without a better one (`StoppingArguments` checks it).

    With `save=False` no model is written at the end, and nothing is printed. The model's card shows `card_samples` evaluation
    rows. A run so short that it would log less often than `least_logs` times logs as often as that.

    `find_comparison` gives the paired runs of the same settings that the model's card may show, if there are any.

    Raises:
        AtomError: whatever is wrong with the arguments, before training starts.
    """
    with ExitStack() as holding:
        options = {"holding": holding} if save else {}
        prepared = prepare_run(run, args, save=save, trainer_class=RunTrainer, **options)
        trainer = prepared.trainer
        if least_logs:
            log_often(trainer, least_logs)
        if save:
            print_lines(trainer)
        else:
            trainer.remove_callback(PrinterCallback)
        stopping = EarlyStoppingCallback(patience) if patience else None
        if stopping is not None:
            trainer.add_callback(stopping)
        is_finished = train(trainer, args.resume_from_checkpoint, stopping)
        check_diverged(trainer, save)
        return _finish(prepared, save, is_finished, explainer_samples, explainer_seconds, card_samples, find_comparison)


def _finish(
    prepared: Prepared,
    save: bool,
    is_finished: bool,
    explainer_samples: int,
    explainer_seconds: float | None,
    card_samples: int,
    find_comparison: Callable[[TaskData], Comparison | None] | None,
) -> RunResult:
    """Evaluates a trained model, fits its explainer, saves and pushes it."""
    trainer, data, task = prepared
    args = trainer.args
    found = trainer.evaluate()
    metrics = {
        name.removeprefix("eval_"): value
        for name, value in found.items()
        if name.startswith("eval_") and not name.endswith(("runtime", "per_second"))
    }
    if data.task == "causal-lm":
        metrics["perplexity"] = perplexity(metrics["loss"])
    importance = importance_metrics(trainer, IMPORTANCE_BATCHES) if args.atom else {}
    if args.atom:
        trainer.card_facts |= {
            "metrics": {name: value for name, value in metrics.items() if name != "epoch"},
            "importance": importance,
            "importance_of": f"On up to {IMPORTANCE_BATCHES} batches of the evaluation data",
            "comparison": find_comparison(data) if find_comparison else None,
        }
        if trainer.evaluated is not None and data.labels:
            trainer.card_facts["by_class"] = class_results(*trainer.evaluated, data.labels)
    if is_finished and args.atom and explainer_samples and restore_explainer(trainer):
        explainer_samples = 0
    failed = None
    saved = save and save_trained(trainer)
    fits = args.atom and explainer_samples
    explainer = _fit_explainer(trainer, explainer_samples, explainer_seconds) if fits else None
    if save:
        if explainer is not None and saved:
            save_explainer(trainer)
        if args.atom and saved:
            save_card(trainer, data, card_samples)
        if args.push_to_hub and saved:
            failed = push_trained(trainer)
        save_results(trainer, {**metrics, **importance})
    unsaved = why_unsaved(trainer) if save else None
    return RunResult(metrics, importance, args.output_dir, data, trainer, task, explainer, failed, unsaved, saved)


def _fit_explainer(trainer: AtomTrainer, samples: int, seconds: float | None) -> ExplainerFit | None:
    """Fits the explainer if possible; otherwise says why not, in one line."""
    try:
        return trainer.fit_explainer(samples, seconds=seconds)
    except AtomError as error:
        logger.info("importance is not fitted to the prediction and stays the charge: %s", error)
    except Exception as error:  # the model is already trained: an error on masked inputs must not lose it
        why = f"{type(error).__name__}: {first_line(error)}"
        logger.warning("importance could not be fitted to the prediction and stays the charge: %s", why)
    return None


@contextmanager
def unlogged_run(run: RunArguments, args: AtomTrainingArguments, seed: int):
    """Context manager: the arguments of one run that draws its samples by the seed, without logging or saving.

    Raises `AtomError` for one that is to be pushed.
    """
    if args.push_to_hub:
        raise AtomError(
            "--push_to_hub: paired runs are measured, and their models are not kept; leave it out, train one by atom-hf train "
            "and push it there, or later by atom-hf push"
        )
    run = dataclasses.replace(run, sample_seed=run.sample_seed + seed)
    never = transformers.trainer_utils.IntervalStrategy.NO
    # Accelerate keeps the precision of the first run for the whole process; paired runs may differ in it.
    AcceleratorState._reset_state()
    hushed = {"disable_tqdm": True, "report_to": [], "logging_strategy": never, "save_strategy": SaveStrategy.NO}
    with tempfile.TemporaryDirectory() as folder:  # Trainer wants a folder, though nothing is saved
        changed = copy.copy(args)
        for name, value in {"seed": seed, "output_dir": folder, **hushed}.items():
            setattr(changed, name, value)
        yield run, changed
