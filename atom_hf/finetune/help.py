"""Format the help of a command: its flags in groups, with the common ones of Trainer, or all with `--help_all`."""

import argparse
import dataclasses
import enum
import re
import textwrap
from typing import Any

from transformers import TrainingArguments
from transformers.hf_argparser import string_to_bool

from ..training.arguments import AtomArguments
from .arguments import DATA_FIELDS, RunArguments, StoppingArguments

WIDTH, COLUMN = 112, 36

TRAINER, LAST = "Training (the common flags of Transformers' Trainer)", "Many processes"

DATA = ("dataset", *DATA_FIELDS, "max_length", "horizontal_flip")

COMMON = (
    *("output_dir", "num_train_epochs", "max_steps", "per_device_train_batch_size", "per_device_eval_batch_size"),
    *("gradient_accumulation_steps", "learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay"),
    *("max_grad_norm", "optim", "seed", "bf16", "fp16", "activation_checkpointing", "torch_compile", "use_cpu"),
    *("dataloader_num_workers", "players"),
)

# Flags without use in a command that keeps no model.
COMMON_OF_A_RUN = (
    *("logging_steps", "report_to", "eval_strategy", "eval_steps", "metric_for_best_model", "greater_is_better"),
    *("load_best_model_at_end", "early_stopping_patience", "save_strategy", "save_steps", "save_total_limit"),
    *("resume_from_checkpoint", "push_to_hub", "hub_model_id"),
)


def trains(kinds: list[type]) -> bool:
    """Whether a command takes all of Trainer's flags."""
    return any(issubclass(kind, TrainingArguments) for kind in kinds)


def format_help(parser: argparse.ArgumentParser, kinds: list[type], everything: bool) -> str:
    """The help of a command whose flags are the fields of `kinds`."""
    actions: dict[str, argparse.Action] = {}
    for action in parser._actions:  # argparse has no other list of them
        actions.setdefault(action.dest, action)
    others = [name for name in actions if name not in {f.name for kind in kinds for f in dataclasses.fields(kind)}]
    groups = [*_groups(kinds, everything), ("Also", others)]
    parts = [f"usage: {parser.prog} [flags]"]
    for title, names in groups:
        if names:
            brief = title == TRAINER and not everything
            parts.append("\n".join([f"{title}:", *(_entry(actions[name], brief) for name in names)]))
    if trains(kinds) and not everything:
        left = sum(len(dataclasses.fields(kind)) for kind in kinds) - sum(len(names) for _, names in groups[:-1])
        parts.append(f"{parser.prog} --help_all lists the other {left} flags of Transformers' Trainer too.")
    return "\n\n".join(parts) + "\n"


def _groups(kinds: list[type], everything: bool) -> list[tuple[str, list[str]]]:
    """(title, names of flags) of each group, in the order in which they are shown."""

    def fields_of(kind: type) -> list[str]:
        return [field.name for field in dataclasses.fields(kind)]

    own, titled, trained = [], [], []
    run: list[str] = []
    for kind in kinds:
        if issubclass(kind, TrainingArguments):
            trained = fields_of(kind)
        elif kind is RunArguments:
            run = fields_of(kind)
        elif hasattr(kind, "help_title"):
            titled.append((kind.help_title, fields_of(kind)))
        elif kind is not StoppingArguments:
            own += fields_of(kind)
    keeps = StoppingArguments in kinds
    if keeps:
        trained = [*trained, *fields_of(StoppingArguments)]
    atoms = [name for name in fields_of(AtomArguments) if name in trained]
    common = [name for name in (*COMMON, *(COMMON_OF_A_RUN if keeps else ())) if name in trained]
    return [
        ("This command", own),
        ("Atoms (the flag, and its own options)", atoms),
        *(group for group in titled if group[0] != LAST),
        ("Data", [name for name in run if name in DATA]),
        ("Model", [name for name in run if name not in DATA]),
        (TRAINER, common),
        *(group for group in titled if group[0] == LAST),
        ("Training (all other flags of Transformers' Trainer)", _rest(trained, atoms, common) if everything else []),
    ]


def _rest(trained: list[str], *shown: list[str]) -> list[str]:
    return [name for name in trained if not any(name in names for names in shown)]


def _entry(action: argparse.Action, brief: bool) -> str:
    """A flag, its value, and its help: the first sentence, if it is to be brief."""
    head = f"  {_flag(action)}"
    text = "Show these flags." if action.dest == "help" else " ".join((action.help or "").replace("%%", "%").split())
    if brief:
        text = re.split(r"(?<=[\w)`'\"])\.\s", text)[0].rstrip(".") + "."
    default = action.default.value if isinstance(action.default, enum.Enum) else action.default
    if not (default is None or default in ("", [], argparse.SUPPRESS) or action.type is string_to_bool):
        text = f"{text} [{default}]"
    lines = textwrap.wrap(text, WIDTH - COLUMN, break_on_hyphens=False) or [""]
    if len(head) > COLUMN - 2:
        lines.insert(0, "")
    first, *others = lines
    return "\n".join([f"{head:<{COLUMN}}{first}".rstrip(), *(" " * COLUMN + line for line in others)])


def _flag(action: argparse.Action) -> str:
    name = action.option_strings[-1] if action.dest == "help" else action.option_strings[0]
    if action.nargs == 0:
        return name
    if action.type is string_to_bool:
        if action.nargs != "?":
            return f"{name} true|false"
        return f"{name} | --no_{action.dest}" if action.default is True else name
    value = {int: "N", float: "X"}.get(action.type, "VALUE")  # type: ignore[call-overload]
    choices = "|".join(str(getattr(choice, "value", choice)) for choice in action.choices or ())
    if choices and len(choices) <= COLUMN - len(name):
        value = choices
    if action.nargs == "?":
        return f"{name} [{value}]"
    return f"{name} {value}{' ...' if action.nargs == '+' else ''}"


class HelpAll(argparse.Action):
    """`--help_all`: prints all flags, and ends."""

    def __init__(self, option_strings: list[str], dest: str, **kwargs: Any):
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, **kwargs)

    def __call__(self, parser: Any, *_: Any) -> None:
        print(parser.format_help(everything=True), end="")
        parser.exit()
