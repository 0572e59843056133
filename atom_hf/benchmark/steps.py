"""One step of `atom-hf bench`: run and time it, measure its memory, count its operations."""

import gc
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import flop_counter
from transformers import TrainerCallback

from ..modeling.inference import evaluating
from ..training.trainer import AtomTrainer

# The profiler's own progress would break the bar.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")

Step = list[dict[str, Tensor]]
"""The batches of one optimizer step."""


class Arm:
    """A trainer that is ready for its first step."""

    def __init__(self, trainer: AtomTrainer) -> None:
        self.trainer = trainer
        # Trainer makes its optimizer, schedule and wrapped model when it begins to train, and not before.
        stop = _Stop()
        trainer.add_callback(stop)
        try:
            trainer.train()
        except _ReadyError:
            trainer.remove_callback(stop)

    @property
    def device(self) -> torch.device:
        return self.trainer.args.device

    def step(self, batches: Step) -> None:
        """One optimizer step, as an epoch of Trainer of that length."""
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
        """The bytes that this trainer occupies between two steps."""
        model = self.trainer.model
        held = [*model.parameters(), *model.buffers(), *(p.grad for p in model.parameters() if p.grad is not None)]
        held += [v for state in self.trainer.optimizer.state.values() for v in state.values() if torch.is_tensor(v)]
        storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in held}
        return sum(storages.values())


class Floor:
    """The heads' own arithmetic."""

    def __init__(self, arm: Arm, batches: list[Step]) -> None:
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

    def step(self, batches: Step) -> None:
        for count in self._counts[id(batches)]:
            hidden = self.hidden[:count].requires_grad_()
            with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32):
                outputs = [layer(hidden) for layer in self.heads]
            torch.autograd.backward(outputs, [gradient[:count] for gradient in self.upstream])
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _note_dtype(self, module: nn.Module, inputs: Any, outputs: Any) -> None:
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        found = [value for value in outputs if torch.is_tensor(value)]
        if found:
            self.dtype = max(found, key=Tensor.numel).dtype


def _tokens(model: Any, batch: dict[str, Tensor]) -> int:
    with evaluating(model), torch.no_grad():
        return model(**batch, return_atoms=True)["atom_importance"].numel()


def time_steps(
    steps: dict[str, Callable[[Step], None]],
    batches: list[Step],
    pairs: int,
    warmup: int,
    device: torch.device,
    bar: Any = None,
) -> dict[str, list[float]]:
    """The seconds of each step, one a pair: those of one pair have the same batches and the same random numbers."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(-warmup, pairs):
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


def peak_memory(arm: Arm, batches: Step) -> int:
    """The peak of one step in bytes, as `bench` defines it."""
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


def count_flops(step: Callable[[Step], None], batches: Step) -> int:
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
    """Raised when everything is set up, just before the first step."""


class _Stop(TrainerCallback):
    def on_train_begin(self, args, state, control, **kwargs):
        raise _ReadyError


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
