"""One fine-tuning run from its arguments: what `atom-hf train` does, once for each call."""

import logging
import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import PrinterCallback, set_seed

from .arguments import AtomTrainingArguments
from .attaching import attach_atoms
from .builtin import BUILT_IN_DATASETS, BUILT_IN_MODELS
from .card import Comparison
from .card_facts import base_facts
from .data import TASKS, TaskData, load_data
from .errors import AtomError, first_line
from .folders import check_output_folder
from .hub import CLIENT_ERRORS, in_words
from .loading import restore_heads
from .modeling import AtomMixin
from .repository import check_repository, check_token
from .sharding import check_processes, name_units
from .sources import short_name
from .tasks import Task, find_model, perplexity, prepare_task
from .tie import Tie
from .trainer import AtomTrainer

logger = logging.getLogger(__name__)

DEFAULT_FOLDER = "trainer_output"  # what TrainingArguments takes for an output_dir that was not given


def _flag(help: str, default: Any = None) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass
class RunArguments:
    """What is trained, and on which data. Everything else is in `AtomTrainingArguments`."""

    model: str | None = _flag("The checkpoint: a Hub id, a folder, or one of " + ", ".join(BUILT_IN_MODELS) + ".")
    dataset: str | None = _flag(
        "The data: a Hub id, a folder of images, a csv, tsv, jsonl, parquet or npz file or folder, or one of "
        + ", ".join(BUILT_IN_DATASETS)
        + "."
    )
    task: str | None = _flag("One of " + ", ".join(TASKS) + "; found from the data if not given.")
    dataset_config: str | None = _flag("The configuration of a Hub data set, such as cola of nyu-mll/glue.")
    eval_dataset: str | None = _flag("Data to evaluate on, if not a split of --dataset: named in the same way.")
    train_split: str | None = _flag("The split to train on; train if there is one.")
    eval_split: str | None = _flag("The split to evaluate on; validation or test if there is one, else rows held out.")
    eval_fraction: float = _flag("The fraction of rows held out for evaluation where there is no split for it.", 0.2)
    hold_out: bool = _flag("Hold rows out even where there is a split to evaluate on: to choose settings by.", False)
    text_column: str | None = _flag("The column of texts; found if not given.")
    text_pair_column: str | None = _flag("The column of second texts, for pairs; found if not given.")
    image_column: str | None = _flag("The column of images; found if not given.")
    label_column: str | None = _flag("The column of labels; found if not given.")
    max_train_samples: int | None = _flag(
        "Train on this many samples, drawn in proportion to the classes with --sample_seed."
    )
    max_eval_samples: int | None = _flag("Evaluate on this many samples, drawn likewise.")
    sample_seed: int = _flag("Seed of the drawing of samples and of held-out rows.", 0)
    max_length: int = _flag("Texts are cut after this many tokens.", 128)
    horizontal_flip: bool = _flag("Mirror training images at random.", False)
    model_type: str | None = _flag("Start from nothing with this model type of Transformers (vit, bert, gpt2, ...).")
    config_overrides: str | None = _flag("name=value,name=value, or JSON, for the model's configuration.")
    tokenizer: str | None = _flag("A tokenizer other than the model's: a Hub id or a folder.")
    vocabulary_size: int = _flag("With --model_type: size of the byte-level BPE trained on the training texts.", 4000)
    model_revision: str | None = _flag("A branch, tag or commit of the model on the Hub.")


IMPORTANCE_BATCHES = 32
IMPORTANCE_KEYS = ("importance", "positive_share", "negative_share")


@dataclass(frozen=True)
class Outcome:
    """What a run ended with."""

    metrics: dict[str, float]
    """The task's metrics on the evaluation data, without a prefix: loss, accuracy, f1, mcc; or loss, perplexity."""
    importance: dict[str, float]
    """With the flag on: mean |importance| and the shares of either sign, over the first batches of the evaluation data."""
    output_dir: str
    data: TaskData
    trainer: AtomTrainer
    tie: Tie | None = None
    """How far importance could be tied to the prediction, if that was asked for and could be done."""
    push_error: str | None = None
    """Why the model, which is saved, could not be pushed in the end."""


