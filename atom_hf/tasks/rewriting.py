"""Prove equations between diagrams from a task's own, by rewriting.

An equation holds on its sources, almost surely, and not everywhere. So a variable of a data set may only become another draw of
the same source, and independent draws stay independent. An independent class noise with full support takes every class beside
every row: it may become any expression of its type. Where a law says that expressions are distributed as the data, they may
take its place.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import NamedTuple

from .kinds import INEXACT
from .spec import TaskSpec
from .term_types import Types
from .terms import Sides, Term, make, replaced, show, size, subterms

FEW_TERMS, MOST_TERMS = 200, 3000
"""Terms that a short and a long search look at: most proofs take some dozens."""

MORE_NODES = 8  # by which a term may grow above the larger side

LARGEST_SIDES = 300  # nodes of an equation that is tried: with more, each step takes long

CANDIDATES = 12  # terms that a variable which an equation leaves open is tried with, the smallest first


class Equation(NamedTuple):
    """Two terms that are equal in every perfect solution."""

    left: Term
    right: Term
    why: str


@dataclass(frozen=True)
class Match:
    """What a pattern's variables stand for."""

    draws: Mapping[tuple[str, int], int] = field(default_factory=dict)
    noisy: Mapping[int, int] = field(default_factory=dict)
    free: Mapping[Term, Term] = field(default_factory=dict)


def match(pattern: Term, term: Term, found: Match, types: Types | None) -> Match | None:
    """What makes a pattern equal to a term, beside what is found already; None if nothing does.

    Args:
        types: tell which variables may stand for any expression; None for none.
    """
    if pattern.op == "var":
        if types is not None and types.is_free(pattern):
            if pattern in found.free:
                return found if found.free[pattern] is term else None
            if not (types.of(term).fits(types.of(pattern))):
                return None
            return Match(found.draws, found.noisy, {**found.free, pattern: term})
        if term.op != "var" or term.label[0] != pattern.label[0] or term.label[2] != pattern.label[2]:
            return None
        key, value = pattern.label[:2], term.label[1]
        if key in found.draws:
            return found if found.draws[key] == value else None
        if any(k[0] == key[0] and v == value for k, v in found.draws.items()):
            return None  # two independent draws are not one
        return Match({**found.draws, key: value}, found.noisy, found.free)
    if pattern.op != term.op or len(pattern.arguments) != len(term.arguments):
        return None
    if pattern.op == "box":
        (name, draw), (other, value) = pattern.label, term.label
        if name != other:
            return None
        if draw is not None:
            if found.noisy.get(draw, value) != value or (draw not in found.noisy and value in found.noisy.values()):
                return None
            found = Match(found.draws, {**found.noisy, draw: value}, found.free)
    elif pattern.label != term.label:
        return None
    for part, other in zip(pattern.arguments, term.arguments, strict=True):
        found = match(part, other, found, types)
        if found is None:
            return None
    return found


def instantiate(term: Term, found: Match) -> Term:
    """A term with what its variables stand for."""
    made: dict[Term, Term] = {}
    for one in subterms(term):
        if one in found.free:
            made[one] = found.free[one]
        elif one.op == "var":
            source, draw, column = one.label
            made[one] = make("var", (source, found.draws[source, draw], column))
        else:
            label = one.label
            if one.op == "box" and label[1] is not None:
                label = (label[0], found.noisy[label[1]])
            made[one] = make(one.op, label, [made[part] for part in one.arguments])
    return made[term]


