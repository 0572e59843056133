"""Add declarations to a task: look up their types, and refuse what cannot be."""

from collections.abc import Sequence

from ..errors import AtomError
from .functions import BUILT_IN, Maker, built_in, check_signature
from .kinds import BATCH, FAMILIES, Kind, Type
from .spec import Box, Const, Let, Source, TaskSpec, pick
from .syntax import Expression, boxes_in
from .typecheck import parameter_types, wires_of

WireText = tuple[str, tuple[int | str, ...]]
"""A type as it is written: the name of a kind or of a type, and sizes."""

NOISES = {"normal": ("pixels", "vector", "scalar"), "uniform": ("pixels", "vector", "scalar", "class")}
"""The kinds that a noise can draw."""

CONSTANTS = {"standard": "gaussian", "own": "class"}
"""Constants with a name, and the kind of each."""


class Declarations:
    """Adds declarations to `spec`. Methods raise `AtomError`."""

    def __init__(self, spec: TaskSpec):
        self.spec = spec
        self._types: dict[str, WireText] = {}

    def collect_types(self, pairs: Sequence[tuple[str, WireText]]) -> None:
        """Keep types until all are there: one may be named after another."""
        for name, wire in pairs:
            if name in self.spec.types or name in self._types or name in FAMILIES:
                what = "a kind" if name in FAMILIES else "a type"
                raise AtomError(f"type {name}: {name} is {what} already; choose another name")
            self._types[name] = wire

    def resolve_types(self) -> None:
        """Add the types that were collected."""
        for name in self._types:
            seen, base = [name], self._types[name]
            while not base[1] and base[0] in self._types:
                if base[0] in seen:
                    raise AtomError(f"type {name} goes round in a circle: {' = '.join([*seen, base[0]])}")
                seen.append(base[0])
                base = self._types[base[0]]
            self.spec.types[name] = self._kind(base, f"type {name}")
        self._types = {}

    def _kind(self, wire: WireText, where: str) -> Kind:
        name, sizes = wire
        if name in self.spec.types and not sizes:
            return self.spec.types[name]
        if name not in FAMILIES:
            known = [*self.spec.types, *FAMILIES]
            raise AtomError(f"{where}: no such type: {name}; there are {', '.join(known)}")
        if any(isinstance(size, str) and size != BATCH for size in sizes):
            raise AtomError(f"{where}: a size is a number, or batch for class(batch); got {', '.join(map(str, sizes))}")
        try:
            return Kind(name, sizes)
        except AtomError as error:
            raise AtomError(f"{where}: {error}") from error

    def _wire(self, wire: WireText, where: str) -> Type:
        kind = self._kind(wire, where)
        return Type(kind, wire[0] if wire[0] in self.spec.types else None)

    def data(self, name: str, wires: Sequence[WireText]) -> None:
        """Add a data source."""
        self._check_new(name, "data")
        types = tuple(self._wire(wire, f"data {name}") for wire in wires)
        for found in types:
            if found.kind.sizes == (BATCH,):
                raise AtomError(f"data {name}: a column cannot be class(batch); give it its number of classes")
        self.spec.sources[name] = Source(name, types)

    def noise(self, name: str, wire: WireText, maker: Maker) -> None:
        """Add a noise. A marginal is of a source that has been declared before."""
        where = f"noise {name}"
        self._check_new(name, "noise")
        found = self._wire(wire, where)
        if maker.name == "marginal":
            if maker.column is None or maker.plain or maker.options:
                raise AtomError(f"{where}: marginal takes a column of a source, as in marginal(D.2)")
            source, index = maker.column
            pick([source], {n: s for n, s in self.spec.sources.items() if s.is_data}, "data source", where)
            types = self.spec.sources[source].types
            if not 1 <= index <= len(types):
                raise AtomError(f"{where}: {source} has {len(types)} columns, and no {source}.{index}")
            if not types[index - 1].fits(found):
                raise AtomError(f"{where}: {source}.{index} is {types[index - 1]}, and {name} is {found}")
        elif maker.name not in NOISES:
            raise AtomError(
                f"{where}: no such noise: {maker.name}; there are {', '.join(NOISES)}, marginal(SOURCE.COLUMN)"
            )
        else:
            maker.values({}, where)
            if found.kind.name not in NOISES[maker.name] or found.kind.sizes == (BATCH,):
                raise AtomError(
                    f"{where}: {maker.name} draws {', '.join(NOISES[maker.name])}, and {name} is {found.kind}"
                )
        self.spec.sources[name] = Source(name, (found,), maker)

    def const(self, name: str, wire: WireText, value: float | str | None) -> None:
        """Add a constant."""
        where = f"const {name}"
        self._check_new(name, "const")
        found = self._wire(wire, where)
        kind = found.kind
        if kind.sizes == (BATCH,) and value is None:
            value = "own"
        asked = {"gaussian": "standard", "class": "the number of a class"}.get(kind.name, "a number")
        asked = "own" if kind.sizes == (BATCH,) else asked
        if kind.name == "tokens":
            raise AtomError(f"{where}: a text cannot be a constant")
        if isinstance(value, str) or value is None or asked in CONSTANTS:
            if value != asked:
                raise AtomError(
                    f"{where}: a constant of {kind} is {asked}, got {value if value is not None else 'none'}"
                )
        elif kind.name == "class" and not (value.is_integer() and 0 <= value < kind.sizes[0]):
            raise AtomError(
                f"{where}: a class of {kind} is a whole number from 0 to {kind.sizes[0] - 1}, got {value:g}"
            )
        elif kind.name == "logit" and not 0 <= value <= 1:
            raise AtomError(f"{where}: the constant of a logit is a probability from 0 to 1, got {value:g}")
        self.spec.consts[name] = Const(name, found, value)

    def box(
        self,
        names: Sequence[str],
        role: str,
        inputs: Sequence[WireText],
        outputs: Sequence[WireText],
        path: str | None = None,
        maker: Maker | None = None,
        noisy: bool = False,
    ) -> None:
        """Add boxes of one signature."""
        if len(names) > 1 and path is not None:
            raise AtomError(f"fixed {', '.join(names)}: give each its own line, to name its model")
        for name in names:
            where = f"{role} {name}"
            self._check_new(name, role)
            takes = tuple(self._wire(wire, where) for wire in inputs)
            gives = tuple(self._wire(wire, where) for wire in outputs)
            made = maker
            if role == "function":
                if made is None and name in BUILT_IN:
                    made = Maker(name)
                if made is not None:
                    function = built_in(made.name, where)
                    check_signature(made.name, takes, gives, where)
                    made.values(function.options, where)
                    noisy = noisy or function.noisy
            self.spec.boxes[name] = Box(name, role, takes, gives, path or None, made, noisy)

    def lets(self, found: Sequence[tuple[str, Sequence[tuple[str, WireText | None]], Expression]]) -> None:
        """Add lets, each after those that it uses."""
        waiting = {}
        for name, parameters, body in found:
            where = f"let {name}"
            taken = self.spec.what_is(name)
            if name in waiting or taken not in (None, "a learner") or name in self.spec.lets:
                self._check_new(name, "let")
                raise AtomError(f"{where}: {name} is a let already; choose another name")
            if taken is None:
                self._check_new(name, "let")
            names = [parameter for parameter, _ in parameters]
            for parameter in names:
                if names.count(parameter) > 1 or self.spec.what_is(parameter):
                    what = self.spec.what_is(parameter) or "a parameter"
                    raise AtomError(f"{where}: {parameter} is {what} already; choose another name")
            waiting[name] = (parameters, body)
        while waiting:
            ready = next((n for n, (_, body) in waiting.items() if not set(boxes_in(body)) & set(waiting)), None)
            if ready is None:
                raise AtomError(_circle(waiting))
            self._let(ready, *waiting.pop(ready))

    def _let(self, name: str, parameters: Sequence[tuple[str, WireText | None]], body: Expression) -> None:
        where, box = f"let {name}", self.spec.boxes.get(name)
        if box is not None and len(box.inputs) != len(parameters):
            raise AtomError(f"{where}: {name} takes {len(box.inputs)} wires ({box.signature}), got {len(parameters)}")
        given = {p: None if wire is None else self._wire(wire, where) for p, wire in parameters}
        if box is not None:
            for (parameter, known), wanted in zip(given.items(), box.inputs, strict=True):
                if known is not None and not known.fits(wanted):
                    raise AtomError(f"{where}: {parameter} is {known}, and {name} takes {wanted}")
                given[parameter] = wanted
        types = parameter_types(self.spec, given, body, where)
        outputs = wires_of(self.spec, body, types, where)
        if box is not None:
            if len(outputs) != len(box.outputs) or not all(map(Type.fits, outputs, box.outputs)):
                shown = ", ".join(map(str, outputs))
                raise AtomError(f"{where}: {body} is {shown}, and {name} is declared as {box.signature}")
            outputs = box.outputs
        self.spec.lets[name] = Let(name, tuple(types), tuple(types.values()), tuple(outputs), body)

    def _check_new(self, name: str, what: str) -> None:
        if name == "_":
            raise AtomError(f"{what} _: _ stands for a variable that is not used; choose another name")
        try:
            self.spec.check_new(name)
        except AtomError as error:
            raise AtomError(f"{what} {name}: {error}") from error


def _circle(waiting: dict[str, tuple]) -> str:
    """What to say of lets that wait for each other."""
    path = [next(iter(waiting))]
    while path[-1] not in path[:-1]:
        path.append(next(name for name in boxes_in(waiting[path[-1]][1]) if name in waiting))
    circle = path[path.index(path[-1]) :]
    return f"let {circle[0]} goes round in a circle: {' -> '.join(circle)}; a let uses only what is there without it"