def default_output_dir(run: RunArguments, data: TaskData, atom: bool) -> str:
    """`runs/<data>-<model>-<atom or plain>`."""
    model = run.model or f"new-{run.model_type}"
    return os.path.join("runs", f"{data.name}-{os.path.basename(model.rstrip('/'))}-{'atom' if atom else 'plain'}")


class Prepared(NamedTuple):
    """All that a run needs before it trains."""

    trainer: AtomTrainer
    data: TaskData
    task: Task


def prepare_run(
    run: RunArguments, args: AtomTrainingArguments, *, save: bool = True, trainer_class: type = AtomTrainer
) -> Prepared:
    """Everything up to training: the data, and the trainer (a subclass of AtomTrainer, if given) with its model.

    Raises:
        AtomError: whatever is wrong with the arguments, before training starts.
    """
    check_processes(args)
    if args.atom:
        args.atom_config()  # refuses bad values before anything is loaded
    if args.push_to_hub:
        check_token(args.hub_token)
        if args.hub_model_id is not None:
            check_repository(args.hub_model_id, "--hub_model_id")
    with args.main_process_first(desc="loading data"):
        data = load_run_data(run)
    if args.output_dir == DEFAULT_FOLDER:
        args.output_dir = default_output_dir(run, data, args.atom)
    args.resume_from_checkpoint = _checkpoint(args, save)
    # Pinned memory serves the copy to an accelerator; without one it only warns.
    args.dataloader_pin_memory = args.dataloader_pin_memory and torch.cuda.is_available()

    set_seed(args.seed)
    task = prepare_task(
        data,
        model=run.model,
        model_type=run.model_type,
        config_overrides=run.config_overrides,
        tokenizer=run.tokenizer,
        vocabulary_size=run.vocabulary_size,
        max_length=run.max_length,
        horizontal_flip=run.horizontal_flip,
        **({"revision": run.model_revision} if run.model_revision else {}),
    )
    trainer = make_trainer(run, args, task, trainer_class)
    if args.atom:
        trainer.card_facts.update(run_facts(run, data, type(task.model).__name__))
    return Prepared(trainer, data, task)


def make_trainer(
    run: RunArguments, args: AtomTrainingArguments, task: Task, trainer_class: type = AtomTrainer
) -> AtomTrainer:
    """The trainer of a task, with the heads that the model was trained with, if any. Raises `AtomError`."""
    name_units(task.model)
    args.remove_unused_columns = args.remove_unused_columns and task.remove_unused_columns
    if args.atom and run.model is not None:
        # A model that was trained with atoms goes on with its heads, those of the very commit that it was read from.
        commit = getattr(task.model.config, "_commit_hash", None)
        restore_heads(task.model, find_model(run.model), tied=False, revision=commit or run.model_revision)
    if args.atom and not isinstance(task.model, AtomMixin):
        # The seed is set already: new heads go on with the random numbers that the model's own new layers were drawn from.
        attach_atoms(task.model, args.atom_config(), task.processing_class)
    with in_words("--push_to_hub", str(args.hub_model_id), errors=CLIENT_ERRORS):
        trainer = trainer_class(
            model=task.model,
            args=args,
            train_dataset=task.train,
            eval_dataset=task.eval,
            data_collator=task.collator,
            processing_class=task.processing_class,
            compute_metrics=task.compute_metrics,
        )
    if args.atom:
        trainer.check_atoms()
    return trainer