class Prover:
    """Proves equations from those of a task.

    Args:
        spec: the task, with the boxes and sources of the goals too.
        sides: of its atoms.
    """

    def __init__(self, spec: TaskSpec, sides: list[Sides]):
        self.spec, self.types = spec, Types(spec)
        exact = [one for one in sides if one.atom.relation == "==" and not is_inexact(one)]
        self.equations = [
            Equation(left, right, one.atom.name)
            for one in exact
            for left, right in zip(one.left, one.right, strict=True)
            if left is not right
        ]
        self.equations += _by_laws(self.equations, [one for one in sides if one.atom.relation == "~"])
        self._fresh = 10**6

    def path(
        self, start: Term, goal: Term, draws: Mapping[str, int], most_terms: int = MOST_TERMS
    ) -> list[tuple[Term, str]] | None:
        """Terms from start to goal, each with why it equals the one before; None if no proof was found.

        Args:
            draws: the number of draws of each source that there are.
            most_terms: terms to look at.
        """
        if start is goal:
            return [(start, "")]
        if size(start, goal) > LARGEST_SIDES:
            return None
        pool = sorted(subterms(start, goal), key=size)
        most = size(start, goal) + MORE_NODES
        reached = [{start: (None, "")}, {goal: (None, "")}]
        frontiers = [[start], [goal]]
        while all(frontiers) and len(reached[0]) + len(reached[1]) < most_terms:
            side = int(len(frontiers[1]) < len(frontiers[0]))
            following = []
            for term in frontiers[side]:
                for other, why in self.rewrites(term, pool, draws):
                    if other in reached[side] or size(other) > most:
                        continue
                    reached[side][other] = (term, why)
                    following.append(other)
                    if other in reached[1 - side]:
                        return _joined(reached, other)
                if len(reached[side]) > most_terms:
                    break
            frontiers[side] = following
        return None

    def rewrites(self, term: Term, pool: list[Term], draws: Mapping[str, int]) -> Iterator[tuple[Term, str]]:
        """Terms that equal this one by one use of an equation. Variables that it leaves open become terms of the pool."""
        for part in subterms(term):
            for equation in self.equations:
                for pattern, result in ((equation.left, equation.right), (equation.right, equation.left)):
                    found = match(pattern, part, Match(), self.types)
                    if found is None:
                        continue
                    for whole in self._completed(result, found, pool, draws):
                        other = replaced(term, {part: instantiate(result, whole)})
                        if other is not term:
                            yield other, equation.why

    def _completed(self, result: Term, found: Match, pool: list[Term], draws: Mapping[str, int]) -> Iterator[Match]:
        """The matches with something for each variable of `result` that they leave open."""
        open_draws, open_free, noisy = [], [], dict(found.noisy)
        for one in subterms(result):
            if one.op == "var" and self.types.is_free(one):
                if one not in found.free:
                    open_free.append(one)
            elif one.op == "var" and one.label[:2] not in [*found.draws, *open_draws]:
                open_draws.append(one.label[:2])
            elif one.op == "box" and one.label[1] is not None and one.label[1] not in noisy:
                self._fresh += 1
                noisy[one.label[1]] = self._fresh
        fitting = [
            [term for term in pool if self.types.of(term).fits(self.types.of(one))][:CANDIDATES] for one in open_free
        ]
        places = [range(draws.get(source, 0)) for source, _ in open_draws]
        for terms in product(*fitting):
            for chosen in product(*places):
                mapped = {**found.draws, **dict(zip(open_draws, chosen, strict=True))}
                taken = [(source, value) for (source, _), value in mapped.items()]
                if len(set(taken)) == len(taken):
                    yield Match(mapped, noisy, {**found.free, **dict(zip(open_free, terms, strict=True))})

    def closure(self, terms: tuple[Term, ...], draws: Mapping[str, int], most: int = 200) -> dict[tuple, list[str]]:
        """Tuples that equal this one, each with the atoms that say so."""
        found, waiting = {terms: []}, [terms]
        largest = size(*terms) + MORE_NODES
        if largest > LARGEST_SIDES:
            return found
        pool = sorted(subterms(*terms), key=size)
        while waiting and len(found) < most:
            current = waiting.pop(0)
            for place, term in enumerate(current):
                for other, why in self.rewrites(term, pool, draws):
                    new = (*current[:place], other, *current[place + 1 :])
                    if new not in found and size(*new) <= largest:
                        found[new] = [*found[current], why]
                        waiting.append(new)
        return found


def is_inexact(one: Sides) -> bool:
    """Whether the divergence of an atom is zero for values that differ, so that it is no equation."""
    return one.atom.divergence is not None and one.atom.divergence.name in INEXACT


def shown_path(path: list[tuple[Term, str]], names: Mapping[Term, str]) -> str:
    """A proof as a line: a = b by this, = c by that."""
    parts = [show(path[0][0], names)]
    return " = ".join([*parts, *(f"{show(term, names)} by {why}" for term, why in path[1:])])


def _joined(reached: list[dict], middle: Term) -> list[tuple[Term, str]]:
    """The path from start to goal through a term that both searches have reached."""
    first, term = [], middle
    while term is not None:
        before, why = reached[0][term]
        first.append((term, why))
        term = before
    path, term = first[::-1], middle
    while (step := reached[1][term])[0] is not None:
        path.append(step)
        term = step[0]
    return path


def _by_laws(equations: list[Equation], laws: list[Sides]) -> list[Equation]:
    """Equations at expressions that have the law of the data, in the data's place."""
    found = []
    for law in laws:
        for made, data in ((law.left, law.right), (law.right, law.left)):
            if not all(term.op == "var" for term in data) or len({term.label[:2] for term in data}) != 1:
                continue
            if made == data or len(set(data)) != len(data):
                continue
            place = data[0].label[:2]
            by = dict(zip(data, _apart(made), strict=True))
            for equation in equations:
                for draw in {t.label[:2] for t in subterms(equation.left, equation.right) if t.op == "var"}:
                    used = [t for t in subterms(equation.left, equation.right) if t.op == "var" and t.label[:2] == draw]
                    # The columns that it uses, as those of the law: all must have their place in it, jointly.
                    columns = {t: make("var", (*place, t.label[2])) for t in used}
                    if draw[0] != place[0] or not set(columns.values()) <= set(by):
                        continue
                    exchanged = {t: by[column] for t, column in columns.items()}
                    sides = [replaced(side, exchanged) for side in (equation.left, equation.right)]
                    if sides[0] is not sides[1]:
                        found.append(Equation(*sides, f"{equation.why} and {law.atom.name}"))
    return found


def _apart(terms: tuple[Term, ...]) -> list[Term]:
    """Terms with draws of their own, independent of all others."""
    by: dict[Term, Term] = {}
    for term in subterms(*terms):
        if term.op == "var":
            source, draw, column = term.label
            by[term] = make("var", (source, draw + 1000, column))
        else:
            label = term.label
            if term.op == "box" and label[1] is not None:
                label = (label[0], label[1] + 1000)
            by[term] = make(term.op, label, [by[part] for part in term.arguments]) if term.arguments else term
    return [by[term] for term in terms]
