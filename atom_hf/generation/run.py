"""`atom-hf train --task unconditional-image-generation`: data, denoiser, training, evaluation, saving."""

import os
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from transformers import EarlyStoppingCallback, default_data_collator

from ..data.columns import GENERATION
from ..data.load import TaskData
from ..data.pictures import check_pictures
from ..errors import AtomError
from ..finetune.arguments import RunArguments, load_named_data
from ..finetune.checks import check_optimizer, check_reporters, check_schedule
from ..finetune.log_lines import log_often, print_lines
from ..finetune.resume import find_checkpoint, train
from ..finetune.run import DEFAULT_FOLDER
from ..finetune.saving import check_diverged, save_results, save_trained, why_unsaved
from ..modeling.load_denoiser import import_diffusers
from ..training.arguments import AtomTrainingArguments, check_processes
from ..training.checkpoint_parts import check_fits, check_parts
from ..utils.files import check_output_folder
from ..utils.lock import lock_folder
from .arguments import OBJECTIVES, GenerationArguments
from .card import write_generator_card
from .denoisers import INDEX_NAME, load_pipeline, make_denoiser, make_scheduler
from .images import ImageRows
from .objective import DenoisingObjective
from .sampling import sample_images, write_grid
from .trainer import DenoisingTrainer

SAMPLES_NAME, SHOWN, SHOWN_STEPS = "samples.png", 16, 50

FEWEST = 2  # images to train on


@dataclass(frozen=True)
class GenerationResult:
    """The result of a run."""

    trainer: DenoisingTrainer
    data: TaskData
    metrics: dict[str, float]
    """Of the evaluation, without a prefix: loss."""
    output_dir: str


def train_generator(
    run: RunArguments,
    args: AtomTrainingArguments,
    options: GenerationArguments,
    least_logs: int = 0,
    patience: int | None = None,
) -> GenerationResult:
    """Trains a denoiser, evaluates it, samples from it and saves it to `args.output_dir`, as a pipeline of diffusers.

    Raises:
        AtomError: whatever is wrong with the arguments, before training starts.
        DivergedError: the weights or the samples are not finite numbers in the end.
    """
    if options.objective not in OBJECTIVES:
        raise AtomError(f"--objective must be {' or '.join(OBJECTIVES)}; got {options.objective!r}")
    import_diffusers()
    check_processes(args)
    if args.atom:
        args.atom_config()
    _check_flags(run, args)
    check_reporters(args)
    check_schedule(args)
    with args.main_process_first(desc="loading data"):
        data = load_named_data(run, task="image-classification" if options.class_conditional else GENERATION)
    if args.output_dir == DEFAULT_FOLDER:
        args.output_dir = os.path.join("runs", f"{data.name}-{options.objective}-{'atom' if args.atom else 'plain'}")
    check_output_folder(args.output_dir)
    with ExitStack() as holding:
        if args.process_index == 0:
            holding.enter_context(lock_folder(args.output_dir))
        trainer = _prepare(run, args, options, data)
        print_lines(trainer)
        log_often(trainer, least_logs)
        stopping = EarlyStoppingCallback(patience) if patience else None
        if stopping is not None:
            trainer.add_callback(stopping)
        train(trainer, args.resume_from_checkpoint, stopping)
        check_diverged(trainer, save=True, again="go on from there by --resume_from_checkpoint")
        found = trainer.evaluate()
        metrics = {"loss": found["eval_loss"]}
        save_trained(trainer)
        save_results(trainer, found)
        if trainer.is_world_process_zero():
            _show(trainer, run, options, data, metrics)
    if why := why_unsaved(trainer):
        raise AtomError(why)
    return GenerationResult(trainer, data, metrics, args.output_dir)


def _check_flags(run: RunArguments, args: AtomTrainingArguments) -> None:
    for name in ("model_type", "model_revision", "tokenizer"):
        if getattr(run, name) is not None:
            raise AtomError(
                f"--{name} is not for --task {GENERATION}: give --model the folder of a pipeline, or leave it out for a new one"
            )
    if run.model is not None and run.config_overrides:
        raise AtomError("--config_overrides: the pipeline that --model names has its own sizes; leave one of them out")
    if args.push_to_hub:
        raise AtomError(
            f"--push_to_hub is not for --task {GENERATION}: push the saved folder by DDPMPipeline.push_to_hub, or hf upload"
        )
    metric = args.metric_for_best_model
    if metric is not None and metric.removeprefix("eval_") != "loss":
        raise AtomError(f"--metric_for_best_model {metric!r} is not measured for {GENERATION}; give loss")


