"""Where the values of variables come from: the columns of a batch, noise, and constants."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import AtomError
from ..utils.distributed import processes, sum_over_processes
from .divergences import Probability
from .function_modules import drawn
from .kinds import BATCH, Type
from .spec import Const, Source, TaskSpec
from .wires import Gaussian, Simplex, Tokens, Value, from_data, rows_of, taken

TRANSFORMERS_NAMES = {"pixels": "pixel_values", "class": "labels", "tokens": "input_ids"}
"""Names of a batch's columns in Transformers, for a task that has one column of the kind."""


class Columns:
    """Finds the columns of data sources in a batch.

    A column is given by its place, such as "D.1", by a variable that is bound to it and to no other, or, if it is the only one
    of its kind, by its name in Transformers.

    Args:
        used: the columns (source, number from 0) that atoms use.
    """

    def __init__(self, spec: TaskSpec, used: Sequence[tuple[str, int]]):
        self.spec, self.used = spec, list(used)
        bound: dict[str, set[tuple[str, int]]] = {}
        for atom in spec.atoms.values():
            for binding in atom.over:
                for column, name in enumerate(binding.names):
                    bound.setdefault(name, set()).add((binding.source, column))
        every = [(n, c, w.kind.name) for n, s in spec.sources.items() if s.is_data for c, w in enumerate(s.types)]
        self.names: dict[tuple[str, int], list[str]] = {}
        for source, column in self.used:
            names = [f"{source}.{column + 1}"]
            names += [name for name, places in bound.items() if places == {(source, column)} and name != "_"]
            kind = spec.sources[source].types[column].kind.name
            if kind in TRANSFORMERS_NAMES and sum(other == kind for *_, other in every) == 1:
                names.append(TRANSFORMERS_NAMES[kind])
            self.names[source, column] = names

    def read(self, batch: Mapping[str, Any]) -> dict[tuple[str, int], Value]:
        """The wires of a batch. Raises `AtomError` for one that lacks a column, or holds it in another shape."""
        found = {}
        for (source, column), names in self.names.items():
            wire = self.spec.sources[source].types[column]
            name = next((name for name in names if batch.get(name) is not None), None)
            where = f"{source}.{column + 1} ({wire})"
            if name is None:
                raise AtomError(
                    f"{where}: the batch holds {', '.join(batch) or 'nothing'}; give it as {' or '.join(names)}"
                )
            value = batch[name]
            if wire.kind.name == "tokens" and torch.is_tensor(value):
                value = (value, batch.get(f"{name}.mask", batch.get("attention_mask")))
            found[source, column] = from_data(wire.kind, value, where)
        rows = {f"{s}.{c + 1}": rows_of(value) for (s, c), value in found.items()}
        if len(set(rows.values())) > 1:
            shown = ", ".join(f"{name} has {many}" for name, many in rows.items())
            raise AtomError(f"all columns of a batch have the same number of rows; {shown}")
        return found


class Noise(nn.Module):
    """Draws the noises of a task. A marginal of classes is that of the rows seen in training, this batch's among them.

    Buffers `seen_<noise>` [n] count their classes, so that a run that is resumed goes on alike.

    Args:
        used: the names of the noises.
    """

    def __init__(self, spec: TaskSpec, used: Collection[str]):
        super().__init__()
        self.sources = {name: spec.sources[name] for name in used}
        for name, source in self.sources.items():
            if _is_class_marginal(source):
                self.register_buffer(f"seen_{name}", torch.zeros(source.types[0].kind.sizes[0], dtype=torch.float64))

    @torch.no_grad()
    def see(self, data: Mapping[tuple[str, int], Value]) -> None:
        """Count the classes of a training batch."""
        for name, source in self.sources.items():
            if _is_class_marginal(source):
                self._counts(name).add_(sum_over_processes(self._counted(source, data)))

    def draw(self, name: str, data: Mapping[tuple[str, int], Value], rows: int, like: Tensor) -> Value:
        """Values for so many rows, on the device of `like`."""
        source = self.sources[name]
        wire, device = source.types[0], like.device
        if source.maker.name == "marginal":
            column = data[source.maker.column[0], source.maker.column[1] - 1]
            if not _is_class_marginal(source):
                return taken(column, drawn(lambda n: torch.randint(rows, (n,), device=device), rows))
            weights = self._counts(name)
            weights = weights if weights.sum() > 0 else self._counted(source, data)
            ids = drawn(lambda n: torch.multinomial(weights.float(), n, replacement=True), rows)
            return Simplex(ids=ids, classes=len(weights))
        if wire.kind.name == "class":
            classes = wire.kind.sizes[0]
            return Simplex(ids=drawn(lambda n: torch.randint(classes, (n,), device=device), rows), classes=classes)
        make = torch.randn if source.maker.name == "normal" else torch.rand
        return drawn(lambda n: make(n, *wire.kind.sizes, device=device), rows)

    def _counts(self, name: str) -> Tensor:
        return getattr(self, f"seen_{name}")

    def _counted(self, source: Source, data: Mapping[tuple[str, int], Value]) -> Tensor:
        place, column = source.maker.column
        return data[place, column - 1].point.double().sum(0)


def _is_class_marginal(source: Source) -> bool:
    wire: Type = source.types[0]
    return source.maker.name == "marginal" and wire.kind.name == "class" and wire.kind.sizes != (BATCH,)


def constant(const: Const, rows: int, like: Tensor) -> Value:
    """The wire of a constant, for so many rows, on the device of `like`."""
    kind, device = const.type.kind, like.device
    if const.value == "own":
        # The rows that `against` compares are those of all processes.
        return Simplex(ids=torch.arange(rows * processes(), device=device))
    if const.value == "standard":
        zeros = torch.zeros(rows, kind.sizes[0], device=device)
        return Gaussian(zeros, zeros)
    if kind.name == "class":
        ids = torch.full((rows,), int(const.value), dtype=torch.long, device=device)
        return Simplex(ids=ids, classes=kind.sizes[0])
    value = torch.full((rows, *kind.sizes), float(const.value), device=device)
    return Probability(value) if kind.name == "logit" else value


def another_draw(rows: int, number: int, like: Tensor) -> Tensor:
    """The rows [B] of an independent draw of a batch: no row keeps its place, nor has the same as in another draw.

    (A batch with fewer rows than draws has no such order; its last draws repeat.)
    """
    order = torch.randperm(rows, device=like.device)
    places = torch.empty_like(order)
    places[order] = order.roll(number)
    return places


def first_tensor(value: Value) -> Tensor:
    """A tensor of a wire, which tells the device."""
    match value:
        case Simplex():
            return next(part for part in (value.ids, value.logits, value.probabilities) if part is not None)
        case Gaussian():
            return value.mean
        case Tokens():
            return value.mask
    return value
