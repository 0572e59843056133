"""The cost of the flag, `atom-hf bench`: training steps with it and without it, interleaved in one process.

Two trainers are set up as in a run, with the same initial weights, and take the same batches in turn. A step is
Trainer's own, from `on_step_begin` to `on_step_end`: forward, loss and backward of each batch, clipping, optimizer,
scheduler. Loading data and writing the log are excluded from both.

Time: the median over pairs of atom / plain, with a 95 % interval by bootstrap over pairs. The order within a pair is
reversed from one pair to the next, and no garbage is collected while a step is timed.

Peak memory: the bytes that remain between steps (parameters, buffers and optimizer state of this trainer only; gradients
are freed), plus the peak, during one more step, of the bytes that tensors allocate beyond those at its start. On CUDA the
peak is the allocator's; on a CPU it is computed from the profiler's record of every allocation.

The floor is the least that the two heads can cost: forward, backward and AdamW's update of one Linear(h, h) and one
Linear(h, 1) on the batch's tokens, in the precision that the heads run in, timed between the two steps of each pair. The
ratio is 1 + heads / plain. The floor of memory is those parameters with their optimizer state. Floating point operations
are counted by `torch.utils.flop_counter` (products of matrices, convolutions, attention).
"""

import json
import os
import statistics
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any

import numpy as np
import torch
import transformers
from tqdm.auto import tqdm
from transformers import set_seed
from transformers.trainer_utils import IntervalStrategy

from ..errors import AtomError
from ..finetune.arguments import RunArguments
from ..finetune.run import make_trainer, prepare_run, unlogged_run
from ..training.arguments import AtomTrainingArguments
from ..training.trainer import AtomTrainer
from ..utils.files import check_page, write_atomically
from ..utils.quiet import quiet
from ..utils.statistics import median_interval
from ..utils.tables import format_number, format_table
from .random_inputs import random_task
from .steps import Arm, Floor, Step, count_flops, peak_memory, time_steps

ARMS = ("plain", "atom")

INTERVAL = "95 % interval of the median, by bootstrap over pairs"

BATCHES = 4  # distinct steps of data, which the pairs cycle through


@dataclass
class BenchArguments:
    """The size of the measurement, and the file of its results."""

    pairs: int = field(default=10, metadata={"help": "Number of timed pairs of steps."})
    warmup_pairs: int = field(default=2, metadata={"help": "Number of untimed pairs before that."})
    tokens: int | None = field(
        default=None, metadata={"help": "Length of the random texts where no --dataset is given; 128 by default."}
    )
    output: str | None = field(default=None, metadata={"help": "Write the results to this JSON file."})
    profile: bool = field(default=False, metadata={"help": "Also break down the flag's extra time by part."})


def run_bench(run: RunArguments, args: AtomTrainingArguments, options: BenchArguments) -> dict[str, Any]:
    """Measures, and returns the content of the JSON file.

    Raises:
        AtomError: whatever is wrong with the arguments, before anything is measured.
    """
    _check(run, args, options)
    rounds = options.warmup_pairs + options.pairs
    with ExitStack() as stack:
        stack.enter_context(quiet())
        arms = {name: Arm(_make_trainer(run, args, options, name, rounds, stack)) for name in ARMS}
        batches = _batches(arms["plain"].trainer)
        floor = Floor(arms["atom"], batches)
        steps: dict[str, Callable[[Step], None]] = {
            "plain": arms["plain"].step,
            "floor": floor.step,
            "atom": arms["atom"].step,
        }
        profiled = batches[:2] if options.profile else []
        total = rounds + 2 + 2 * len(profiled)
        bar = stack.enter_context(tqdm(total=total, desc="measuring", unit="pair"))
        seconds = time_steps(steps, batches, options.pairs, options.warmup_pairs, arms["plain"].device, bar)

        peaks = {name: peak_memory(arm, batches[0]) for name, arm in arms.items()}
        bar.update()
        counted = (
            {name: count_flops(step, batches[0]) for name, step in steps.items()} if not args.torch_compile else {}
        )
        bar.update()
        profile = None
        if options.profile:
            from .profiling import profile_parts

            profile = profile_parts(arms, profiled, bar.update)

    result = {**_describe(run, args, options, arms, floor), **summarise(seconds, peaks, counted, floor.bytes)}
    result["profile"] = profile
    if options.output:
        write_atomically(options.output, json.dumps(result, indent=1, allow_nan=False) + "\n")
    return result


