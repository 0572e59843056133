"""Finite models of a task: every type a small set, every box a table."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

from .kinds import BATCH, Kind
from .spec import TaskSpec
from .term_types import Types
from .terms import Term, subterms

LARGEST = 200  # nodes of a term, its copies counted

MOST_POINTS = 3000  # at which an equation is checked

Point = Mapping[tuple, int]
"""The row of each draw (source, number), and the noise of each noisy box ("noisy", number)."""

Entry = tuple[str, tuple[int, ...]]
"""A table and its key."""


class SpentError(Exception):
    """A search has taken as many steps as it may, or would have too many points to look at."""


class MissingError(Exception):
    """An entry that is not chosen yet; what reads it; and the value that the equation at hand gives it, if it does."""

    def __init__(self, entry: Entry, many: int, reader: "Value"):
        super().__init__(entry)
        self.entry, self.many, self.reader, self.forced = entry, many, reader, None


@dataclass(frozen=True)
class Setting:
    """How large things are."""

    classes: int
    """Values of a class type, if it has so many."""
    others: int
    """Values of every other type."""
    rows: int
    """Rows of each data source; their first columns differ, if there are values enough."""
    support: int
    """Values that a noise takes that is no class."""


Value = Callable[[], int]


@dataclass
class Model:
    """Tables of a task's boxes, as far as they are chosen.

    `tables` may be given from the start, such as {"get": {(0,): 1, (1,): 0}}; entries that are missing are searched for.
    """

    spec: TaskSpec
    setting: Setting
    tables: dict[str, dict[tuple[int, ...], int]] = field(default_factory=dict)
    steps: int = 0
    """Entries that were tried."""

    def __post_init__(self) -> None:
        self.types = Types(self.spec)
        self.consts: dict[str, int] = {}
        for const in self.spec.consts.values():
            same = [other for other in self.consts if self.spec.consts[other].type.kind == const.type.kind]
            twin = next((other for other in same if self.spec.consts[other].value == const.value), None)
            self.consts[const.name] = self.consts[twin] if twin else len({self.consts[other] for other in same})

    @property
    def holds_constants(self) -> bool:
        """Whether the sets have room for the constants."""
        return all(value < self.many(self.spec.consts[name].type.kind) for name, value in self.consts.items())

    def many(self, kind: Kind) -> int:
        """The number of values of a kind."""
        if kind.name != "class" or kind.sizes == (BATCH,):
            return self.setting.others
        return min(kind.sizes[0], self.setting.classes)

    def column(self, source: str, column: int, row: int) -> Value:
        """The value of a source's column: in a row of data, or that value of a noise."""
        found = self.spec.sources[source]
        many = self.many(found.types[column].kind)
        if not found.is_data or (column == 0 and many >= self.setting.rows):
            return lambda: row
        return self._read(f"{source}.{column + 1}", [lambda: row], many)

    def value(self, term: Term, point: Point) -> Value:
        """The value of a term at a point, to be computed from the tables as they are then."""
        made: dict[Term, Value] = {}
        for one in subterms(term):
            if one.op == "var":
                source, draw, column = one.label
                made[one] = self.column(source, column, point[source, draw])
            elif one.op == "const":
                made[one] = (lambda value: lambda: value)(self.consts[one.label[0]])
            elif one.op == "part":
                made[one] = self._box(one.arguments[0], one.label[0], made, point)
            elif self._outputs(one) == 1:
                made[one] = self._box(one, 0, made, point)
        return made[term]

    def _outputs(self, box: Term) -> int:
        found = self.spec.boxes.get(box.label[0])
        return 1 if found is None else len(found.outputs)

    def _box(self, box: Term, place: int, made: Mapping[Term, Value], point: Point) -> Value:
        name, draw = box.label
        inputs = [made[part] for part in box.arguments]
        if draw is not None:
            inputs.append((lambda value: lambda: value)(point["noisy", draw]))
        declared = self.spec.boxes.get(name)
        kind = self.types.of(box).kind if declared is None else declared.outputs[place].kind
        return self._read(name if self._outputs(box) == 1 else f"{name}.{place + 1}", inputs, self.many(kind))

    def _read(self, name: str, inputs: Sequence[Value], many: int) -> Value:
        table = self.tables.setdefault(name, {})

        def read() -> int:
            key = tuple([value() for value in inputs])
            found = table.get(key)
            if found is None:
                raise MissingError((name, key), many, read)
            return found

        return read

    def clear(self) -> None:
        """Empty all tables."""
        for table in self.tables.values():
            table.clear()

    def points(self, *terms: Term) -> list[Point]:
        """The points at which some terms are to be compared. Raises `SpentError` if there are too many."""
        ranges: dict[tuple, range] = {}
        for term in subterms(*terms):
            if term.op == "var":
                source = self.spec.sources[term.label[0]]
                many = self.many(source.types[0].kind)
                if source.is_data:
                    many = self.setting.rows
                elif source.types[0].kind.name != "class":
                    many = min(self.setting.support, many)
                ranges[term.label[:2]] = range(many)
            elif term.op == "box" and term.label[1] is not None:
                ranges["noisy", term.label[1]] = range(2)
        if math.prod(map(len, ranges.values())) > MOST_POINTS:
            raise SpentError
        return [dict(zip(ranges, point, strict=True)) for point in product(*ranges.values())]

    def law(self, terms: tuple[Term, ...]) -> Callable[[], dict[tuple[int, ...], int]]:
        """How often each value of some terms comes, of all points; a marginal is drawn from the rows of its data."""
        rows = range(self.setting.rows)
        marginals = {
            term.label[:2]: self.spec.sources[term.label[0]].maker.column
            for term in subterms(*terms)
            if term.op == "var" and is_marginal(self.spec, term.label[0])
        }
        columns = {at: [self.column(data, c - 1, row) for row in rows] for at, (data, c) in marginals.items()}
        points = [point for point in self.points(*terms) if all(point[at] == 0 for at in marginals)]

        def found() -> dict[tuple[int, ...], int]:
            counts: Counter = Counter()
            drawn = [{at: values[row]() for at, values in columns.items()} for row in rows] if columns else [{}]
            for point in points:
                for chosen in product(drawn, repeat=len(columns)):
                    mine = {at: chosen[place][at] for place, at in enumerate(columns)}
                    counts[tuple([self.value(term, {**point, **mine})() for term in terms])] += 1
            return dict(counts)

        return found


def is_marginal(spec: TaskSpec, source: str) -> bool:
    """Whether a source is a noise with the law of a data set's column."""
    found = spec.sources[source]
    return not found.is_data and found.maker.name == "marginal"
