"""Check a run's reporters, schedule, optimizer and metric before it starts.

Trainer looks them up when it first uses them: after loading, or, for a metric, after the first evaluation.
"""

from typing import Any

import torch
from torch import nn
from transformers import TrainingArguments, get_scheduler
from transformers.integrations import INTEGRATION_TO_CALLBACK, integration_utils

from ..errors import AtomError, first_line
from .metrics import CLASSIFICATION_METRICS

# Where `is_NAME_available` of Transformers has another name than the reporter.
_AVAILABLE = {"azure_ml": "azureml", "comet_ml": "comet", "flyte": "flytekit"}

_TIMES = ("runtime", "samples_per_second", "steps_per_second")


def check_reporters(args: TrainingArguments) -> None:
    """Raises `AtomError` for a reporter that does not exist or is not installed."""
    for name in args.report_to:
        if name not in INTEGRATION_TO_CALLBACK:
            raise AtomError(
                f"--report_to {name!r} does not exist; give none, or one of {', '.join(INTEGRATION_TO_CALLBACK)}"
            )
        # Asked, not made: some that are made without their package complain again when they are collected.
        is_there = getattr(integration_utils, f"is_{_AVAILABLE.get(name, name)}_available", lambda: True)
        if not is_there():
            raise AtomError(f"--report_to {name}: {name} is not installed; install it, or give --report_to none")


def check_schedule(args: TrainingArguments) -> None:
    """Raises `AtomError` for a schedule that cannot be made with its options and the learning rate."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=args.learning_rate)
    kind, options = args.lr_scheduler_type, args.lr_scheduler_kwargs
    try:
        get_scheduler(kind, optimizer, 0, 100, options)
    except Exception as error:  # a schedule of unknown options raises what Python or PyTorch does
        raise AtomError(
            f"--lr_scheduler_type {kind.value} cannot be used with --lr_scheduler_kwargs {options!r} and --learning_rate "
            f"{args.learning_rate}: {first_line(error)}"
        ) from error


def check_optimizer(trainer: Any) -> None:
    """Raises `AtomError` for an optimizer that is not installed, or whose options do not fit."""
    args = trainer.args
    try:
        trainer.get_optimizer_cls_and_kwargs(args, trainer.model)
    except Exception as error:  # each has its own way of saying that its package is missing
        raise AtomError(
            f"--optim {args.optim.value} cannot be used: {first_line(error)}; install what it needs, or give another"
        ) from error


def check_metric(args: TrainingArguments, task: str) -> None:
    """Raises `AtomError` for a --metric_for_best_model that the evaluation does not give."""
    name = args.metric_for_best_model
    known = ["loss", *([] if task == "causal-lm" else CLASSIFICATION_METRICS)]
    if name is not None and name.removeprefix("eval_") not in (*known, *_TIMES):
        raise AtomError(f"--metric_for_best_model {name!r} is not measured for {task}; give one of {', '.join(known)}")
