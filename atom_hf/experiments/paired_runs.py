"""Paired runs: one run without logging or saving, arms as changes of flags, fingerprints of settings."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import yaml
from transformers.trainer_utils import SchedulerType

from ..atoms.format_1 import FORM
from ..atoms.forms import FORMS
from ..errors import AtomError
from ..finetune.arguments import RunArguments
from ..finetune.flags import as_flags, given_flags
from ..training.arguments import PREFIX, AtomArguments, AtomTrainingArguments
from ..utils.jsonl import hashed
from ..utils.terminal import get_logger

logger = get_logger(__name__)

# What may differ between two runs of the same result.
_NO_SETTING = {"output_dir", "seed", "run_name", "logging_dir", "local_rank", "disable_tqdm"}

# What may differ between two runs that train alike: what is watched, kept and told of them, and when they evaluate.
_NO_TRAINING = {
    *_NO_SETTING,
    *("report_to", "project", "push_to_hub", "include_num_input_tokens_seen", "skip_memory_metrics", "debug"),
    *("do_train", "do_eval", "do_predict", "dataloader_pin_memory", "dataloader_persistent_workers"),
    *("resume_from_checkpoint", "restore_callback_states_from_checkpoint", "dataloader_prefetch_factor"),
}

_NO_TRAINING_KINDS = ("save_", "logging_", "log_", "hub_", "trackio_")

_EVALUATIONS = {
    "eval_strategy",
    "eval_steps",
    "eval_delay",
    "eval_on_start",
    "metric_for_best_model",
    "greater_is_better",
}

SHARED = ("seed", "sample_seed")  # by all arms of a comparison

RULE = "separation for classifiers, else paper"  # modeling/form.py; another rule gives other results, and needs another name

OVERRIDES = "config_overrides."  # prefix of a field of --config_overrides

# Paired runs end with their last weights; two of Trainer's flags have an older name, which mirrors the newer one.
_NOT_IN_PAIRED_RUNS = ("load_best_model_at_end", "gradient_checkpointing", "gradient_checkpointing_kwargs")


def warn_of_accumulation(args: AtomTrainingArguments) -> None:
    """Logs a warning where Trainer's own scaling of the task loss would be mistaken for an effect of the flag."""
    if args.gradient_accumulation_steps > 1 or args.world_size > 1:
        logger.warning(
            "over accumulation steps or processes Trainer scales the task loss of some classifiers (BERT, RoBERTa, ...) "
            "wrongly, and with --atom it is scaled rightly: of such a model, runs with and without the flag differ by that too"
        )


def with_flags(args: Any, changes: Mapping[str, Any], given: str) -> Any:
    """A copy of a dataclass of flags with some of them changed; what is None has its default.

    Raises `AtomError`, saying that `given` is wrong.
    """
    flags = {f.name: f for f in dataclasses.fields(args)}
    if unknown := sorted(set(map(str, changes)) - set(flags)):
        are = "are not flags" if len(unknown) > 1 else "is not a flag"
        raise AtomError(f"{given} sets {', '.join(unknown)}, which {are} of a training run")
    try:
        parsed = given_flags("", as_flags(changes), [type(args)])
        for name in set(changes) - set(parsed):
            parsed[name] = flags[name].default
        # Made anew: of some flags TrainingArguments derives what training reads (bf16: `mixed_precision`).
        return dataclasses.replace(args, **parsed)
    except (AtomError, ValueError) as error:
        raise AtomError(f"{given}: {error}") from error


def settings_of(run: RunArguments, args: AtomTrainingArguments) -> dict[str, Any]:
    """What the result of a paired run depends on but its seeds, by flag; the fields of --config_overrides one by one.

    Without --atom its own flags have no effect, and are None. With it, those that its form sets have the form's values, or
    "default" where the form is the model's to decide.
    """
    found = {
        name: value for name, value in dataclasses.asdict(run).items() if name not in (*SHARED, "config_overrides")
    }
    overrides = {f"{OVERRIDES}{name}": value for name, value in read_overrides(run.config_overrides).items()}
    unused = (*_NOT_IN_PAIRED_RUNS, *(f.name for f in dataclasses.fields(AtomArguments)))
    trained = {name: value for name, value in _trained(args).items() if name not in unused}
    config = dataclasses.asdict(args.atom_config()) if args.atom else {}
    if config and config["form"] is None:
        config |= {name: "default" for name in ("form", *FORMS["paper"]) if config[name] is None}
    atoms = {
        f.name: config.get(f.name.removeprefix(PREFIX), getattr(args, f.name)) if args.atom else None
        for f in dataclasses.fields(AtomArguments)
    }
    return {**found, **overrides, **trained, **atoms, "atom": args.atom}


def read_overrides(overrides: str | None) -> dict[str, Any]:
    """The fields that --config_overrides sets, written as name=value,name=value or as JSON; {} for what cannot be read."""
    if not overrides or not overrides.lstrip().startswith("{"):
        parts = [part.partition("=") for part in (overrides or "").split(",") if part]
        return {name.strip(): typed(value) for name, _, value in parts}
    try:
        found = json.loads(overrides)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def typed(text: str) -> Any:
    """A value as YAML reads it, or the text itself: 0.1 as a number."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def fingerprint(run: RunArguments, args: AtomTrainingArguments, **more: Any) -> str:
    """A hash of everything that a result depends on, except its seed."""
    trained = {k: v for k, v in as_hashed(args).items() if k not in _NO_SETTING}
    return hashed({**dataclasses.asdict(run), **trained, **more})


def training_fingerprint(run: RunArguments, args: AtomTrainingArguments, **more: Any) -> str:
    """A hash of everything that training depends on, except its seed and the flag itself."""
    return hashed({**dataclasses.asdict(run), **_trained(args), **more})


def _trained(args: AtomTrainingArguments) -> dict[str, Any]:
    left_out = _NO_TRAINING | {"atom"}
    if args.lr_scheduler_type != SchedulerType.REDUCE_ON_PLATEAU:  # which alone goes by evaluations
        left_out |= _EVALUATIONS
    return {k: v for k, v in as_hashed(args).items() if k not in left_out and not k.startswith(_NO_TRAINING_KINDS)}


def hashed_config(args: AtomTrainingArguments) -> dict[str, Any]:
    """The fields of the arguments' `AtomConfig`, a form that the model decides by the rule of the time."""
    config = dataclasses.asdict(args.atom_config())
    return {**config, "form": RULE} if config["form"] is None else config


def as_hashed(args: AtomTrainingArguments) -> dict[str, Any]:
    """The arguments, with what the form of the energy sets in place of what was not given.

    Results are known by these hashes: a field that came later counts only where it differs from the one form of before.
    """
    values, config = args.to_dict(), hashed_config(args)
    values |= {f"{PREFIX}{name}": value for name, value in config.items() if f"{PREFIX}{name}" in values}
    return {k: v for k, v in values.items() if k.removeprefix(PREFIX) not in FORM or v != FORM[k.removeprefix(PREFIX)]}
