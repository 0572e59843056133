"""How much of the atom loss's gradient the backbone feels."""

from typing import Any

import torch
from torch import Tensor


class GradientGate:
    """Sits between the hidden states and the heads: identity forward, and backward a factor that follows the task.

    On a pretrained checkpoint the atom loss's gradient at the hidden states starts several times the task's, and costs
    accuracy. The gate measures both norms there and scales what passes to the backbone to at most `ratio` of the task's (0: no cap).
    The heads themselves always learn at full strength.

    Norms are sums over all samples of a step and, by `update`, over processes; the factor in force comes from the steps
    before. So it does not depend on how a batch is split over processes or accumulation steps. It is part of the
    trainer's state (`state`, `load`), and a resumed run goes on with the one it had.
    """

    MOMENTUM = 0.9

    def __init__(self, ratio: float) -> None:
        self.ratio = ratio
        # Before anything has been measured nothing passes, unless there is no cap.
        self.scale = 0.0 if ratio else 1.0
        self._task_norm = self._atom_norm = 0.0
        self._steps = 0
        self._sums: Tensor | None = None
        self._passed: Tensor | None = None

    def __call__(self, hidden: Tensor) -> Tensor:
        """`hidden` as the heads see it: equal in value, its gradient scaled by `scale` on the way back."""
        if not hidden.requires_grad:
            return hidden
        if self._sums is None:
            self._sums = torch.zeros(2, device=hidden.device)
        # The hook sees the whole gradient of the hidden states, after both the task's part and the gate's have arrived.
        hidden.register_hook(self._measure_task)
        return _Gate.apply(hidden, self)

    def _measure_atom(self, gradient: Tensor) -> Tensor:
        self._sums[1] += gradient.float().square().sum()
        self._passed = gradient * self.scale
        return self._passed

    def _measure_task(self, gradient: Tensor) -> None:
        task = gradient if self._passed is None else gradient - self._passed
        self._passed = None
        self._sums[0] += task.float().square().sum()

    def update(self, reduce: Any, closed: bool = False) -> None:
        """Ends a step: sets the factor for the next, 0 if `closed`. `reduce` sums a tensor [2] over processes."""
        if self._sums is None:
            return
        task, atom = reduce(self._sums).sqrt().tolist()
        self._sums = None
        if task != task or atom != atom or float("inf") in (task, atom):
            return  # an overflow that the gradient scaler skips
        keep = self.MOMENTUM if self._steps else 0.0
        self._task_norm = keep * self._task_norm + (1 - keep) * task
        self._atom_norm = keep * self._atom_norm + (1 - keep) * atom
        self._steps += 1
        limit = self.ratio * self._task_norm if self.ratio else float("inf")
        self.scale = 0.0 if closed else 1.0 if self._atom_norm <= limit else limit / self._atom_norm

    def state(self) -> dict[str, float]:
        """What a resumed run needs; `load` takes it back."""
        return {
            "scale": self.scale,
            "task_norm": self._task_norm,
            "atom_norm": self._atom_norm,
            "steps": self._steps,
        }

    def load(self, state: dict[str, float]) -> None:
        """The inverse of `state`."""
        self.scale = state["scale"]
        self._task_norm, self._atom_norm, self._steps = state["task_norm"], state["atom_norm"], state["steps"]


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden: Tensor, gate: GradientGate) -> Tensor:
        ctx.gate = gate
        return hidden.view_as(hidden)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return ctx.gate._measure_atom(gradient), None
