"""Solve the equations of a task in finite models, by backtracking.

A table is filled in entry by entry, as equations read it: an equation waits for the first entry that it misses, and an entry
that an equation determines is not tried with other values.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from .finite import Entry, MissingError, Model, SpentError, Value, is_marginal
from .terms import Sides

Check = Callable[[], bool]


@dataclass(frozen=True)
class Constraint:
    """What must be true: that two values are equal, or differ, or anything else."""

    sides: tuple[Value, Value] | None
    differ: bool = False
    other: Check | None = None

    def check(self) -> bool:
        """Whether it holds. Raises `MissingError` while that is not known."""
        if self.sides is None:
            return self.other()
        left, right = self.sides
        try:
            first = left()
        except MissingError as missing:
            # What gives the left side is missing itself, not what that is computed from: the right side says what it is.
            if missing.reader is left and not self.differ:
                with suppress(MissingError):
                    missing.forced = right()
            raise
        try:
            return (first == right()) != self.differ
        except MissingError as missing:
            if missing.reader is right and not self.differ:
                missing.forced = first
            raise


def constraints_of(model: Model, sides: Sequence[Sides]) -> list[Constraint]:
    """What the atoms of a task ask for, point by point. A cost is at its least where it is the first value everywhere."""
    found = []
    for name, source in model.spec.sources.items():
        if is_marginal(model.spec, name):  # it is taken to have full support
            data, column = source.maker.column
            values = [model.column(data, column - 1, row) for row in range(model.setting.rows)]
            wanted = set(range(model.many(source.types[0].kind)))
            found.append(Constraint(None, other=lambda v=values, w=wanted: {value() for value in v} == w))
    for one in sides:
        if one.atom.relation == "~":
            found.append(Constraint(None, other=same_law(model, one)))
            continue
        for place, left in enumerate(one.left):
            right = one.right[place] if one.right else None
            for point in model.points(left, *([] if right is None else [right])):
                other = (lambda: 0) if right is None else model.value(right, point)
                found.append(Constraint((model.value(left, point), other)))
    return found


def same_law(model: Model, one: Sides, differ: bool = False) -> Check:
    """Whether the two sides of an atom have one law, or differ."""
    left, right = model.law(one.left), model.law(one.right)

    def check() -> bool:
        first, second = left(), right()
        many, others = sum(first.values()), sum(second.values())
        same = all(first.get(v, 0) * others == second.get(v, 0) * many for v in {*first, *second})
        return same != differ

    return check


def solutions(model: Model, constraints: Sequence[Constraint], most: int = 10**9) -> Iterator[Model]:
    """The model with each choice of the entries that make all constraints true.

    Its tables change from one to the next: copy what is kept.

    Args:
        most: entries to try.

    Raises:
        SpentError: they have been tried.
    """
    waiting: dict[Entry, list[Constraint]] = {}
    known: dict[Entry, tuple[int, set[int]]] = {}
    if _settle(constraints, waiting, known):
        yield from _search(model, waiting, known, model.steps + most)


def _settle(
    constraints: Sequence[Constraint],
    waiting: dict[Entry, list[Constraint]],
    known: dict[Entry, tuple[int, set[int]]],
) -> bool:
    """Sort constraints by the entries that they miss. False if one is false, or if two want one entry to be different."""
    for constraint in constraints:
        try:
            if not constraint.check():
                return False
        except MissingError as missing:
            entry = missing.entry
            waiting[entry] = [*waiting.get(entry, []), constraint]
            many, forced = known.get(entry, (missing.many, set()))
            if missing.forced is not None:
                forced = {*forced, missing.forced}
                if len(forced) > 1 or missing.forced >= many:
                    return False
            known[entry] = many, forced
    return True


def _search(
    model: Model,
    waiting: dict[Entry, list[Constraint]],
    known: dict[Entry, tuple[int, set[int]]],
    last: int,
) -> Iterator[Model]:
    if not waiting:
        yield model
        return
    entry = max(waiting, key=lambda one: (len(known[one][1]), len(waiting[one])))
    many, forced = known[entry]
    table = model.tables[entry[0]]
    rest = {one: constraints for one, constraints in waiting.items() if one != entry}
    for value in forced or range(many):
        model.steps += 1
        if model.steps > last:
            raise SpentError
        table[entry[1]] = value
        below, learned = dict(rest), {one: known[one] for one in rest}
        if _settle(waiting[entry], below, learned):
            yield from _search(model, below, learned, last)
    del table[entry[1]]
