"""Train a task from its recipe: bind, load, train, evaluate, save."""

import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from transformers import EarlyStoppingCallback

from ..errors import AtomError
from ..finetune.checks import check_optimizer, check_reporters, check_schedule
from ..finetune.log_lines import print_lines
from ..finetune.pretrained import find_model, load_processor
from ..finetune.resume import find_checkpoint, train
from ..training.checkpoint_parts import check_parts
from ..utils.files import check_output_folder, write_atomically
from ..utils.lock import lock_folder
from .architectures import is_architecture
from .arguments import TaskArguments
from .data_sources import data_binding, load_columns
from .drawing import draw_task
from .kinds import BATCH
from .model import TaskModel
from .recipe import Recipe
from .rows import Column, TaskRows, check_attributes, collate
from .saved_boxes import BINDINGS_NAME, bindings_text, is_saved_box
from .spec import TaskSpec
from .term_types import Types
from .terms import sides_of
from .trainer import TaskTrainer

DEFAULT_NETWORK = "mlp"

DEFAULT_FOLDER = "trainer_output"  # what TrainingArguments takes for an output_dir that was not given

METRICS_NAME, DRAWING_NAME = "metrics.json", "diagram.svg"


@dataclass
class TaskOptions:
    """What to do with a task."""

    check: bool = field(default=False, metadata={"help": "Check the task and print it."})
    draw: str | None = field(default=None, metadata={"help": "Draw the task as an SVG, to this file."})
    refines: str | None = field(
        default=None,
        metadata={
            "help": "Another task: say whether every perfect solution of FILE solves it, with a proof or a counterexample. The "
            "exit status is 0 for yes, else 1."
        },
    )
    train: bool = field(default=False, metadata={"help": "Train the task, and save what is learned."})
    bind: list[str] = field(
        default_factory=list,
        metadata={
            "help": "What boxes and data sources are, as NAME=VALUE: D=digits is a data set as --dataset of atom-hf train "
            "names it; get=vit-fashion-mnist the folder or Hub id of a model; "
            "get=runs/task-supervised:f a learner of a trained task; f=linear, f=mlp(64,64), f=conv(16,32) or "
            "f=centres a new network. A learner that is not named is mlp(128)."
        },
    )


@dataclass(frozen=True)
class Trained:
    """The result of a run."""

    trainer: TaskTrainer
    metrics: dict[str, float]
    """Those of the evaluation, without a prefix: loss, and loss_<atom> of each atom."""
    output_dir: str


def train_recipe(recipe: Recipe, args: TaskArguments, patience: int | None = None) -> Trained:
    """Trains the task of a recipe, evaluates it, and saves it to `args.output_dir`.

    With a `patience`, training stops after that many evaluations without a better one (`StoppingArguments` checks it).

    Raises:
        AtomError: whatever is wrong, before training starts.
    """
    if args.output_dir == DEFAULT_FOLDER:
        args.output_dir = os.path.join("runs", f"task-{recipe.name}")
    check_output_folder(args.output_dir)
    check_reporters(args)
    check_schedule(args)
    with ExitStack() as holding:
        if args.process_index == 0:
            holding.enter_context(lock_folder(args.output_dir))
        checkpoint = find_checkpoint(args, save=True)
        if checkpoint is not None:
            check_parts(checkpoint)
        args.dataloader_pin_memory = args.dataloader_pin_memory and torch.cuda.is_available()
        transformers.set_seed(args.seed)
        trainer = make_trainer(recipe, args)
        print_lines(trainer)
        stopping = EarlyStoppingCallback(patience) if patience else None
        if stopping is not None:
            trainer.add_callback(stopping)
        train(trainer, checkpoint, stopping)
        found = trainer.evaluate()
        left_out = ("runtime", "per_second")
        metrics = {name.removeprefix("eval_"): value for name, value in found.items() if not name.endswith(left_out)}
        if trainer.is_world_process_zero():
            save(trainer, recipe, metrics)
    return Trained(trainer, metrics, args.output_dir)