def fine_tune(
    run: RunArguments,
    args: AtomTrainingArguments,
    *,
    save: bool = True,
    tie_samples: int = 0,
    find_comparison: Callable[[TaskData], Comparison | None] | None = None,
) -> Outcome:
    """Trains, evaluates, ties importance to the prediction by `tie_samples` training samples, and saves.

    With `save=False` no model is written at the end, and nothing is printed.

    `find_comparison` gives the paired runs of the same settings that the model's card may show, if there are any.

    Raises:
        AtomError: whatever is wrong with the arguments, before training starts.
    """
    trainer, data, _ = prepare_run(run, args, save=save)
    if not save:
        trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    found = trainer.evaluate()
    metrics = {
        name.removeprefix("eval_"): value
        for name, value in found.items()
        if name.startswith("eval_") and not name.endswith(("runtime", "per_second"))
    }
    if data.task == "causal-lm":
        metrics["perplexity"] = perplexity(metrics["loss"])
    importance = _importance(trainer) if args.atom else {}
    if args.atom:
        trainer.card_facts |= {
            "metrics": {name: value for name, value in metrics.items() if name != "epoch"},
            "importance": importance,
            "importance_of": f"On up to {IMPORTANCE_BATCHES} batches of the evaluation data",
            "comparison": find_comparison(data) if find_comparison else None,
        }
    failed = None
    if save:
        if trainer.is_fsdp_enabled:  # whatever form its checkpoints have, the model at the end is whole
            trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
        trainer.save_model(
            _internal_call=True
        )  # without a push, which may fail, and before a fit that may be broken off
    tie = _tie(trainer, tie_samples) if args.atom and tie_samples else None
    if save:
        if tie is not None:
            trainer.save_model(_internal_call=True)
        if args.push_to_hub:
            failed = _push(trainer)
        trainer.save_state()
        trainer.save_metrics("eval", {**metrics, **importance})
    return Outcome(metrics, importance, args.output_dir, data, trainer, tie, failed)


def _tie(trainer: AtomTrainer, samples: int) -> Tie | None:
    """Ties importance where that can be done; says in a line why it cannot."""
    try:
        return trainer.tie_importance(samples)
    except AtomError as error:
        logger.info("importance is not tied to the prediction, and stays the charge: %s", error)
    except Exception as error:  # the model is trained, and what it makes of erased inputs shows in many ways
        why = f"{type(error).__name__}: {first_line(error)}"
        logger.warning("importance could not be tied to the prediction, and stays the charge: %s", why)
    return None


def _push(trainer: AtomTrainer) -> str | None:
    """Pushes as `save_model` would. Returns why it could not, in one line, and what would do."""
    folder, name = trainer.args.output_dir, str(trainer.hub_model_id)
    try:
        with in_words("--push_to_hub", name, errors=CLIENT_ERRORS):
            trainer.push_to_hub(commit_message="Model save", revision=trainer.args.hub_revision)
    except AtomError as error:
        again = ["atom-hf", "push", folder, "--repo", name] if trainer.args.atom else ["hf", "upload", name, folder]
        if trainer.args.hub_revision:
            again += ["--revision", trainer.args.hub_revision]
        return f"{error}; the model is saved in {folder}, and `{shlex.join(again)}` pushes it"
    return None


GPT2_LOSS = (
    "Loss and perplexity are Trainer's, which divides a GPT-2's by one token too many per text (Transformers 5.23)."
)


def run_facts(run: RunArguments, data: TaskData, model_class: str) -> dict[str, Any]:
    """What the arguments and the data say of a model that no trainer knows, by the names of `CardFacts`."""
    found = {"from_nothing": True} if run.model is None else base_facts(run.model)
    if _is_named_by_id(run.dataset):
        found |= {"dataset_id": run.dataset, "dataset_config": run.dataset_config or None}
    if run.eval_dataset:
        found["eval_dataset"] = short_name(run.eval_dataset, None)
        found["eval_dataset_id"] = run.eval_dataset if _is_named_by_id(run.eval_dataset) else None
    notes = []
    if run.max_train_samples or run.max_eval_samples or data.splits[1] is None:
        how = "in proportion to the classes, " if data.labels else ""
        notes.append(f"Samples were drawn {how}with seed {run.sample_seed}.")
    if data.splits[1] is None:
        notes.append("The evaluation samples were held out of the same split.")
    if not data.is_image:
        notes.append(f"Texts were cut after {run.max_length} tokens.")
    if run.horizontal_flip:
        notes.append("Training images were mirrored at random.")
    is_lm = data.task == "causal-lm"
    return {
        **found,
        "dataset": data.name,
        "train_split": data.splits[0],
        "eval_split": data.splits[1],
        # As many as were asked for: whether the split has more is not known here.
        "eval_is_part": run.max_eval_samples is not None and len(data.eval) >= run.max_eval_samples,
        "train_samples": len(data.train),
        "eval_samples": len(data.eval),
        "labels": data.labels,
        "data_notes": notes,
        "metric_names": {} if is_lm else {"f1": "F1 (mean over classes)", "mcc": "Matthews correlation"},
        "limits": [GPT2_LOSS] if model_class == "GPT2LMHeadModel" else [],
    }


