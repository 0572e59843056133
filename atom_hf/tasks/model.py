"""`TaskModel`: a task compiled to a loss."""

import contextlib
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.func import functional_call

from ..errors import AtomError, DivergedError
from ..training.random_state import noise_of_batch
from ..utils.files import replacing
from .boxes import Bound, bind, from_output
from .divergences import divergence
from .function_modules import function_of
from .functions import Maker
from .laws import energy_distance
from .plan import AtomPlan, Step, columns_used, noises_used, plan
from .saved_boxes import TASK_NAME, WEIGHTS_NAME
from .sources import Columns, Noise, another_draw, constant, first_tensor
from .spec import TaskSpec
from .term_types import Types
from .terms import Term
from .whole import check_not_trivial
from .wires import Tokens, Value, from_box, from_data, rows_of, taken, to_box


class TaskOutput(NamedTuple):
    """What `TaskModel` returns."""

    loss: Tensor
    """The weighted sum, with its gradient."""
    atoms: dict[str, Tensor]
    """The value of each atom, without a gradient and without its weight."""

    def __getitem__(self, key: Any) -> Any:
        return getattr(self, key) if isinstance(key, str) else tuple.__getitem__(self, key)


class _Modules(nn.ModuleDict):
    """Modules by names that need not differ from the methods of a ModuleDict."""

    def __init__(self, modules: Mapping[str, nn.Module]):
        super().__init__()
        self._modules.update(modules)


class TaskModel(nn.Module):
    """A task with its boxes, whose forward gives the loss of a batch.

    A learner that an atom does not train is called with detached parameters, and its output keeps its gradient: one backward
    pass gives each learner the gradient of its own atoms, through all others. Terms that atoms have in common run once.
    Fixed boxes stay in eval mode. In evaluation the noise of a batch depends on the batch alone.

    Args:
        spec: the task.
        boxes: modules by name, see `boxes.bind`. A module takes tensors and gives one, or a tuple for several wires: points of
            the simplex and logits for a class, means beside log-variances for a gaussian. One with the attribute
            `takes_wires` gets the wires of `wires.py` themselves.

    Raises:
        AtomError: a task that cannot be trained, or boxes that do not fit it.
    """

    accepts_loss_kwargs = False  # Trainer divides the loss by its accumulation steps

    def __init__(self, spec: TaskSpec, boxes: Mapping[str, nn.Module | Callable[..., Any] | str] | None = None):
        super().__init__()
        spec.check()
        check_not_trivial(spec)
        if not spec.learners:
            raise AtomError("the task has no learner, so that nothing can be trained; declare one")
        self.spec, self._types = spec, Types(spec)
        self._plans = plan(spec)
        self._columns = Columns(spec, columns_used(spec, self._plans))
        self._bound: dict[str, Bound] = bind(spec, boxes or {})
        used = {step.term.label[0] for one in self._plans for step in one.steps if step.term.op == "box"}
        self._bound |= {name: function_of(Maker(name)) for name in sorted(used - set(self._bound))}
        modules = {name: box for name, box in self._bound.items() if isinstance(box, nn.Module)}
        self.boxes = _Modules({name: box for name, box in modules.items() if name not in spec.fixed})
        self.fixed = _Modules({name: box for name, box in modules.items() if name in spec.fixed})
        self.noise = Noise(spec, noises_used(spec, self._plans))

    def train(self, mode: bool = True) -> "TaskModel":
        super().train(mode)
        self.fixed.eval()
        return self

    def learner_parameters(self) -> dict[str, dict[str, nn.Parameter]]:
        """The parameters of each learner, by the learner's name and by their names in the state dict."""
        return {
            name: {f"boxes.{name}.{key}": parameter for key, parameter in self.boxes[name].named_parameters()}
            for name in self.spec.learners
        }

    def learned_state(self) -> dict[str, Tensor]:
        """The state dict without the fixed boxes, which stay what they are. What is shared is there once."""
        found, seen = {}, set()
        for name, value in self.state_dict().items():
            place = (value.data_ptr(), value.shape, value.stride())
            if not name.startswith("fixed.") and (place not in seen or not value.numel()):
                seen.add(place)
                found[name] = value.contiguous()
        return found

    def load_learned_state(self, state: Mapping[str, Tensor], where: str) -> None:
        """Load what `learned_state` gave. Raises `AtomError`, beginning with `where`, if it is of another task."""
        own = self.learned_state()
        wrong = sorted(set(own) ^ set(state)) or [name for name in own if own[name].shape != state[name].shape]
        if wrong:
            raise AtomError(
                f"{where} holds another task or other modules: {wrong[0]} differs; give the ones it was trained with"
            )
        self.load_state_dict(state, strict=False)

    def save(self, folder: str | Path) -> None:
        """Write the task and what is learned to a folder, all or nothing: `task.task` and `model.safetensors`."""
        with replacing(folder) as part:
            (part / TASK_NAME).write_text(str(self.spec), encoding="utf-8")
            state = {name: value.cpu() for name, value in self.learned_state().items()}
            save_file(state, part / WEIGHTS_NAME, metadata={"format": "pt"})

    def forward(self, **batch: Any) -> TaskOutput:
        """The loss of a batch.

        Args:
            batch: columns of data by their place ("D.1"), by a variable or by their name in Transformers (see
                `sources.Columns`); other entries are ignored. A noise that is given by the name of its variable is not drawn.

        Raises:
            AtomError: a column that is missing or has another shape; a loss that is not a finite number.
        """
        data = self._columns.read(batch)
        rows, like = self._rows(data, batch)
        if self.training:
            self.noise.see(data)
        atoms: dict[str, Tensor] = {}
        total: Tensor | None = None
        with contextlib.nullcontext() if self.training else noise_of_batch(like):
            run = _Run(self, data, batch, rows, like)
            for one in self._plans:
                with contextlib.nullcontext() if one.trains else torch.no_grad():
                    value = run.atom(one)
                atoms[one.atom.name] = value.detach()
                if one.trains:
                    weighted = one.atom.weight * value
                    total = weighted if total is None else total + weighted
        if not bool(torch.isfinite(total)):
            bad = [f"{name} is {value.item():g}" for name, value in atoms.items() if not bool(torch.isfinite(value))]
            says = ", ".join(bad) or f"the sum of all atoms is {total.item():g}"
            raise DivergedError(f"{says}: the loss is not a finite number; lower the learning rate or the weights")
        return TaskOutput(total, atoms)

    def _rows(self, data: Mapping[tuple[str, int], Value], batch: Mapping[str, Any]) -> tuple[int, Tensor]:
        found = next(iter(data.values()), None)
        if found is None:  # a task of noise alone
            found = next((value for value in batch.values() if torch.is_tensor(value) and value.dim()), None)
        if found is None or not rows_of(found):
            raise AtomError("the batch has no rows; give at least one column")
        return rows_of(found), first_tensor(found)

    def call(self, name: str, inputs: list[Value], frozen: bool) -> tuple[Value, ...]:
        """The wires that a box gives of wires."""
        box = self.spec.boxes.get(name)
        bound = self._bound[name]
        given = inputs if getattr(bound, "takes_wires", False) else [to_box(value) for value in inputs]
        if frozen and torch.is_grad_enabled():
            detached = {key: parameter.detach() for key, parameter in bound.named_parameters()}
            output = functional_call(bound, detached, tuple(given))
        else:
            output = bound(*given)
        if box is None:
            return (output,)
        kinds = [wire.kind for wire in box.outputs]
        outputs = output if len(kinds) > 1 else (output,)
        if not isinstance(outputs, tuple | list) or len(outputs) != len(kinds):
            raise AtomError(f"{name} gives {box.signature}, and its module gave a {type(output).__name__}")
        mask = next((value.mask for value in inputs if isinstance(value, Tokens)), None)
        return tuple(
            from_box(kind, from_output(kind, value, mask), name) for kind, value in zip(kinds, outputs, strict=True)
        )


