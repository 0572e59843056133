"""What the flag costs, `atom-hf bench`: a training step with it and without it, interleaved in one process.

Two trainers are made as a run makes them, from the same initial weights, and take the same batches by turns. A step is
Trainer's own, from `on_step_begin` to `on_step_end`: forward, loss and backward of each batch, clipping, optimizer,
scheduler. Loading data and writing the log are left out of both.

Time: the median over pairs of atom / plain, with a 95 % interval by bootstrap over pairs. The order within a pair is
reversed from one pair to the next, and no garbage is collected while a step is timed.

Peak memory: the bytes that stay between steps (parameters, buffers and optimizer state, of this trainer alone; gradients
do not stay), and the peak, during one step more, of the bytes that tensors allocate above what was there at its start. On
CUDA the peak is the allocator's; on a CPU it is summed up from the profiler's record of every allocation.

The floor is what the two heads cost at the least: forward, backward and AdamW's update of one Linear(h, h) and one
Linear(h, 1) on the batch's tokens, in the precision that the heads run in, timed between the two steps of each pair. The
ratio is 1 + heads / plain. The floor of memory is those parameters with their optimizer state. Floating point operations
are counted by `torch.utils.flop_counter` (products of matrices, convolutions, attention).
"""

import gc
import json
import os
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from torch.utils import flop_counter
from tqdm.auto import tqdm
from transformers import TrainerCallback, set_seed
from transformers.trainer_utils import IntervalStrategy

from .errors import AtomError
from .modeling import evaluating
from .paired import quiet, silent
from .random_inputs import random_task
from .run import RunArguments, check_page, make_trainer, prepare_run
from .trainer import AtomTrainer, AtomTrainingArguments

ARMS = ("plain", "atom")
INTERVAL = "95 % interval of the median, by bootstrap over pairs"
BATCHES = 4  # distinct steps of data: the pairs go through them again and again


@dataclass
class BenchArguments:
    """How much is measured, and where the results go."""

    pairs: int = field(default=10, metadata={"help": "How many pairs of steps are timed."})
    warmup_pairs: int = field(default=2, metadata={"help": "How many pairs run before that, untimed."})
    tokens: int | None = field(
        default=None, metadata={"help": "Without --dataset: the length of the random texts; 128 if not given."}
    )
    output: str | None = field(default=None, metadata={"help": "Write the results to this JSON file."})
    profile: bool = field(default=False, metadata={"help": "Also show which parts the flag's extra time goes to."})


def run_bench(run: RunArguments, args: AtomTrainingArguments, options: BenchArguments) -> dict[str, Any]:
    """Measures, and returns what the JSON file holds.

    Raises:
        AtomError: whatever is wrong with the arguments, before anything is measured.
    """
    _check(run, args, options)
    rounds = options.warmup_pairs + options.pairs
    with ExitStack() as stack:
        stack.enter_context(quiet())
        arms = {name: Arm(_make_trainer(run, args, options, name, rounds, stack)) for name in ARMS}
        batches = _batches(arms["plain"].trainer)
        floor = _Floor(arms["atom"], batches)
        steps: dict[str, Callable[[list], None]] = {
            "plain": arms["plain"].step,
            "floor": floor.step,
            "atom": arms["atom"].step,
        }
        bar = stack.enter_context(tqdm(total=rounds + 2 + 2 * options.profile, desc="measuring", unit="pair"))
        seconds = time_steps(steps, batches, options, arms["plain"].device, bar)

        peaks = {name: peak_memory(arm, batches[0]) for name, arm in arms.items()}
        bar.update()
        counted = (
            {name: count_flops(step, batches[0]) for name, step in steps.items()} if not args.torch_compile else {}
        )
        bar.update()
        profile = None
        if options.profile:
            from .bench_profile import profile_parts

            profile = profile_parts(arms, batches[:2], bar.update)

    result = {**_describe(run, args, options, arms, floor), **summarise(seconds, peaks, counted, floor.bytes)}
    result["profile"] = profile
    if options.output:
        Path(options.output).parent.mkdir(parents=True, exist_ok=True)
        Path(options.output).write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return result


