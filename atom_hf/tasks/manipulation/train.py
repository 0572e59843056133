"""Make a manipulator of a classifier and rows: a sparring copy first, then the editor."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from ...errors import AtomError
from ...finetune.log_lines import log_often, print_lines
from ...finetune.resume import find_checkpoint
from ...finetune.resume import train as train_from
from ...utils.quiet import quiet
from ..command import check_batch
from ..model import TaskModel
from ..rows import collate
from ..saved_boxes import is_saved_box
from ..trainer import TaskTrainer
from .arguments import ManipulatorArguments
from .classifier import Classifier, Standardized, load_classifier
from .config import ManipulatorConfig
from .equations import atom_weights, manipulation_task
from .manipulator import Manipulator
from .put import PUTS, WIDTHS, make_put
from .rows import LabelledRows
from .sparring import FILE_NAME, fresh_copy, input_range, sigmas_to_try, sparring_copy


def manipulate(
    classifier: Classifier | str,
    train: LabelledRows,
    held_out: LabelledRows,
    *,
    labels: Sequence[str] | None = None,
    put: str | None = None,
    hidden_sizes: Sequence[int] | None = None,
    weights: Sequence[float] | None = None,
    sigma: str | float = "auto",
    dataset: str | None = None,
    args: ManipulatorArguments | None = None,
) -> Manipulator:
    """Turn a classifier into an editor.

    Args:
        classifier: the folder or Hub id of an image classifier, a learner of a trained task, or a `Classifier`.
        train: the rows to train on.
        held_out: others, on which the noise of the sparring copy is chosen. Judge the editor on yet others.
        labels: the names of the classes; their ids by default.
        put: the network: "steer" (images) or "residual" (vectors); by the rows if not given.
        hidden_sizes: its widths.
        weights: of putget, getput, undo and law, and optionally of putput; 1, 10, 10, 0.3 for images and 1, 1, 1, 0.3 for
            vectors if not given.
        sigma: "auto", or the noise of the sparring copy, of the range of the rows; 0 for none.
        dataset: the name of the data, for the card.
        args: how to train; its folder keeps the checkpoints.

    Raises:
        AtomError: whatever is wrong, before training starts; a loss that is not a finite number.
    """
    kind = train.kind
    if held_out.kind != kind or not len(held_out):
        raise AtomError(
            f"held_out: give one or more rows of {kind}, as in train; got {len(held_out)} of {held_out.kind}"
        )
    if labels is None:
        labels = classifier.labels if isinstance(classifier, Classifier) else _names(train, held_out)
    if isinstance(classifier, str):
        classifier = load_classifier(classifier, kind, labels)
    if list(labels) != list(classifier.labels):
        raise AtomError(
            f"labels: the classes of the classifier are {', '.join(classifier.labels)}; give rows with ids of this order, and "
            "these labels"
        )
    if len(labels) < 2:
        raise AtomError("labels: there is one class, and nothing to turn it into; give rows of two or more")
    name = put or next(name for name, edits in PUTS.items() if edits == kind.name)
    widths = WIDTHS.get(name, ()) if hidden_sizes is None else hidden_sizes
    weighed, sigmas = atom_weights(kind, weights), sigmas_to_try(sigma)
    spec = manipulation_task(kind, len(labels), weighed)
    args = (args or ManipulatorArguments("trainer_output")).with_rate(kind.name)
    transformers.set_seed(args.seed)
    editor = make_put(name, kind, len(labels), widths)
    check_batch(spec, min(args.train_batch_size, len(train)))
    if args.world_size > 1:
        raise AtomError("a manipulator is trained in one process; start it without accelerate or torchrun")
    checkpoint = find_checkpoint(args, save=True)
    args.dataloader_pin_memory = args.dataloader_pin_memory and torch.cuda.is_available()
    get, inner = _standardized(classifier, train)
    get = get.to(args.device).eval()
    sparring = sparring_copy(get, inner(train), inner(held_out), sigmas, args)
    transformers.set_seed(args.seed)
    model = TaskModel(spec, {"get": fresh_copy(sparring.module), "put": editor})
    trainer = TaskTrainer(model, args, train_dataset=inner(train).as_task_rows(args.seed), data_collator=collate)
    print_lines(trainer)
    args.resume_from_checkpoint = checkpoint
    log_often(trainer, 10)
    train_from(trainer, checkpoint)
    config = ManipulatorConfig(
        put=name,
        data_sizes=list(kind.sizes),
        hidden_sizes=list(widths),
        classifier=dict(classifier.form),
        classifier_name=shown_name(classifier.name),
        classifier_revision=classifier.revision,
        classifier_hash=classifier.weights_hash,
        noise_std=sparring.sigma * input_range(inner(train)),
        weights=dict(weighed),
        dataset=dataset,
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
    )
    with quiet():
        manipulator = Manipulator(config)
    manipulator.put.load_state_dict(model.boxes["put"].state_dict())
    manipulator.get.load_state_dict(sparring.module.state_dict())
    return manipulator.to(args.device).eval()


def forget_sparring(folder: str | os.PathLike) -> None:
    """Remove the sparring copy that a run keeps in its folder until the manipulator, which holds it, is saved."""
    Path(folder, FILE_NAME).unlink(missing_ok=True)


def _names(*parts: LabelledRows) -> list[str]:
    return [str(number) for number in range(max(int(part.labels.max()) for part in parts) + 1)]


def shown_name(name: str) -> str | None:
    """The Hub id, or the name of the folder (and of the learner in it): never a path."""
    folder, colon, learner = name.rpartition(":") if is_saved_box(name) else (name, "", "")
    return (Path(folder).name if Path(folder).exists() else folder) + colon + learner or None


def _standardized(classifier: Classifier, train: LabelledRows) -> tuple[torch.nn.Module, Any]:
    """The classifier and the function of rows with which it reads vectors whose coordinates are about 1."""
    module = fresh_copy(classifier.module)
    if train.kind.name != "vector":
        return module, lambda rows: rows
    get, values = Standardized(module, train.kind.values), train.floats
    get.center.copy_(values.mean(0))
    get.scale.copy_((values - values.mean(0)).square().mean().sqrt().clamp(min=1e-8))
    center, scale = get.center.clone(), get.scale.clone()
    return get, lambda rows: LabelledRows((rows.floats - center) / scale, rows.labels)
