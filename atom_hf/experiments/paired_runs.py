"""Paired runs: one run without logging or saving, arms as changes of flags, fingerprints of settings."""

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

from transformers.trainer_utils import SchedulerType

from ..atoms.format_1 import FORM
from ..errors import AtomError
from ..finetune.arguments import RunArguments
from ..finetune.flags import as_flags, parse_kinds
from ..training.arguments import PREFIX, AtomTrainingArguments
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


def warn_of_accumulation(args: AtomTrainingArguments) -> None:
    """Logs a warning where Trainer's own scaling of the task loss would be mistaken for an effect of the flag."""
    if args.gradient_accumulation_steps > 1 or args.world_size > 1:
        logger.warning(
            "over accumulation steps or processes Trainer scales the task loss of some classifiers (BERT, RoBERTa, ...) "
            "wrongly, and with --atom it is scaled rightly: of such a model, runs with and without the flag differ by that too"
        )


def with_flags(args: Any, changes: Mapping[str, Any], given: str) -> Any:
    """A copy of a dataclass of flags with some of them changed. Raises `AtomError`, saying that `given` is wrong."""
    unknown = sorted(set(map(str, changes)) - {f.name for f in dataclasses.fields(args)})
    if unknown:
        raise AtomError(f"{given} sets {', '.join(unknown)}, which are not flags of a training run")
    try:
        typed = parse_kinds("", as_flags(changes), [type(args)])[0]
    except AtomError as error:
        raise AtomError(f"{given}: {error}") from error
    changed = copy.copy(args)
    for name in changes:
        setattr(changed, name, getattr(typed, name))
    return changed


def fingerprint(run: RunArguments, args: AtomTrainingArguments, **more: Any) -> str:
    """A hash of everything that a result depends on, except its seed."""
    trained = {k: v for k, v in as_hashed(args).items() if k not in _NO_SETTING}
    return hashed({**dataclasses.asdict(run), **trained, **more})


def training_fingerprint(run: RunArguments, args: AtomTrainingArguments, **more: Any) -> str:
    """A hash of everything that training depends on, except its seed and the flag itself."""
    left_out = _NO_TRAINING | {"atom"}
    if args.lr_scheduler_type != SchedulerType.REDUCE_ON_PLATEAU:  # which alone goes by evaluations
        left_out |= _EVALUATIONS
    trained = {k: v for k, v in as_hashed(args).items() if k not in left_out and not k.startswith(_NO_TRAINING_KINDS)}
    return hashed({**dataclasses.asdict(run), **trained, **more})


def as_hashed(args: AtomTrainingArguments) -> dict[str, Any]:
    """The arguments, with what the form of the energy sets in place of what was not given.

    Results are known by these hashes: a field that came later counts only where it differs from the one form of before.
    """
    values, config = args.to_dict(), dataclasses.asdict(args.atom_config())
    values |= {f"{PREFIX}{name}": value for name, value in config.items() if f"{PREFIX}{name}" in values}
    return {k: v for k, v in values.items() if k.removeprefix(PREFIX) not in FORM or v != FORM[k.removeprefix(PREFIX)]}
