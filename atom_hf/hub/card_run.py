"""Facts for model cards of a run: its arguments, and what it has logged."""

from dataclasses import fields
from typing import Any

import torch
from transformers import TrainingArguments

from .escape import cell, code, plain

_NO_METRICS = ("runtime", "per_second", "preparation_time", "epoch")

_SHARES = ("importance", "positive_share", "negative_share")

_MORE = (
    *("max_grad_norm", "adam_beta1", "adam_beta2", "adam_epsilon", "neftune_noise_alpha", "activation_checkpointing"),
    *("torch_compile", "dataloader_drop_last", "train_sampling_strategy", "full_determinism"),
)

_DEFAULTS = {f.name: f.default for f in fields(TrainingArguments)}

_LOSSES = ("step", "epoch", "loss", "task_loss", "atom_energy", "eval_loss")


def training_facts(
    args: TrainingArguments, steps: int | None = None, dtype: torch.dtype | None = None
) -> dict[str, Any]:
    """The training arguments to state in a card, as text."""
    each, accumulated = args.per_device_train_batch_size, args.gradient_accumulation_steps
    batch = str(each * accumulated * args.world_size)
    if accumulated * args.world_size > 1:
        batch += f" ({each} x {args.world_size} processes x {accumulated} accumulation steps)"
    schedule = str(getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type))
    if args.warmup_steps:
        share = f"{100 * args.warmup_steps:g} % of the" if args.warmup_steps < 1 else f"{args.warmup_steps:g}"
        schedule += f", warm-up over {share} steps"
    length = {"steps": args.max_steps} if args.max_steps > 0 else {"epochs": f"{args.num_train_epochs:g}"}
    mixed = next(
        (
            f"{kind} mixed precision"
            for flag, kind in (("bf16", "bfloat16"), ("fp16", "float16"))
            if getattr(args, flag)
        ),
        None,
    )
    precision = mixed or (str(dtype).removeprefix("torch.") if dtype else None)
    found = {
        "seed": args.seed,
        "seed of the data": args.data_seed,
        **length,
        "steps taken": steps if steps != args.max_steps else None,
        "batch size": batch,
        "pairs drawn from": f"{args.atom_pair_batch} samples" if getattr(args, "atom_pair_batch", None) else None,
        "learning rate": f"{args.learning_rate:g}",
        "schedule": schedule,
        "optimizer": str(getattr(args.optim, "value", args.optim)),
        "weight decay": f"{args.weight_decay:g}" if args.weight_decay else None,
        "label smoothing": f"{args.label_smoothing_factor:g}" if args.label_smoothing_factor else None,
        "precision": precision,
        **{
            name.replace("_", " "): cell(getattr(args, name))
            for name in _MORE
            if getattr(args, name) not in (_DEFAULTS[name], False, None)
        },
    }
    return {name: value for name, value in found.items() if value is not None}


def facts_of_log(args: TrainingArguments, state: Any) -> dict[str, Any]:
    """The evaluation of the current weights, the losses over training, and the importances that it last logged."""
    log = state.log_history
    evaluations = [line for line in log if "eval_loss" in line]
    trained = max((i for i, line in enumerate(log) if "train_runtime" in line), default=None)
    # The best checkpoint's weights are loaded when training ends: until then, the current weights are the last ones.
    best = getattr(state, "best_global_step", None) if args.load_best_model_at_end and trained is not None else None
    if best and not any("eval_loss" in line for line in log[trained:]):
        evaluations = [line for line in evaluations if line.get("step") == best]
    found: dict[str, Any] = {"losses": _losses(log)}
    if evaluations:
        line = evaluations[-1]
        values = {key.removeprefix("eval_"): value for key, value in line.items() if key.startswith("eval_")}
        numbers = {k: v for k, v in values.items() if isinstance(v, int | float) and not k.endswith(_NO_METRICS)}
        step, last = best or line.get("step", 0), state.global_step
        on = "" if step == last else f"; training went on to step {last}"
        found |= {"metrics": numbers, "metrics_of": f"On the evaluation data, at step {step} of one run{on}:"}
        if best:
            by = code((args.metric_for_best_model or "loss").removeprefix("eval_"))
            chosen = f"That checkpoint was chosen by {by} on this same evaluation data"
            found["metrics_of"] = f"On the evaluation data, with the weights of step {step} of one run{on}. {chosen}:"
    for line in reversed(log):
        if "atom_importance" in line:
            found["importance"] = {name: line[f"atom_{name}"] for name in _SHARES}
            found["importance_of"] = f"In training, as last logged (step {line.get('step', 0)})"
            break
    return found


def _losses(log: list[dict[str, Any]]) -> list[dict[str, float]]:
    """The losses that were logged, one line a step."""
    by_step: dict[int, dict[str, float]] = {}
    for line in log:
        if "loss" in line or "eval_loss" in line:
            values = {name: line[name] for name in _LOSSES if isinstance(line.get(name), int | float)}
            by_step.setdefault(line.get("step", 0), {}).update(values)
    return [by_step[step] for step in sorted(by_step)]


def time_facts(args: TrainingArguments, state: Any) -> dict[str, str]:
    """How long training took, and on what. A run that was resumed knows only of its last part, and says nothing."""
    seconds = next((line["train_runtime"] for line in reversed(state.log_history) if "train_runtime" in line), None)
    if seconds is None or args.resume_from_checkpoint is not None:
        return {}
    device = torch.cuda.get_device_name(args.device) if args.device.type == "cuda" else args.device.type.upper()
    shown = (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )
    processes = f"{args.world_size} x " if args.world_size > 1 else ""
    return {"training time": f"{shown} on {processes}{plain(device)}"}