def _prepare(
    run: RunArguments, args: AtomTrainingArguments, options: GenerationArguments, data: TaskData
) -> DenoisingTrainer:
    """Everything up to training. Raises `AtomError`."""
    checkpoint = args.resume_from_checkpoint = find_checkpoint(args, save=True)
    if checkpoint is None and os.path.exists(os.path.join(args.output_dir, INDEX_NAME)):
        raise AtomError(f"--output_dir {args.output_dir!r} holds another model; give another --output_dir")
    if checkpoint is not None:
        check_parts(checkpoint)
    if len(data.train) < FEWEST:
        raise AtomError(f"--dataset {run.dataset!r} has {len(data.train)} image to train on; give {FEWEST} or more")
    args.dataloader_pin_memory = args.dataloader_pin_memory and torch.cuda.is_available()
    args.remove_unused_columns, args.prediction_loss_only = False, True
    args.label_names = ["labels"] if options.class_conditional else []
    transformers.set_seed(args.seed)
    classes = len(data.labels) if options.class_conditional else None
    if run.model is not None:
        denoiser, scheduler = load_pipeline(run.model)
        _check_model(run, options, denoiser, scheduler, classes)
    else:
        first = data.train[0]["image"]
        size = options.image_size or min(first.size)
        denoiser = make_denoiser(size, 1 if first.mode in ("1", "L", "I", "F") else 3, classes, run.config_overrides)
        scheduler = make_scheduler(options.objective)
    config = denoiser.config
    size = config.sample_size if isinstance(config.sample_size, tuple | list) else (config.sample_size,) * 2
    check_pictures([data.train, data.eval], _Channels(config.in_channels))
    rows = [
        ImageRows(part, tuple(size), config.in_channels, labelled=options.class_conditional, flip=flip)
        for part, flip in ((data.train, run.horizontal_flip), (data.eval, False))
    ]
    trainer = DenoisingTrainer(
        model=DenoisingObjective(denoiser, scheduler),
        args=args,
        train_dataset=rows[0],
        eval_dataset=rows[1],
        data_collator=default_data_collator,
        ema_decay=options.ema_decay,
    )
    check_optimizer(trainer)
    if checkpoint is not None:
        check_fits(checkpoint, trainer.model)
    return trainer


@dataclass(frozen=True)
class _Channels:
    """What `check_pictures` asks of a model's configuration."""

    num_channels: int


def _check_model(
    run: RunArguments, options: GenerationArguments, denoiser: Any, scheduler: Any, classes: int | None
) -> None:
    """Reject a saved denoiser that does not fit the flags."""
    config = denoiser.config
    size, given = config.sample_size, options.image_size
    if given is not None and given != size:
        raise AtomError(f"--image_size {given}: the denoiser in {run.model!r} is for images of {size}; leave it out")
    if config.in_channels not in (1, 3):
        raise AtomError(f"--model {run.model!r} takes {config.in_channels} channels; images have 1 or 3")
    if (config.num_class_embeds or None) != classes:
        has = config.num_class_embeds or "no"
        wants = f"{classes} classes" if classes else "--class_conditional is not given"
        raise AtomError(f"--model {run.model!r} is conditional on {has} classes, and the data: {wants}")
    is_flow = hasattr(scheduler, "scale_noise")
    if is_flow != (options.objective == "flow"):
        raise AtomError(f"--objective {options.objective}: {run.model!r} was trained with the other; give that one")


def _show(
    trainer: DenoisingTrainer,
    run: RunArguments,
    options: GenerationArguments,
    data: TaskData,
    metrics: dict[str, float],
) -> None:
    """Write a grid of samples and the card beside the pipeline."""
    labels = None
    if options.class_conditional:
        labels = [number % len(data.labels) for number in range(SHOWN)]
    objective, folder = trainer.objective, trainer.args.output_dir
    with trainer.averaged():
        images = sample_images(
            objective.denoiser, objective.scheduler, SHOWN, steps=SHOWN_STEPS, seed=trainer.args.seed, labels=labels
        )
    write_grid(images, os.path.join(folder, SAMPLES_NAME))
    write_generator_card(trainer, run, options, data, metrics, SAMPLES_NAME)