def paired_ratio(first: list[float], second: list[float], resamples: int = 10_000) -> dict[str, Any]:
    """The median of second / first over pairs, with its interval (see `INTERVAL`) and the quartiles of the pairs."""
    ratios = np.asarray(second) / np.asarray(first)
    drawn = np.random.default_rng(0).choice(ratios, (resamples, len(ratios)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    quartiles = np.quantile(ratios, [0.25, 0.75]).tolist()
    return {
        "ratio": float(np.median(ratios)),
        "low": float(low),
        "high": float(high),
        "quartiles": quartiles,
        "ratios": ratios.tolist(),
    }


def summarise(
    seconds: dict[str, list[float]], peaks: dict[str, int], flops: dict[str, int], floor_bytes: int
) -> dict[str, Any]:
    """Ratios from what was measured. Absolute times are kept for reference alone: they say more of a machine's load."""
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
    from .cli import format_number, format_table

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
    return "\n\n".join(parts)


class Arm:
    """A trainer, brought to where its first step would start."""

    def __init__(self, trainer: AtomTrainer) -> None:
        self.trainer = trainer
        stop = _Stop()
        trainer.add_callback(stop)
        try:
            trainer.train()
        except _ReadyError:
            trainer.remove_callback(stop)

    @property
    def device(self) -> torch.device:
        return self.trainer.args.device

    def step(self, batches: list[dict[str, Tensor]]) -> None:
        """One optimizer step: an epoch of Trainer's that is no longer than that."""
        self.trainer._run_epoch(
            model=self.trainer.model_wrapped,
            epoch=0,
            train_dataloader=batches,
            steps_in_epoch=len(batches),
            num_update_steps_per_epoch=1,
            trial=None,
            ignore_keys_for_eval=None,
            start_time=0.0,
            resume_from_checkpoint=None,
            epochs_trained=0,
            steps_trained_in_current_epoch=0,
        )

    def resident_bytes(self) -> int:
        """What this trainer holds now, between two steps."""
        model = self.trainer.model
        held = [*model.parameters(), *model.buffers(), *(p.grad for p in model.parameters() if p.grad is not None)]
        held += [v for state in self.trainer.optimizer.state.values() for v in state.values() if torch.is_tensor(v)]
        storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in held}
        return sum(storages.values())


def time_steps(
    steps: dict[str, Callable[[list], None]],
    batches: list[list],
    options: BenchArguments,
    device: torch.device,
    bar: Any = None,
) -> dict[str, list[float]]:
    """The seconds of each step, one a pair: those of one pair have the same batches and the same random numbers."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(-options.warmup_pairs, options.pairs):
        gc.collect()
        gc.disable()
        try:
            for name in list(steps)[:: 1 if number % 2 else -1]:
                torch.manual_seed(number % 2**32)
                _wait(device)
                start = time.perf_counter()
                steps[name](batches[number % len(batches)])
                _wait(device)
                if number >= 0:
                    seconds[name].append(time.perf_counter() - start)
        finally:
            gc.enable()
        if bar is not None:
            bar.update()
    return seconds


def peak_memory(arm: Arm, batches: list[dict[str, Tensor]]) -> int:
    """The peak of one step in bytes, as the head of this file defines it."""
    resident = arm.resident_bytes()
    if arm.device.type == "cuda":
        _wait(arm.device)
        before = torch.cuda.memory_allocated(arm.device)
        torch.cuda.reset_peak_memory_stats(arm.device)
        arm.step(batches)
        _wait(arm.device)
        return resident + torch.cuda.max_memory_allocated(arm.device) - before
    return resident + allocated_peak(lambda: arm.step(batches))


def allocated_peak(call: Callable[[], Any]) -> int:
    """The peak of the bytes that tensors on the CPU allocate within `call`, above what was there before."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        call()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    changes = [e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]
    return int(np.cumsum(changes, dtype=np.int64).max(initial=0))


def count_flops(step: Callable[[list], None], batches: list[dict[str, Tensor]]) -> int:
    """The floating point operations of one step."""
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu, flop_counter.sdpa_flop
    backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward, flop_counter.sdpa_backward_flop

    def of_shapes(count: Callable[..., int]) -> Callable[..., int]:
        # Of all that attention takes only the shapes of its tensors count: what follows is dropout, masks and scale.
        first = 3 if count is flop_counter.sdpa_flop else 4
        return lambda *shapes, **_: count(*shapes[:first])

    mapping = {operation: of_shapes(count) for operation, count in (attention, backward)}
    with flop_counter.FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        step(batches)
    return counter.get_total_flops()


class _ReadyError(Exception):
    """All is made; the first step would follow."""


class _Stop(TrainerCallback):
    def on_train_begin(self, args, state, control, **kwargs):
        raise _ReadyError


class _Floor:
    """The heads' own arithmetic."""

    def __init__(self, arm: Arm, batches: list[list[dict[str, Tensor]]]) -> None:
        model = arm.trainer.accelerator.unwrap_model(arm.trainer.model_wrapped)
        width = model.atom_config.hidden_size
        self.dtype = next(model.atom_heads.parameters()).dtype
        self.width, self.device = width, arm.device
        hook = model.atom_heads.register_forward_hook(self._note_dtype)
        try:
            counts = [[_tokens(model, batch) for batch in step] for step in batches]
        finally:
            hook.remove()
        self.tokens = statistics.fmean(count for step in counts for count in step)
        self._counts = {id(step): numbers for step, numbers in zip(batches, counts, strict=True)}

        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            self.heads = nn.ModuleList([nn.Linear(width, width), nn.Linear(width, 1)]).to(self.device)
            longest = max(count for step in counts for count in step)
            self.hidden = torch.randn(longest, width, device=self.device, dtype=self.dtype)
        self.upstream = [torch.ones(longest, size, device=self.device, dtype=self.dtype) for size in (width, 1)]
        self.optimizer = torch.optim.AdamW(self.heads.parameters(), fused=True)
        self.bytes = 3 * 4 * sum(p.numel() for p in self.heads.parameters())

    def step(self, batches: list[dict[str, Tensor]]) -> None:
        for count in self._counts[id(batches)]:
            hidden = self.hidden[:count].requires_grad_()
            with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32):
                outputs = [layer(hidden) for layer in self.heads]
            torch.autograd.backward(outputs, [gradient[:count] for gradient in self.upstream])
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _note_dtype(self, module: nn.Module, inputs: Any, outputs: Any) -> None:
        found = [value for value in outputs if torch.is_tensor(value)] if isinstance(outputs, tuple) else []
        if found:
            self.dtype = max(found, key=Tensor.numel).dtype


