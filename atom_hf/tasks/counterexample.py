"""Search small finite models for one in which a task's atoms hold and another atom does not."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from .finite import LARGEST, MissingError, Model, Point, Setting, SpentError, Value
from .kinds import BATCH
from .solving import Constraint, constraints_of, same_law, solutions
from .spec import TaskSpec
from .terms import Sides, Term, show, show_all, subterms

SIZES = (2, 3, 4, 6)

BUDGETS = (60, 600, 3000)  # entries to try at each point, of ever longer searches

MOST_STEPS = 40_000  # of all together: some seconds


@dataclass(frozen=True)
class Counterexample:
    """A finite model in which one task holds, and an atom of another does not."""

    atom: str
    sets: dict[str, int]
    """The number of values of each type."""
    data: dict[str, list[tuple[int, ...]]]
    """The rows of each data source, equally likely."""
    tables: dict[str, dict[tuple[int, ...], int]]
    """What each box gives; the last input of a noisy one is its noise. What nothing reads is left out."""
    failure: str

    def __str__(self) -> str:
        lines = [", ".join(f"{name} has {many} values" for name, many in self.sets.items())]
        lines += [f"{name} gives {', '.join(map(_tuple, rows))}" for name, rows in self.data.items()]
        for name, table in self.tables.items():
            entries = (f"{_tuple(key)} -> {value}" for key, value in sorted(table.items()))
            lines.append(f"{name}: {', '.join(entries)}")
        return "\n".join([*lines, self.failure])


def find_counterexample(spec: TaskSpec, sides: Sequence[Sides], goal: Sides) -> Counterexample | None:
    """A finite model of a task's atoms in which another atom fails; None if none was found among small ones."""
    if any(_copies(term) > LARGEST for one in (*sides, goal) for term in (*one.left, *one.right)):
        return None
    searches = []
    for model in (Model(spec, setting) for setting in _settings(spec)):
        with suppress(SpentError):  # too large to be enumerated
            if model.holds_constants:
                searches.append((model, constraints_of(model, sides), list(_failures(model, goal))))
    left = MOST_STEPS
    for budget in BUDGETS:
        for model, rest, failures in searches:
            for terms, point in failures:
                model.clear()
                before = model.steps
                try:
                    found = next(solutions(model, [_fails(model, goal, terms, point), *rest], budget), None)
                except SpentError:
                    found = None
                if found is not None:
                    return _counterexample(found, goal, point)
                left -= model.steps - before
                if left <= 0:
                    return None
    return None


def _settings(spec: TaskSpec) -> Iterator[Setting]:
    """From small to large; first those whose data takes every value, and then those where it leaves one out."""
    wires = [wire for source in spec.sources.values() for wire in source.types]
    wires += [wire for box in spec.boxes.values() for wire in (*box.inputs, *box.outputs)]
    largest = max((w.kind.sizes[0] for w in wires if w.kind.name == "class" and w.kind.sizes != (BATCH,)), default=2)
    has_noise = any(not s.is_data and s.types[0].kind.name != "class" for s in spec.sources.values())
    for missing in (0, 1):
        for others in SIZES:
            for classes in range(2, min(largest, 3) + 1):
                for support in (others, others - 1) if has_noise else (others,):
                    yield Setting(classes, others, others - missing, support)


def _failures(model: Model, goal: Sides) -> Iterator[tuple[tuple[Term, Term] | None, Point | None]]:
    """What may fail: two wires at a point, of points that are the same but for names only one; or a law."""
    if goal.atom.relation == "~":
        yield None, None
        return
    for terms in zip(goal.left, goal.right, strict=True):
        points = [point for point in model.points(*terms) if _is_first(point)]
        for point in sorted(points, key=_repeats):
            yield terms, point


def _is_first(point: Point) -> bool:
    """Whether new values of each source come in the order 0, 1, 2: other points differ from such a one in names alone."""
    most: dict[str, int] = {}
    for (source, _), value in point.items():
        if source != "noisy":
            if value > most.get(source, -1) + 1:
                return False
            most[source] = max(value, most.get(source, -1))
    return True


def _repeats(point: Point) -> int:
    return len(point) - len({(source, value) for (source, _), value in point.items()})


def _fails(model: Model, goal: Sides, terms: tuple[Term, Term] | None, point: Point | None) -> Constraint:
    if terms is None or point is None:
        return Constraint(None, other=same_law(model, goal, differ=True))
    return Constraint((model.value(terms[0], point), model.value(terms[1], point)), differ=True)


def _counterexample(model: Model, goal: Sides, point: Point | None) -> Counterexample:
    spec, names = model.spec, goal.names
    wires = [wire for box in spec.boxes.values() for wire in (*box.inputs, *box.outputs)]
    sets = {str(wire): model.many(wire.kind) for wire in wires}
    data = {
        name: [
            tuple(_drawn(model, name, c, row) for c in range(len(source.types))) for row in range(model.setting.rows)
        ]
        for name, source in spec.sources.items()
        if source.is_data
    }
    columns = {f"{name}.{c + 1}" for name, source in spec.sources.items() for c in range(len(source.types))}
    tables = {name: dict(table) for name, table in model.tables.items() if name not in columns and table}
    if point is None:
        sides = f"{show_all(goal.left, names)} ~ {show_all(goal.right, names)}"
        failure = f"but {goal.atom.name} fails: {sides} does not hold"
    else:
        terms = (*goal.left, *goal.right)
        leaves = [term for term in subterms(*terms) if term.op == "var"]
        at = ", ".join(f"{show(leaf, names)} = {model.value(leaf, point)()}" for leaf in leaves)
        gives = [f"{show(term, names)} is {_value(model, term, point)}" for term in terms if term.op != "var"]
        failure = f"but {goal.atom.name} fails{f' at {at}' if at else ''}: {', '.join(gives)}"
    return Counterexample(goal.atom.name, sets, data, tables, failure)


def _value(model: Model, term: Term, point: Point) -> str:
    return _known(model.value(term, point), "anything")


def _drawn(model: Model, source: str, column: int, row: int) -> int:
    return int(_known(model.column(source, column, row), "0"))


def _known(value: Value, otherwise: str) -> str:
    """A value, or what stands for any: nothing has read the entries that give it."""
    try:
        return str(value())
    except MissingError:
        return otherwise


def _copies(term: Term) -> int:
    """The nodes of a term, its copies counted."""
    counts: dict[Term, int] = {}
    for one in subterms(term):
        counts[one] = min(1 + sum(counts[part] for part in one.arguments), 10**9)
    return counts[term]


def _tuple(values: tuple[int, ...]) -> str:
    return str(values[0]) if len(values) == 1 else f"({', '.join(map(str, values))})"
