"""Breakdown of the flag's extra time by part: training steps under the profiler.

The parts are wrapped from the outside, so that nothing is measured in a step that is not profiled. The time of a part's
backward is that of the autograd nodes that its forward made. On a CPU times are those of the clock, on CUDA those of the
kernels. Everything is a share of the plain step, profiled in the same way.
"""

from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from ..atoms import loss as atoms_loss
from ..atoms.heads import AtomHeads
from ..errors import AtomError
from ..modeling import forward
from ..modeling.gradient_balancer import GradientBalancer
from ..training import loss as trainer_loss
from ..training.loss_log import LossLog
from .operations import operator_calls

PREFIX = "atom-hf "

STEP = PREFIX + "step"

OPTIMIZER, CLIPPING = "optimizer", "clipping"

NODE = "autograd::engine::evaluate_function"

Totals = dict[str, tuple[float, float]]  # (forward, backward) of each part, and of the whole step

# The wrapped functions, each where it is called, and the names of their parts. Ranges that the library itself records
# under a name that begins with PREFIX are shown as well.
PARTS = (
    (forward, "locate_tokens", "tokens and mask"),
    (AtomHeads, "forward", "heads"),
    (AtomHeads, "atoms_of", "atoms"),
    (forward, "pack_atoms", "atoms"),
    (trainer_loss, "gather_rows", "gather"),
    (atoms_loss, "_losses", "pair energy and constraints"),
    (LossLog, "add", "record for the log"),
    (GradientBalancer, "_measure_task", "gradient balancer"),
    (GradientBalancer, "_measure_atom", "gradient balancer"),
    (GradientBalancer, "update", "gradient balancer"),
)


def profile_parts(arms: dict[str, Any], batches: list[list], done: Callable[[], Any] = lambda: None) -> dict[str, Any]:
    """The parts of the flag's extra time, each with the shares of the plain step that its forward and its backward take.

    `rest` is what the profiled steps differ by beyond the parts: the states that are kept for the heads, sums of
    gradients, and noise. `operators` is the same for calls of operators (operations.py), as numbers in one step, with those
    of the whole `plain` step.
    """
    times: dict[str, Totals] = {name: {} for name in arms}
    calls: dict[str, list[Totals]] = {name: [] for name in arms}
    for number, step in enumerate(batches):
        for name in list(arms)[:: -1 if number % 2 else 1]:
            with wrapped(arms[name]):
                found, time_of = _profile(arms[name], step)
            for part, seconds in attribute(found, time_of).items():
                before = times[name].get(part, (0.0, 0.0))
                times[name][part] = before[0] + seconds[0], before[1] + seconds[1]
            # On CUDA the backward pass has a thread of its own, outside the range of the step.
            every = sum(operator_calls(event) for event in found if event.cpu_parent is None)
            calls[name].append({**attribute(found, operator_calls), STEP: (every, 0)})
            done()
    whole = times["plain"][STEP][0]
    result = _differences(times["plain"], times["atom"], whole)
    # Now and then a step also sums up the record for the log: the one with fewer calls is the rule.
    plain, atom = (min(calls[name], key=lambda totals: totals[STEP][0]) for name in ("plain", "atom"))
    return {**result, "operators": {**_differences(plain, atom, 1), "plain": plain[STEP][0]}}


def _differences(plain: Totals, atom: Totals, unit: float) -> dict[str, Any]:
    """What the parts of the two steps differ by, in units of `unit`."""
    rows = []
    for name in dict.fromkeys([*atom, *plain]):
        if name != STEP:
            sides = zip(atom.get(name, (0, 0)), plain.get(name, (0, 0)), strict=True)
            rows.append([name.removeprefix(PREFIX), *((a - b) / unit for a, b in sides)])
    total = (atom[STEP][0] - plain[STEP][0]) / unit
    return {"rows": rows, "rest": total - sum(forward + backward for _, forward, backward in rows), "total": total}