def paired_ratio(first: list[float], second: list[float], resamples: int = 10_000) -> dict[str, Any]:
    """The median of second / first over pairs, with its interval (see `INTERVAL`) and the quartiles of the pairs."""
    ratios = np.asarray(second) / np.asarray(first)
    low, high = median_interval(ratios, resamples)
    quartiles = np.quantile(ratios, [0.25, 0.75]).tolist()
    return {
        "ratio": float(np.median(ratios)),
        "low": low,
        "high": high,
        "quartiles": quartiles,
        "ratios": ratios.tolist(),
    }


def summarise(
    seconds: dict[str, list[float]], peaks: dict[str, int], flops: dict[str, int], floor_bytes: int
) -> dict[str, Any]:
    """Ratios of the measurements. Absolute times are kept for reference alone: they depend on the machine's load."""
    plain = seconds["plain"]
    with_heads = [a + b for a, b in zip(plain, seconds["floor"], strict=True)]
    counted = {
        "atom": flops["atom"] / flops["plain"] if flops else None,
        "floor": 1 + flops["floor"] / flops["plain"] if flops else None,
        "counts": flops,
    }
    return {
        "interval": INTERVAL,
        "time": paired_ratio(plain, seconds["atom"]),
        "time_floor": paired_ratio(plain, with_heads),
        "throughput": sum(plain) / sum(seconds["atom"]),
        "memory": {
            "ratio": peaks["atom"] / peaks["plain"],
            "floor": 1 + floor_bytes / peaks["plain"],
            "bytes": peaks,
        },
        "flops": counted,
        "seconds": {name: statistics.median(values) for name, values in seconds.items()},
    }


def report(result: dict[str, Any]) -> str:
    """The results as they are printed."""

    def number(value: float | None) -> str:
        return "-" if value is None else format_number(value)

    timed, floor = result["time"], result["time_floor"]
    spread = "[{low:.4f}, {high:.4f}]"
    rows = [
        ["step time", number(timed["ratio"]), spread.format(**timed), f"{floor['ratio']:.4f} {spread.format(**floor)}"],
        ["throughput", number(result["throughput"]), "", ""],
        ["peak memory", number(result["memory"]["ratio"]), "", number(result["memory"]["floor"])],
        ["operations", number(result["flops"]["atom"]), "", number(result["flops"]["floor"])],
    ]
    size = f"{result['samples']} x {result['tokens']:.4g} tokens of width {result['width']}"
    about = [
        f"{result['model_class']} ({result['model']}, {result['parameters']:,} parameters), {result['precision']}",
        f"{result['device']}; {result['data']}, {size}; {result['pairs']} pairs of steps",
    ]
    notes = [
        "atom / plain; [...] is the " + result["interval"],
        f"floor: Linear(h, h) and Linear(h, 1), forward, backward and AdamW, in {result['heads_precision']}; 1 + heads / plain",
    ]
    parts = ["\n".join(about), format_table(["", "atom / plain", "95 %", "floor"], rows), "\n".join(notes)]
    if result["profile"]:
        found = result["profile"]
        shares = [[name, f"{100 * forward:.2f} %", f"{100 * back:.2f} %"] for name, forward, back in found["rows"]]
        shares += [
            ["rest, and noise", f"{100 * found['rest']:.2f} %", ""],
            ["all", f"{100 * found['total']:.2f} %", ""],
        ]
        parts.append(format_table(["extra time, of the plain step (profiled)", "forward", "backward"], shares))
        calls = found["operators"]
        parts.append(
            f"operator calls of a step: {calls['plain']:.0f} without the flag, {calls['total']:.0f} more with it"
        )
    return "\n\n".join(parts)


