"""In what order the terms of a task are computed, and which of them are computed once for several atoms."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from .spec import Atom, TaskSpec
from .terms import Sides, Term, sides_of, subterms
from .typecheck import learners_in


@dataclass(frozen=True)
class Step:
    """A term to be computed for an atom."""

    term: Term
    key: Hashable
    """The same for two atoms that may share the value."""
    arguments: tuple[Hashable, ...]
    frozen: bool = False
    """Whether the term is a learner that the atom does not train."""


@dataclass(frozen=True)
class AtomPlan:
    """The steps of an atom, those that others need before them, and the keys of its sides."""

    atom: Atom
    trains: tuple[str, ...]
    steps: tuple[Step, ...]
    left: tuple[Hashable, ...]
    right: tuple[Hashable, ...]


def plan(spec: TaskSpec) -> list[AtomPlan]:
    """The plans of all atoms, in their order. Raises `AtomError` for an atom that is huge once its lets are filled in.

    A value is shared where the term is the same, and the learners in it that are frozen: noise is drawn anew for each atom.
    """
    return [_plan(spec, sides_of(spec, atom)) for atom in spec.atoms.values()]


def columns_used(spec: TaskSpec, plans: Sequence[AtomPlan]) -> list[tuple[str, int]]:
    """The columns (source, number from 0) of data that atoms use, or that their noises have the law of."""
    terms = [step.term for one in plans for step in one.steps if step.term.op == "var"]
    found = {}
    for source, _, column in (term.label for term in terms):
        if spec.sources[source].is_data:
            found[source, column] = None
        elif spec.sources[source].maker.column:
            place, index = spec.sources[source].maker.column
            found[place, index - 1] = None
    return list(found)


def noises_used(spec: TaskSpec, plans: Sequence[AtomPlan]) -> list[str]:
    """The names of the noises that atoms draw, in the order of their declarations."""
    used = {step.term.label[0] for one in plans for step in one.steps if step.term.op == "var"}
    return [name for name, source in spec.sources.items() if name in used and not source.is_data]


def _plan(spec: TaskSpec, sides: Sides) -> AtomPlan:
    atom = sides.atom
    trains = tuple(atom.trains or learners_in(spec, atom)) if atom.weight > 0 else ()
    frozen: dict[Term, frozenset[str]] = {}
    drawn: dict[Term, bool] = {}
    keys: dict[Term, Hashable] = {}
    steps = []
    for term in subterms(*sides.left, *sides.right):
        own = frozenset()
        if term.op == "box" and term.label[0] in spec.learners and term.label[0] not in trains:
            own = frozenset([term.label[0]])
        frozen[term] = own.union(*(frozen[part] for part in term.arguments))
        draws = (term.op == "var" and not spec.sources[term.label[0]].is_data) or (
            term.op == "box" and term.label[1] is not None
        )
        drawn[term] = draws or any(drawn[part] for part in term.arguments)
        keys[term] = (term, frozen[term], atom.name if drawn[term] else None)
        steps.append(Step(term, keys[term], tuple(keys[part] for part in term.arguments), bool(own)))
    left, right = (tuple(keys[term] for term in side) for side in (sides.left, sides.right))
    return AtomPlan(atom, trains, tuple(steps), left, right)