def make_trainer(recipe: Recipe, args: TaskArguments) -> TaskTrainer:
    """The trainer of a recipe, with its data. Raises `AtomError`."""
    spec = recipe.spec
    boxes: dict[str, Any] = {name: DEFAULT_NETWORK for name in spec.learners}
    model = TaskModel(spec, {**boxes, **recipe.bind})
    tokenizer = find_tokenizer(spec, recipe.bind)
    columns = load_data_sources(spec, recipe.data, tokenizer)
    rows = [TaskRows({name: both[part] for name, both in columns.items()}, args.seed) for part in (0, 1)]
    check_attributes(spec, rows[0])
    check_batch(spec, args.train_batch_size * max(args.world_size, 1))
    trainer = TaskTrainer(model, args, train_dataset=rows[0], eval_dataset=rows[1], data_collator=collate)
    check_optimizer(trainer)
    metric = (args.metric_for_best_model or "loss").removeprefix("eval_")
    if metric not in (known := ["loss", *(f"loss_{name}" for name in spec.atoms)]):
        raise AtomError(f"--metric_for_best_model {metric!r} is not measured; give one of {', '.join(known)}")
    trainer.create_optimizer()  # refuses one that makes its own groups
    return trainer


def load_data_sources(
    spec: TaskSpec, data: Mapping[str, Any], tokenizer: Any
) -> dict[str, tuple[list[Column], list[Column]]]:
    """(columns to train on, to evaluate on) of each data source. Raises `AtomError`."""
    found = {}
    for name, source in spec.sources.items():
        if source.is_data:
            if name not in data:
                raise AtomError(
                    f"data {name}: no data set is bound to it; give --bind {name}=digits, or another data set"
                )
            found[name] = load_columns(source, data_binding(name, data[name]), tokenizer)
    if not found:
        raise AtomError("the task has no data source, and is trained on rows; declare one")
    return found


def find_tokenizer(spec: TaskSpec, bind: Mapping[str, str]) -> Any:
    """The tokenizer of the models that take texts, which all share it; None if there are none. Raises `AtomError`."""
    first = None
    for name, box in spec.boxes.items():
        path = bind.get(name, box.path)
        if (
            path is None
            or is_architecture(path)
            or is_saved_box(path)
            or not any(wire.kind.name == "tokens" for wire in box.inputs)
        ):
            continue
        tokenizer = load_processor(find_model(path), False, flag=f"{box.role} {name}:")
        if first is not None and tokenizer.get_vocab() != first[1].get_vocab():
            raise AtomError(
                f"{first[0]} and {name} have tokenizers that differ, and take the same texts; bind models of one tokenizer"
            )
        first = first or (name, tokenizer)
    return None if first is None else first[1]


def check_batch(spec: TaskSpec, rows: int) -> None:
    """Raises `AtomError` for batches in which a `~` could not compare two rows of each class."""
    for atom in spec.atoms.values():
        if atom.relation != "~" or atom.weight == 0:
            continue
        kinds = [Types(spec).of(term).kind for term in sides_of(spec, atom).right]
        least = 2 * max([1, *(kind.sizes[0] for kind in kinds if kind.name == "class" and kind.sizes != (BATCH,))])
        if rows < least:
            raise AtomError(
                f"{atom.name}: ~ compares at least two rows of each class in a batch, and a batch has {rows} rows; give "
                f"--per_device_train_batch_size {least} or more"
            )


def save(trainer: TaskTrainer, recipe: Recipe, metrics: Mapping[str, float]) -> None:
    """Write the task, what is learned, how it was bound, its drawing and its metrics to the output folder."""
    folder = trainer.args.output_dir
    trainer.model.save(folder)
    bind = {**{name: DEFAULT_NETWORK for name in recipe.spec.learners}, **recipe.bind}
    write_atomically(os.path.join(folder, BINDINGS_NAME), bindings_text(recipe.data, bind))
    write_atomically(os.path.join(folder, METRICS_NAME), json.dumps(dict(metrics), indent=1) + "\n")
    write_atomically(os.path.join(folder, DRAWING_NAME), draw_task(recipe.spec))
    trainer.state.save_to_json(os.path.join(folder, "trainer_state.json"))