def _make_trainer(
    run: RunArguments, args: AtomTrainingArguments, options: BenchArguments, arm: str, rounds: int, stack: ExitStack
) -> AtomTrainer:
    run, args = stack.enter_context(unlogged_run(run, args, args.seed))
    args.atom, args.eval_strategy = arm == "atom", IntervalStrategy.NO
    args.max_steps = 100 * (rounds + BATCHES)  # so that no schedule has gone far when the last pair is timed
    if run.dataset is not None:
        return prepare_run(run, args, save=False).trainer
    set_seed(args.seed)
    samples = BATCHES * args.per_device_train_batch_size * args.gradient_accumulation_steps
    args.dataloader_pin_memory = args.dataloader_pin_memory and torch.cuda.is_available()
    return make_trainer(run, args, random_task(run, options.tokens, samples))


def _batches(trainer: AtomTrainer) -> list[Step]:
    """The batches of the steps, whole ones, where Trainer would have them."""
    size, each = trainer.args.per_device_train_batch_size, trainer.args.gradient_accumulation_steps
    if len(trainer.train_dataset) < size:
        raise AtomError(
            f"--dataset has {len(trainer.train_dataset)} rows to train on, fewer than one batch of "
            f"{size}; give a smaller --per_device_train_batch_size"
        )
    loader = trainer.get_train_dataloader()
    whole = [batch for batch in islice(loader, BATCHES * each) if len(batch["labels"]) == size]
    rows = cycle(whole)
    return [list(islice(rows, each)) for _ in range(max(1, len(whole) // each))]


def _check(run: RunArguments, args: AtomTrainingArguments, options: BenchArguments) -> None:
    args.atom_config()
    if options.pairs < 2:
        raise AtomError(f"--pairs must be at least 2, got {options.pairs}")
    if options.warmup_pairs < 1:
        raise AtomError(f"--warmup_pairs must be at least 1, got {options.warmup_pairs}: the first steps do more")
    if options.tokens is not None and run.dataset is not None:
        raise AtomError("--tokens is the length of random texts; with --dataset give --max_length")
    if args.world_size > 1:
        raise AtomError(f"atom-hf bench measures one process, and there are {args.world_size}: start it alone")
    if options.output:
        check_page(options.output, "--output")


def _describe(
    run: RunArguments, args: AtomTrainingArguments, options: BenchArguments, arms: dict[str, Arm], floor: Floor
) -> dict[str, Any]:
    model = arms["plain"].trainer.model
    threads = torch.get_num_threads()
    kind = arms["plain"].device.type
    return {
        "kind": kind,
        "device": torch.cuda.get_device_name() if kind == "cuda" else f"CPU, {threads} thread{'s' * (threads > 1)}",
        "precision": "bfloat16" if args.bf16 else "float16" if args.fp16 else "float32",
        "heads_precision": str(floor.dtype).removeprefix("torch."),
        "model": _name(run.model) if run.model else f"{run.model_type}, from its configuration",
        "model_class": type(model).__name__,
        "parameters": sum(p.numel() for p in model.parameters()),
        "width": floor.width,
        "data": "random inputs of full length" if run.dataset is None else _name(run.dataset),
        "samples": args.per_device_train_batch_size,
        "tokens": floor.tokens / args.per_device_train_batch_size,
        "accumulation": args.gradient_accumulation_steps,
        "activation_checkpointing": bool(args.activation_checkpointing),
        "torch_compile": bool(args.torch_compile),
        "pairs": options.pairs,
        "warmup_pairs": options.warmup_pairs,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }


def _name(given: str) -> str:
    """A Hub id as it is, a path by its last part: results may be published without local folders."""
    return os.path.basename(given.rstrip("/")) if os.path.exists(given) else given