class _Run:
    """The values of one forward pass."""

    def __init__(
        self, model: TaskModel, data: Mapping[tuple[str, int], Value], batch: Mapping[str, Any], rows: int, like: Tensor
    ):
        self.model, self.data, self.batch, self.rows, self.like = model, data, batch, rows, like
        self.values: dict[Hashable, Any] = {}
        self.orders: dict[tuple[str, int], Tensor] = {}

    def atom(self, one: AtomPlan) -> Tensor:
        for step in one.steps:
            if step.key not in self.values:
                self.values[step.key] = self._value(step, one)
        left, right = ([self.values[key] for key in side] for side in (one.left, one.right))
        atom = one.atom
        if atom.relation == "minimize":
            return left[0].mean()
        if atom.relation == "~":
            return energy_distance(left, right, atom.name)
        kinds = [self.model._types.of(key[0]).kind for key in one.left]
        parts = [divergence(kind, a, b, atom.divergence) for kind, a, b in zip(kinds, left, right, strict=True)]
        return torch.stack(parts).sum() if len(parts) > 1 else parts[0]

    def _value(self, step: Step, one: AtomPlan) -> Any:
        term = step.term
        match term.op:
            case "const":
                return constant(self.model.spec.consts[term.label[0]], self.rows, self.like)
            case "part":
                return self.values[step.arguments[0]][term.label[0]]
            case "var":
                return self._variable(term, one)
        name = term.label[0]
        outputs = self.model.call(name, [self.values[key] for key in step.arguments], step.frozen)
        return outputs if len(outputs) > 1 else outputs[0]

    def _variable(self, term: Term, one: AtomPlan) -> Value:
        source, draw, column = term.label
        if self.model.spec.sources[source].is_data:
            value = self.data[source, column]
            if draw == 0:
                return value
            if (source, draw) not in self.orders:
                self.orders[source, draw] = another_draw(self.rows, draw, self.like)
            return taken(value, self.orders[source, draw])
        draws = [binding for binding in one.atom.over if binding.source == source]
        given = self.batch.get(draws[draw].names[column])
        if given is not None:
            return from_data(self.model.spec.sources[source].types[0].kind, given, draws[draw].names[column])
        return self.model.noise.draw(source, self.data, self.rows, self.like)
