"""Scale the atom gradient to a fixed ratio of the task gradient (ours)."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..atoms.config import AtomConfig
from .sharding import watch_gradient

# Autograd's names for the operations that return a view or a copy of one tensor.
_VIEWS = {
    f"{name}Backward0"
    for name in ("Clone", "Slice", "View", "Alias", "Permute", "Transpose", "Unsqueeze", "UnsafeView", "Select")
}


class GradientBalancer:
    """Identity between the hidden states and the heads, whose backward pass scales the atom gradient by that of the task.

    No single absolute weight suits both a model trained from scratch and a pretrained one: at the hidden states of the latter
    the atom gradient starts several times as large as the task's, and costs accuracy. The balancer measures the norms of both
    there, and scales the atom gradient that reaches the model to `ratio` times the task's. The heads themselves always learn
    at full strength.

    Norms are taken over all samples of a step and, by `update`, over processes; the current factor comes from the previous
    steps. So it does not depend on how a batch is split over processes or accumulation steps. It is part of a checkpoint
    (`state`, `load`).

    Args:
        ratio: norm of the atom gradient over that of the task; None passes the gradient unchanged, and measures nothing.
    """

    MOMENTUM = 0.9  # of the running norms, per step
    LIMIT = 100.0  # a factor beyond it would amplify noise where the atom loss has next to no gradient

    def __init__(self, ratio: float | None) -> None:
        self.ratio = ratio
        self.strength = 1.0
        """The multiplier of the factor by the schedule, in [0, 1]: 0 while the heads warm up."""
        # Tensors, on the device of the hidden states: Python numbers would synchronize an accelerator at every step.
        # Until norms have been measured nothing passes, unless the gradient is passed unchanged.
        self._scale = torch.tensor(1.0 if ratio is None else 0.0)
        self._norms = torch.zeros(2)  # of the task's gradient and of the atom term's, running
        self._share = torch.tensor(1.0)  # of the next norms in the running ones
        self._steps = torch.tensor(0)
        self._squares: tuple[list[Tensor], list[Tensor]] = ([], [])  # squared norms of this step, like `_norms`
        self._running = False  # whether this step has had a forward pass

    @classmethod
    def of(cls, config: AtomConfig) -> "GradientBalancer":
        """The balancer for a configuration."""
        return cls(config.weight if config.weighting == "relative" else None)

    def __call__(self, hidden: Tensor) -> Tensor:
        """Return `hidden` unchanged, with the gradient that flows back through it scaled by `scale`."""
        if not hidden.requires_grad:
            return hidden
        if self.ratio is None:
            return hidden if self.strength == 1 else _Scale.apply(hidden, self.strength)
        if self._scale.device != hidden.device:
            self._scale, self._norms, self._share, self._steps = (
                state.to(hidden.device) for state in (self._scale, self._norms, self._share, self._steps)
            )
        self._running = True
        # The hook sees the whole gradient of the hidden states, after both the task's part and the balancer's have arrived.
        # A step may have several forward passes: each keeps track of its own gradients.
        seen = _Seen()
        watch_gradient(hidden, functools.partial(self._measure_task, seen))
        view, (source, index) = None, (hidden.grad_fn, hidden.output_nr)
        while type(source).__name__ in _VIEWS:
            view = source
            source, index = source.next_functions[0]
        if view is not None and source is not None:
            # A model may compute on with the tensor that the hidden states are a view of (Longformer cuts its own padding off,
            # XLNet transposes): the task's gradient then does not pass the view. The hooks hold no node of the graph, which
            # would be a cycle that is never freed.
            view.register_hook(seen.take_view)
            source.register_prehook(functools.partial(self._measure_source, seen, index))
        return _Balance.apply(hidden, self, seen)

    @property
    def scale(self) -> float:
        """The current factor of the atom gradient, schedule included."""
        return self.strength * self._scale.item()

    def update(self, reduce: Callable[[Tensor], Tensor]) -> None:
        """End a step and set the factor for the next one. `reduce` sums a tensor [2] over processes."""
        if not self._running:
            return
        task, atom = (
            sum(squares[1:], squares[0]) if squares else self._norms.new_zeros(()) for squares in self._squares
        )
        self.drop()
        norms = reduce(torch.stack([task, atom]).to(self._norms.dtype)).sqrt()
        counts = norms.sum() < float("inf")  # else an overflow that the gradient scaler skips
        self._norms = torch.where(counts, torch.lerp(self._norms, norms, self._share), self._norms)
        self._share = self._share.masked_fill(counts, 1 - self.MOMENTUM)
        self._steps = self._steps + counts
        task, atom = self._norms
        scale = (task / atom * self.ratio).clamp(max=self.LIMIT)
        self._scale = torch.where(atom > 0, scale, self._scale)

    def drop(self) -> None:
        """Discard the measurements of an unfinished step."""
        self._squares, self._running = ([], []), False

    def state(self) -> dict[str, float]:
        """The state for a checkpoint; `load` restores it."""
        task, atom = self._norms.tolist()
        return {"scale": self._scale.item(), "task_norm": task, "atom_norm": atom, "steps": self._steps.item()}

    def load(self, state: dict[str, float]) -> None:
        """Restore what `state` returned."""
        self._scale = torch.tensor(float(state["scale"]))
        self._norms = torch.tensor([float(state["task_norm"]), float(state["atom_norm"])])
        self._steps = torch.tensor(int(state["steps"]))
        self._share = torch.tensor(1 - self.MOMENTUM if self._steps else 1.0)

    def _measure_atom(self, seen: "_Seen", gradient: Tensor) -> Tensor:
        self._squares[1].append(_squared_norm(gradient))
        scale = self._scale if self.strength == 1 else self.strength * self._scale
        seen.passed.append(gradient * scale)
        return seen.passed[-1]

    def _measure_task(self, seen: "_Seen", gradient: Tensor) -> None:
        # One entry for each backward pass: a graph may be traversed more than once.
        seen.task = _squared_norm(gradient - seen.passed.pop() if seen.passed else gradient)
        self._squares[0].append(seen.task)

    def _measure_source(self, seen: "_Seen", index: int, gradients: tuple[Tensor | None, ...]) -> None:
        in_view, through, gradient = seen.task, seen.through, gradients[index]
        seen.task = seen.through = None
        # If the view carries no task gradient, all that came through it is the scaled atom gradient.
        if gradient is None:
            return
        task = _squared_norm(gradient if through is None else gradient - through)
        self._squares[0].append(task if in_view is None else torch.where(in_view > 0, 0.0, task))


class _Seen:
    """The gradients of one forward pass that the backward pass has measured."""

    def __init__(self) -> None:
        self.passed: list[Tensor] = []
        """The scaled atom gradients."""
        self.task: Tensor | None = None
        """The task's squared norm at the hidden states."""
        self.through: Tensor | None = None
        """The gradient that the view passed on to the tensor behind the hidden states."""

    def take_view(self, gradients: tuple[Tensor | None, ...], _: Any) -> None:
        self.through = gradients[0]


def _squared_norm(x: Tensor) -> Tensor:
    """||x||^2 in float32 or wider, without casting a copy of `x`."""
    return torch.linalg.vector_norm(x, dtype=torch.promote_types(x.dtype, torch.float32)).square()


class _Balance(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden: Tensor, balancer: GradientBalancer, seen: _Seen) -> Tensor:
        ctx.balancer, ctx.seen = balancer, seen
        return hidden.view_as(hidden)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return ctx.balancer._measure_atom(ctx.seen, gradient), None, None


class _Scale(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return hidden.view_as(hidden)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return gradient * ctx.scale, None