@contextmanager
def wrapped(arm: Any):
    """Context manager: every part records its range. Raises `AtomError` for a part that does not exist."""
    accelerator, optimizer = arm.trainer.accelerator, arm.trainer.optimizer
    own = ((accelerator, "clip_grad_norm_", CLIPPING), (optimizer, "step", OPTIMIZER))
    with ExitStack() as stack:
        for owner, attribute, part in (*PARTS, *own):
            if not hasattr(owner, attribute):
                where = getattr(owner, "__name__", type(owner).__name__)
                raise AtomError(f"--profile: {where} has no {attribute}, which {part!r} is measured by")
            stack.enter_context(_wrap(owner, attribute, PREFIX + part))
        yield


@contextmanager
def _wrap(owner: Any, attribute: str, name: str):
    mine = attribute in vars(owner)
    before, call = vars(owner).get(attribute), getattr(owner, attribute)

    def recorded(*args: Any, **kwargs: Any) -> Any:
        with record_function(name):
            return call(*args, **kwargs)

    # A class method has been bound by `getattr`, and must not be bound again.
    setattr(owner, attribute, staticmethod(recorded) if isinstance(before, classmethod) else recorded)
    try:
        yield
    finally:
        if mine:
            setattr(owner, attribute, before)
        else:
            delattr(owner, attribute)


def _profile(arm: Any, batches: list) -> tuple[list[Any], Callable[[Any], float]]:
    """The profiler's events of a step on the host, and what their time is, in its units."""
    cuda = arm.device.type == "cuda"
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * cuda
    with profile(activities=activities) as found, record_function(STEP):
        arm.step(batches)
        if cuda:
            torch.cuda.synchronize(arm.device)
    events = [e for e in found.events() if e.device_type == torch.autograd.DeviceType.CPU]
    return events, kernel_time if cuda else lambda event: event.cpu_time_total


def kernel_time(event: Any) -> float:
    """The time of the kernels that an event and those within it launched."""
    # A range appears among its own kernels, from the first of them to the last.
    own = sum(kernel.duration for kernel in event.kernels if kernel.name != event.name)
    return own + sum(kernel_time(child) for child in event.cpu_children)


def attribute(events: list[Any], time_of: Callable[[Any], float]) -> Totals:
    """Every range's own time, forward and backward, without the ranges and autograd nodes within it that are another's."""

    def part_of(event: Any) -> str | None:
        while event is not None and not event.name.startswith(PREFIX):
            event = event.cpu_parent
        return None if event is None or event.name == STEP else event.name

    # Each operation has the number of the autograd node that comes next: of those with the same number, the last made it.
    makers: dict[int, Any] = {}
    for event in sorted(events, key=lambda e: e.time_range.start):
        if event.sequence_nr >= 0 and not _in_backward(event):
            makers[event.sequence_nr] = event
    belongs: dict[int, tuple[str, int]] = {}
    for event in events:
        if event.name.startswith(PREFIX) and event.name != STEP:
            belongs[event.id] = event.name, int(_in_backward(event))
        elif event.name.startswith(NODE) and event.sequence_nr in makers:
            part = part_of(makers[event.sequence_nr])
            if part is not None:
                belongs[event.id] = part, 1

    totals: dict[str, list[float]] = {STEP: [0.0, 0.0]}
    for event in events:
        if event.name == STEP:
            totals[STEP][0] += time_of(event)
        if event.id not in belongs:
            continue
        name, side = belongs[event.id]
        totals.setdefault(name, [0.0, 0.0])[side] += time_of(event)
        outer = event.cpu_parent
        while outer is not None and outer.id not in belongs:
            outer = outer.cpu_parent
        if outer is not None:
            name, side = belongs[outer.id]
            totals[name][side] -= time_of(event)
    return {name: (forward, backward) for name, (forward, backward) in totals.items()}


def _in_backward(event: Any) -> bool:
    while event is not None and not event.name.startswith(NODE):
        event = event.cpu_parent
    return event is not None
