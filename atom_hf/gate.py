"""How much of the atom loss's gradient the model feels, relative to the task's (ours)."""

from collections.abc import Callable

import torch
from torch import Tensor

from .config import AtomConfig
from .sharding import watch_gradient


class GradientGate:
    """Sits between the hidden states and the heads: identity forward, and backward a factor that follows the task.

    No one absolute weight suits a model from nothing and a pretrained one: at the hidden states of the second the atom
    loss's gradient starts several times the task's, and costs accuracy. The gate measures the norms of both there, and
    scales what passes to the model so that it is `ratio` of the task's. The heads themselves always learn at full
    strength.

    Norms are taken over all samples of a step and, by `update`, over processes; the factor in force comes from the steps
    before. So it does not depend on how a batch is split over processes or accumulation steps. It is part of a
    checkpoint (`state`, `load`).

    Args:
        ratio: of the two norms; None passes the gradient as it is.
    """

    MOMENTUM = 0.9  # of the running norms, per step
    LIMIT = 100.0  # a factor beyond it would amplify noise where the atom loss has next to no gradient

    def __init__(self, ratio: float | None) -> None:
        self.ratio = ratio
        self.strength = 1.0
        """The share of the factor that is in force: 0 while the heads warm up, and what the schedule says after that."""
        # Before anything has been measured nothing passes, unless nothing is to be measured.
        self._scale = 1.0 if ratio is None else 0.0
        self._task_norm = self._atom_norm = 0.0
        self._steps = 0
        self._sums: Tensor | None = None
        self._passed: Tensor | None = None

    @classmethod
    def of(cls, config: AtomConfig) -> "GradientGate":
        """The gate that a configuration asks for."""
        return cls(config.weight if config.weighting == "relative" else None)

    def __call__(self, hidden: Tensor) -> Tensor:
        """`hidden` as the heads see it: equal in value, its gradient scaled by `scale` on the way back."""
        if not hidden.requires_grad:
            return hidden
        if self._sums is None:
            self._sums = torch.zeros(2, device=hidden.device)
        # The hook sees the whole gradient of the hidden states, after both the task's part and the gate's have arrived.
        watch_gradient(hidden, self._measure_task)
        return _Gate.apply(hidden, self)

    @property
    def scale(self) -> float:
        """The factor in force."""
        return self.strength * self._scale

    def update(self, reduce: Callable[[Tensor], Tensor]) -> None:
        """Ends a step and sets the factor for the next. `reduce` sums a tensor [2] over processes."""
        if self._sums is None:
            return
        task, atom = reduce(self._sums).sqrt()
        self._sums = None
        if task.isfinite() and atom.isfinite():  # else an overflow that the gradient scaler skips
            keep = self.MOMENTUM if self._steps else 0.0
            self._task_norm = keep * self._task_norm + (1 - keep) * task.item()
            self._atom_norm = keep * self._atom_norm + (1 - keep) * atom.item()
            self._steps += 1
        if self.ratio is not None and self._atom_norm > 0:
            self._scale = min(self.LIMIT, self.ratio * self._task_norm / self._atom_norm)

    def state(self) -> dict[str, float]:
        """What a resumed run needs; `load` takes it back."""
        return {"scale": self._scale, "task_norm": self._task_norm, "atom_norm": self._atom_norm, "steps": self._steps}

    def load(self, state: dict[str, float]) -> None:
        """The inverse of `state`."""
        self._scale = state["scale"]
        self._task_norm, self._atom_norm, self._steps = state["task_norm"], state["atom_norm"], int(state["steps"])

    def _measure_atom(self, gradient: Tensor) -> Tensor:
        self._sums[1] += gradient.float().square().sum()
        self._passed = gradient * self.scale
        return self._passed

    def _measure_task(self, gradient: Tensor) -> None:
        task = gradient if self._passed is None else gradient - self._passed
        self._passed = None
        self._sums[0] += task.float().square().sum()


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden: Tensor, gate: GradientGate) -> Tensor:
        ctx.gate = gate
        return hidden.view_as(hidden)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return ctx.gate._measure_atom(gradient), None