def _is_named_by_id(dataset: str) -> bool:
    return dataset not in BUILT_IN_DATASETS and not Path(dataset).expanduser().exists()


DATA_FIELDS = [
    *("task", "dataset_config", "eval_dataset", "train_split", "eval_split", "eval_fraction", "hold_out"),
    *("text_column", "text_pair_column", "image_column", "label_column"),
    *("max_train_samples", "max_eval_samples", "sample_seed"),
]


def load_run_data(run: RunArguments) -> TaskData:
    """The data that the arguments name."""
    if run.dataset is None:
        raise AtomError("give --dataset: a Hub id, a file or folder, or one of " + ", ".join(BUILT_IN_DATASETS))
    return load_data(run.dataset, **{name: getattr(run, name) for name in DATA_FIELDS})


def data_flags(run: RunArguments) -> list[str]:
    """The flags that name the same data again."""
    changed = [f for f in fields(run) if f.name in ("dataset", *DATA_FIELDS) and getattr(run, f.name) != f.default]
    return [part for f in changed for part in (f"--{f.name}", str(getattr(run, f.name)))]


def _checkpoint(args: AtomTrainingArguments, save: bool) -> str | None:
    """Where to resume from, if anywhere. Refuses a folder with another run in it."""
    folder = args.output_dir
    check_output_folder(folder)
    resume = args.resume_from_checkpoint
    if resume and str(resume).lower() not in ("true", "1", "false"):
        if not os.path.isfile(os.path.join(resume, "trainer_state.json")):
            raise AtomError(f"--resume_from_checkpoint {resume!r} is not a checkpoint folder; true takes the last one")
        return resume
    last = _last_checkpoint(folder)
    if resume and str(resume).lower() != "false":
        if last is None:
            raise AtomError(
                f"--resume_from_checkpoint: {folder} holds no checkpoint to resume from; leave the flag out"
            )
        return last
    signs = ("config.json", "model.safetensors", "trainer_state.json", "results.jsonl")
    if last is not None or (save and any(os.path.exists(os.path.join(folder, name)) for name in signs)):
        raise AtomError(
            f"--output_dir {folder!r} holds another run; go on with it by --resume_from_checkpoint true, "
            "or give another --output_dir"
        )
    return None


def _last_checkpoint(folder: str) -> str | None:
    """The last checkpoint that was written to its end; Trainer writes its state last."""
    found = []
    for path in Path(folder).glob("checkpoint-*"):
        number = path.name.removeprefix("checkpoint-")
        if number.isdigit() and (path / "trainer_state.json").is_file():
            found.append((int(number), str(path)))
        else:
            logger.warning("%s was not written to its end and is passed over", path)
    return max(found)[1] if found else None


def _importance(trainer: AtomTrainer, batches: int = IMPORTANCE_BATCHES) -> dict[str, float]:
    """Over the first `batches` batches of the evaluation data."""
    found = []
    model = trainer.accelerator.unwrap_model(trainer.model)
    for _, batch in zip(range(batches), trainer.get_eval_dataloader(), strict=False):
        values = model.atom_importance(**batch)
        found.append(values[~values.isnan()].cpu())
    values = torch.cat(found)
    shares = values.abs(), (values > 0).float(), (values < 0).float()
    return {name: share.mean().item() for name, share in zip(IMPORTANCE_KEYS, shares, strict=True)}
