"""Whether every perfect solution of one task solves another: yes with a proof, no with a counterexample, or unknown.

Nothing is assumed of data, fixed boxes and functions but what the equations say: "no" means that it does not follow from them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from ..errors import AtomError
from .counterexample import Counterexample, find_counterexample
from .kinds import Type
from .rewriting import FEW_TERMS, MOST_TERMS, Match, Prover, instantiate, is_inexact, match, shown_path
from .spec import TaskSpec
from .terms import Sides, Term, canonical, make, replaced, show, show_all, sides_of, subterms


@dataclass(frozen=True)
class Refinement:
    """The answer of `refines`."""

    answer: bool | None
    """True, False, or None: no proof and no counterexample was found."""
    steps: list[str] = field(default_factory=list)
    """For each atom of the second task why it follows, or why that is not known."""
    counterexample: Counterexample | None = None

    def __bool__(self) -> bool:
        return self.answer is True

    def __str__(self) -> str:
        says = {True: "yes", False: "no", None: "unknown"}[self.answer]
        return "\n".join([says, *self.steps, *([str(self.counterexample)] if self.counterexample else [])])


def refines(task: TaskSpec, other: TaskSpec) -> Refinement:
    """Whether every perfect solution of `task` solves `other`.

    Boxes and sources of one name are one thing in both. A learner of `other` may be fixed in `task`, or defined by a `let`.

    Raises:
        AtomError: a name that means different things in both tasks, or a task that no perfect solution can have.
    """
    for spec in (task, other):
        check_possible(spec)
    merged = _merge(task, other)
    given = [sides_of(task, atom) for atom in task.atoms.values() if atom.weight > 0]
    goals = [sides_of(merged, atom) for atom in other.atoms.values() if atom.weight > 0]
    fixed_there = [name for name in other.fixed if name in task.learners]
    goals = [_apart(goal, fixed_there) for goal in goals]
    for name in fixed_there:
        merged.boxes[_own(name)] = replace(merged.boxes[name], name=_own(name))
    prover = Prover(merged, given)
    missing = {name for name in other.learners if name not in task.boxes and name not in task.lets}
    steps, unknown = {}, False
    # A short search for each first, since most proofs are short, and a counterexample to one atom is an answer to all.
    for most in (FEW_TERMS, MOST_TERMS):
        for goal in goals:
            name = goal.atom.name
            if name in steps:
                continue
            proof = _prove(prover, given, goal, most)
            if proof is not None:
                steps[name] = proof
            elif most == FEW_TERMS and (found := _refuted(merged, given, goal, missing)) is not None:
                return Refinement(False, [*_lines(steps), f"{name}: does not follow"], found)
    for goal in goals:
        if goal.atom.name not in steps:
            unknown = True
            steps[goal.atom.name] = _why_unknown(goal, missing)
    return Refinement(None if unknown else True, _lines(steps))


def _refuted(spec: TaskSpec, given: list[Sides], goal: Sides, missing: set[str]) -> Counterexample | None:
    is_compared = goal.atom.relation != "minimize" and not is_inexact(goal)
    return find_counterexample(spec, given, goal) if is_compared and not _boxes(goal) & missing else None


def _why_unknown(goal: Sides, missing: set[str]) -> str:
    if absent := sorted(_boxes(goal) & missing):
        return f"unknown, because the first task has no learner {', '.join(absent)}"
    if goal.atom.relation == "minimize" or is_inexact(goal):
        return "unknown; a cost or an angle is only compared with itself"
    return "unknown; no proof and no small counterexample was found"


def _boxes(goal: Sides) -> set[str]:
    return {term.label[0] for term in subterms(*goal.left, *goal.right) if term.op == "box"}


def _lines(steps: Mapping[str, str]) -> list[str]:
    return [f"{name}: {why}" for name, why in steps.items()]


def check_possible(spec: TaskSpec) -> None:
    """Raises `AtomError` for atoms that give one system two constants: they have no perfect solution."""
    sides = [sides_of(spec, atom) for atom in spec.atoms.values() if atom.weight > 0]
    seen: dict[tuple, tuple[str, str]] = {}
    for one in (one for one in sides if one.atom.relation == "==" and not is_inexact(one)):
        for left, right in zip(one.left, one.right, strict=True):
            system, constant = (right, left) if left.op == "const" else (left, right)
            if constant.op != "const" or system.op == "const":
                continue
            key = canonical([system])
            name, value = one.atom.name, constant.label[0]
            before, other = seen.setdefault(key, (name, value))
            if spec.consts[other].value != spec.consts[value].value:
                raise AtomError(
                    f"{before}, {name}: {show(system, one.names)} cannot equal both {other} and {value}, so that no perfect "
                    "solution exists and anything would follow; leave one of them out"
                )


def _prove(prover: Prover, given: list[Sides], goal: Sides, most_terms: int) -> str | None:
    draws = _draws(goal)
    same = next((one for one in given if _is_same(one, goal)), None)
    if same is not None:
        return f"it is {same.atom.name}" if same.atom.name == goal.atom.name else f"it is {same.atom.name}, renamed"
    if goal.atom.relation == "==":
        paths = [prover.path(a, b, draws, most_terms) for a, b in zip(goal.left, goal.right, strict=True)]
        if any(path is None for path in paths):
            return None
        return "; ".join(shown_path(path, goal.names) for path in paths)
    if goal.atom.relation == "minimize":
        costs = {canonical(one.left): one.atom.name for one in given if one.atom.relation == "minimize"}
        for terms, why in prover.closure(goal.left, draws).items():
            if canonical(terms) in costs:
                return f"{_by(why)}it is {costs[canonical(terms)]}"
        return None
    return _prove_law(prover, given, goal, draws)


def _prove_law(prover: Prover, given: list[Sides], goal: Sides, draws: Mapping[str, int]) -> str | None:
    """Both sides are rewritten; then they are the same up to bound variables, or made alike of the sides of a law."""
    lefts, rights = prover.closure(goal.left, draws), prover.closure(goal.right, draws)
    same = {canonical(terms): (terms, why) for terms, why in lefts.items()}
    for terms, why in rights.items():
        if canonical(terms) in same:
            other, before = same[canonical(terms)]
            return f"{_by([*before, *why])}both sides are {show_all(other, goal.names)}, of independent draws"
    for law in (one for one in given if one.atom.relation == "~"):
        for first, second in ((law.left, law.right), (law.right, law.left)):
            made = {}
            for terms, why in lefts.items():
                made |= {form: why for form in _made_of(terms, first)}
            for terms, why in rights.items():
                for form in _made_of(terms, second):
                    if form in made:
                        return f"{_by([*made[form], *why])}both sides are made alike of the two of {law.atom.name}"
    return None


def _made_of(terms: tuple[Term, ...], parts: tuple[Term, ...]) -> Iterator[tuple[Term, ...]]:
    """A tuple as functions of some parts and of independent draws: with holes in place of the parts, in every way."""
    places = list(subterms(*terms))

    def choose(index: int, found: Match, chosen: tuple[int, ...]) -> Iterator[tuple[Match, tuple[int, ...]]]:
        if index == len(parts):
            if chosen:
                yield found, chosen
            return
        yield from choose(index + 1, found, chosen)
        for place in places:
            more = match(parts[index], place, found, None)
            if more is not None:
                yield from choose(index + 1, more, (*chosen, index))

    for found, chosen in choose(0, Match(), ()):
        by = {instantiate(parts[index], found): make("const", (f"#{index}",)) for index in chosen}
        left = tuple(replaced(term, by) for term in terms)
        inner = [term for term in subterms(*left) if term.op in ("var", "box")]
        used = {(term.label[0], term.label[1]) for term in inner if term.op == "var"}
        noisy = {term.label[1] for term in inner if term.op == "box"}
        taken = {(source, value) for (source, _), value in found.draws.items()}
        if not (used & taken) and not (noisy & set(found.noisy.values())):
            yield canonical(left)


def _is_same(one: Sides, goal: Sides) -> bool:
    """Whether an atom says what another says: the same equation, whichever side is which, and no weaker."""
    if one.atom.relation != goal.atom.relation or len(one.left) != len(goal.left):
        return False
    if is_inexact(one) and (not is_inexact(goal) or one.atom.divergence != goal.atom.divergence):
        return False
    if goal.atom.relation == "~":
        mine = [(canonical(one.left), canonical(one.right)), (canonical(one.right), canonical(one.left))]
        return (canonical(goal.left), canonical(goal.right)) in mine
    return canonical((*goal.left, *goal.right)) in (
        canonical((*one.left, *one.right)),
        canonical((*one.right, *one.left)),
    )


def _draws(goal: Sides) -> dict[str, int]:
    counts: dict[str, int] = {}
    for binding in goal.atom.over:
        counts[binding.source] = counts.get(binding.source, 0) + 1
    return counts


def _by(why: list[str]) -> str:
    return f"by {', '.join(dict.fromkeys(why))} " if why else ""


def _own(name: str) -> str:
    return f"{name} (of the second task)"


def _apart(goal: Sides, names: list[str]) -> Sides:
    """A goal with its fixed boxes apart from learners of the same name in the first task, which may be anything."""
    terms = (*goal.left, *goal.right)
    while old := [t for t in subterms(*terms) if t.op == "box" and t.label[0] in names]:
        by = {old[0]: make("box", (_own(old[0].label[0]), old[0].label[1]), old[0].arguments)}
        terms = tuple(replaced(term, by) for term in terms)
    return Sides(goal.atom, terms[: len(goal.left)], terms[len(goal.left) :], goal.names)


def _merge(task: TaskSpec, other: TaskSpec) -> TaskSpec:
    """What both tasks declare. Raises `AtomError` for a name that means two things."""

    def differs(name: str, first: object, second: object) -> AtomError:
        return AtomError(f"{name} is {first} in the first task and {second} in the second; give it another name in one")

    for name in [name for name in task.sources if name in other.sources]:
        ours, theirs = task.sources[name], other.sources[name]
        if [w.kind for w in ours.types] != [w.kind for w in theirs.types] or ours.maker != theirs.maker:
            shown = [f"{_listed(s.types)}{f' = {s.maker}' if s.maker else ''}" for s in (ours, theirs)]
            raise differs(name, *shown)
    for name in [name for name in task.consts if name in other.consts]:
        if task.consts[name].value != other.consts[name].value:
            raise differs(name, task.consts[name].value, other.consts[name].value)
    for name in [n for n in {**task.boxes, **task.lets} if n in other.boxes or n in other.lets]:
        ours = task.lets.get(name) or task.boxes[name]
        theirs = other.lets.get(name) or other.boxes[name]
        kinds = [[[w.kind for w in wires] for wires in (box.inputs, box.outputs)] for box in (ours, theirs)]
        if kinds[0] != kinds[1]:
            shown = [f"{_listed(box.inputs)} -> {_listed(box.outputs)}" for box in (ours, theirs)]
            raise differs(name, *shown)
    filled = {name: let for name, let in task.lets.items() if name in other.learners}
    return TaskSpec(
        types={**task.types, **other.types},
        sources={**other.sources, **task.sources},
        consts={**other.consts, **task.consts},
        boxes={**other.boxes, **task.boxes},
        lets={**filled, **other.lets},
    )


def _listed(wires: tuple[Type, ...]) -> str:
    return ", ".join(str(wire.kind) for wire in wires)
