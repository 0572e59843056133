"""Choices by name that a run cannot use: said in one line, before anything is trained."""

import re

import numpy as np
import pytest
from transformers import EvalPrediction
from transformers.integrations import INTEGRATION_TO_CALLBACK, integration_utils

from atom_hf import AtomError, AtomTrainer, AtomTrainingArguments
from atom_hf.finetune.checks import check_metric, check_optimizer, check_reporters, check_schedule
from atom_hf.finetune.metrics import CLASSIFICATION_METRICS, classification_metrics
from helpers.commands import parse
from helpers.models import tiny

pytestmark = pytest.mark.promise(
    "What is not installed or not measured is rejected before training.",
    "reporters, schedules, optimizers, the metric to choose by",
)


def rejected(check, *given):
    with pytest.raises(AtomError) as caught:
        check(*given)
    text = str(caught.value)
    assert "\n" not in text
    return text


def arguments(flags):
    return parse(["--use_cpu", *flags.split()])[1]


def test_a_reporter_that_does_not_exist():
    text = rejected(check_reporters, arguments("--report_to foo"))
    assert text.startswith("--report_to 'foo' does not exist; give none, or one of ") and "tensorboard" in text


@pytest.mark.parametrize("name", INTEGRATION_TO_CALLBACK)
def test_a_reporter_that_is_not_installed(name, monkeypatch):
    for found in [found for found in vars(integration_utils) if re.fullmatch(r"is_\w+_available", found)]:
        monkeypatch.setattr(integration_utils, found, lambda: False)
    text = rejected(check_reporters, arguments(f"--report_to {name}"))
    assert text == f"--report_to {name}: {name} is not installed; install it, or give --report_to none"


def test_no_reporter_is_always_there():
    check_reporters(arguments("--report_to none"))


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--lr_scheduler_type cosine_with_min_lr", "--lr_scheduler_type cosine_with_min_lr cannot be used"),
        ('--lr_scheduler_kwargs {"cycles":2}', "cycles"),
        ("--lr_scheduler_type polynomial --learning_rate 1e-9", "--learning_rate 1e-09"),
        ("--lr_scheduler_type warmup_stable_decay", "num_decay_steps"),
        ("--lr_scheduler_type linear --lr_scheduler_kwargs linear", "--lr_scheduler_kwargs 'linear'"),
    ],
)
def test_a_schedule_that_cannot_be_made(flags, says):
    assert says in rejected(check_schedule, arguments(flags))


@pytest.mark.parametrize(
    "flags",
    [
        "",
        "--lr_scheduler_type cosine",
        '--lr_scheduler_type cosine_with_restarts --lr_scheduler_kwargs {"num_cycles":2}',
    ],
)
def test_a_schedule_that_can(flags):
    check_schedule(arguments(flags))


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--optim galore_adamw", "galore"),
        ("--optim apollo_adamw", "apollo"),
        ("--optim lomo", "lomo"),
        ("--optim schedule_free_adamw", "schedulefree"),
        ("--optim adamw_torch --optim_args nonsense", "--optim adamw_torch cannot be used"),
    ],
)
def test_an_optimizer_that_cannot_be_used(flags, says, tmp_path):
    trainer = AtomTrainer(tiny("bert"), arguments(f"{flags} --output_dir {tmp_path}"))
    text = rejected(check_optimizer, trainer)
    assert says in text.lower() and text.startswith("--optim ")


@pytest.mark.parametrize(("name", "task"), [("acuracy", "text-classification"), ("accuracy", "causal-lm")])
def test_a_metric_that_is_not_measured(name, task):
    text = rejected(check_metric, arguments(f"--metric_for_best_model {name}"), task)
    assert text.startswith(f"--metric_for_best_model {name!r} is not measured for {task}; give one of loss")


def test_the_metrics_that_are_named_are_those_that_are_measured():
    found = classification_metrics(EvalPrediction(np.eye(4)[:, :3], np.array([0, 1, 2, 0])))
    assert tuple(found) == CLASSIFICATION_METRICS
    for name in (*found, "eval_loss", "loss"):
        check_metric(AtomTrainingArguments(metric_for_best_model=name, use_cpu=True), "image-classification")