def _tokens(model: Any, batch: dict[str, Tensor]) -> int:
    with evaluating(model), torch.no_grad():
        return model(**batch, return_atoms=True)["atom_importance"].numel()


def _make_trainer(
    run: RunArguments, args: AtomTrainingArguments, options: BenchArguments, arm: str, rounds: int, stack: ExitStack
) -> AtomTrainer:
    run, args = stack.enter_context(silent(run, args, args.seed))
    args.atom, args.eval_strategy = arm == "atom", IntervalStrategy.NO
    args.max_steps = 100 * (rounds + BATCHES)  # so that no schedule has gone far when the last pair is timed
    if run.dataset is not None:
        return prepare_run(run, args, save=False).trainer
    set_seed(args.seed)
    samples = BATCHES * args.per_device_train_batch_size * args.gradient_accumulation_steps
    args.dataloader_pin_memory = args.dataloader_pin_memory and torch.cuda.is_available()
    return make_trainer(run, args, random_task(run, options.tokens, samples))


def _batches(trainer: AtomTrainer) -> list[list[dict[str, Tensor]]]:
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
    run: RunArguments, args: AtomTrainingArguments, options: BenchArguments, arms: dict[str, Arm], floor: _Floor
) -> dict[str, Any]:
    model = arms["plain"].trainer.model
    threads = torch.get_num_threads()
    kind = arms["plain"].device.type
    return {
        "kind": kind,
        "device": torch.cuda.get_device_name() if kind == "cuda" else f"CPU, {threads} thread{'s' * (threads > 1)}",
        "precision": "bfloat16" if args.bf16 else "float16" if args.fp16 else "float32",
        "heads_precision": str(floor.dtype).removeprefix("torch."),
        "model": run.model or f"{run.model_type}, from its configuration",
        "model_class": type(model).__name__,
        "parameters": sum(p.numel() for p in model.parameters()),
        "width": floor.width,
        "data": "random inputs of full length" if run.dataset is None else os.path.basename(run.dataset.rstrip("/")),
        "samples": args.per_device_train_batch_size,
        "tokens": floor.tokens / args.per_device_train_batch_size,
        "accumulation": args.gradient_accumulation_steps,
        "activation_checkpointing": bool(args.activation_checkpointing),
        "torch_compile": bool(args.torch_compile),
        "pairs": options.pairs,
        "warmup_pairs": options.warmup_pairs,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# The profiler's own progress would break the bar.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")
