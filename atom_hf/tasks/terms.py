"""Diagrams as terms: equal diagrams are one and the same object.

A term is a variable, a constant, a box applied to terms, or one output of a box with several. Lets are filled in. A box whose
outputs are all discarded is in no term. Deterministic boxes with equal arguments merge, because equal terms are one object;
noisy ones never do: each place where one stands is a draw of its own.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from weakref import WeakValueDictionary

from ..errors import AtomError
from .functions import BUILT_IN
from .spec import Atom, Let, Source, TaskSpec
from .syntax import Call, Expression, Group, Name, Part, boxes_in

LARGEST = 2000
"""Boxes of one atom, when its lets are filled in."""

LONGEST = 1000  # characters of a term that is shown


class Term:
    """A node of a diagram. Made by `make` alone: equal ones are the same object."""

    __slots__ = ("__weakref__", "arguments", "label", "op")

    op: str
    """var, const, box or part."""
    label: tuple
    """Of a var: its source, the number of the draw, the column from 0. Of a const: its name. Of a box: its name, and the
    number of the draw if it is noisy, else None. Of a part: the output from 0."""
    arguments: tuple["Term", ...]

    def __repr__(self) -> str:
        return show(self)


_TERMS: WeakValueDictionary[tuple, Term] = WeakValueDictionary()


def make(op: str, label: tuple, arguments: Iterable[Term] = ()) -> Term:
    """The term of this node; see `Term.label`."""
    arguments = tuple(arguments)
    key = (op, label, tuple(map(id, arguments)))
    found = _TERMS.get(key)
    if found is None:
        found = Term()
        found.op, found.label, found.arguments = op, label, arguments
        _TERMS[key] = found
    return found


@dataclass(frozen=True)
class Sides:
    """An atom as terms: a term for each wire of its two sides (none on the right of `minimize`), and the names of variables."""

    atom: Atom
    left: tuple[Term, ...]
    right: tuple[Term, ...]
    names: Mapping[Term, str]


def sides_of(spec: TaskSpec, atom: Atom, fill: bool = True) -> Sides:
    """The terms of an atom. Raises `AtomError` for one that is huge once its lets are filled in.

    Args:
        fill: False keeps lets as boxes of their own.
    """
    draws: dict[str, int] = {}
    variables, names = {}, {}
    for binding in atom.over:
        draw = draws[binding.source] = draws.get(binding.source, -1) + 1
        for column, name in enumerate(binding.names):
            if name != "_":
                variables[name] = make("var", (binding.source, draw, column))
                names[variables[name]] = name
    builder = _Builder(spec, atom.name, fill)
    left = builder.wires(atom.left, variables)
    right = () if atom.right is None else builder.wires(atom.right, variables)
    return Sides(atom, tuple(left), tuple(right), names)


def body_of(spec: TaskSpec, let: Let) -> tuple[tuple[Term, ...], TaskSpec]:
    """The terms of a let's body, and the task with the let's parameters as sources, which they are drawn from."""
    sources = {name: Source(name, (wire,)) for name, wire in zip(let.parameters, let.inputs, strict=True)}
    variables = {name: make("var", (name, 0, 0)) for name in let.parameters}
    terms = _Builder(spec, let.name, fill=False).wires(let.body, variables)
    return tuple(terms), replace(spec, sources={**spec.sources, **sources})


class _Builder:
    def __init__(self, spec: TaskSpec, where: str, fill: bool):
        self.spec, self.where, self.fill = spec, where, fill
        self.noisy, self.boxes = 0, 0

    def wires(self, expression: Expression, variables: Mapping[str, Term]) -> list[Term]:
        match expression:
            case Name(name):
                return [variables[name] if name in variables else make("const", (name,))]
            case Group(parts):
                return [wire for part in parts for wire in self.wires(part, variables)]
            case Part(whole, index):
                return [self.wires(whole, variables)[index - 1]]
            case Call(name, arguments):
                inputs = [wire for part in arguments for wire in self.wires(part, variables)]
                self.boxes += 1
                if self.boxes > LARGEST:
                    raise AtomError(f"{self.where}: it has more than {LARGEST} boxes once its lets are filled in")
                if name in self.spec.lets and self.fill:
                    let = self.spec.lets[name]
                    return self.wires(let.body, dict(zip(let.parameters, inputs, strict=True)))
                return self._box(name, inputs)

    def _box(self, name: str, inputs: list[Term]) -> list[Term]:
        draw = None
        if is_noisy(self.spec, name):
            draw, self.noisy = self.noisy, self.noisy + 1
        box = make("box", (name, draw), inputs)
        many = outputs_of(self.spec, name)
        return [box] if many == 1 else [make("part", (place,), [box]) for place in range(many)]


def is_noisy(spec: TaskSpec, name: str) -> bool:
    """Whether a box draws at random, or a let has one in it that does."""
    if name in spec.lets:
        return any(is_noisy(spec, inside) for inside in boxes_in(spec.lets[name].body))
    return spec.boxes[name].noisy if name in spec.boxes else BUILT_IN[name].noisy


def outputs_of(spec: TaskSpec, name: str) -> int:
    """The number of wires that a box gives."""
    box = spec.boxes.get(name) or spec.lets.get(name)
    return 1 if box is None else len(box.outputs)


def subterms(*terms: Term) -> Iterator[Term]:
    """All terms in some, each once, those that a term is made of before it."""
    seen: set[int] = set()
    stack = [(term, False) for term in reversed(terms)]
    while stack:
        term, opened = stack.pop()
        if opened:
            yield term
        elif id(term) not in seen:
            seen.add(id(term))
            stack.append((term, True))
            stack += [(part, False) for part in reversed(term.arguments)]


def replaced(term: Term, by: Mapping[Term, Term]) -> Term:
    """The term with others in place of some of its subterms; what is put in is not looked into."""
    found: dict[Term, Term] = {}
    stack = [(term, False)]
    while stack:
        one, opened = stack.pop()
        if one in found:
            continue
        if one in by:
            found[one] = by[one]
        elif opened:
            arguments = [found[part] for part in one.arguments]
            found[one] = one if all(map(_same, arguments, one.arguments)) else make(one.op, one.label, arguments)
        else:
            stack.append((one, True))
            stack += [(part, False) for part in one.arguments]
    return found[term]


def _same(a: Term, b: Term) -> bool:
    return a is b


def size(*terms: Term) -> int:
    """The number of different nodes."""
    return sum(1 for _ in subterms(*terms))


def show(term: Term, names: Mapping[Term, str] | None = None) -> str:
    """A term as it is written in a task, with the `names` of variables; a long one is cut short."""
    names, shown = names or {}, {}
    for one in subterms(term):
        parts = [shown[part] for part in one.arguments]
        if one.op == "var":
            source, draw, column = one.label
            shown[one] = names.get(one) or f"{source}.{column + 1}" + "'" * draw
        elif one.op == "part":
            shown[one] = f"{parts[0]}.{one.label[0] + 1}"
        else:
            shown[one] = one.label[0] + (f"({', '.join(parts)})" if one.op == "box" else "")
        if len(shown[one]) > LONGEST:
            shown[one] = "..."
    return shown[term]


def show_all(terms: Iterable[Term], names: Mapping[Term, str] | None = None) -> str:
    """Terms side by side."""
    shown = [show(term, names) for term in terms]
    return shown[0] if len(shown) == 1 else f"({', '.join(shown)})"


def canonical(terms: Iterable[Term]) -> tuple[Term, ...]:
    """Terms with their draws numbered as they come: equal for atoms that differ in the names of bound variables alone."""
    terms = tuple(terms)
    draws: dict[tuple[str, int], int] = {}
    counts: dict[str, int] = {}
    noisy: dict[int, int] = {}
    by: dict[Term, Term] = {}
    for term in subterms(*terms):
        if term.op == "var":
            source, draw, column = term.label
            if (source, draw) not in draws:
                draws[source, draw] = counts[source] = counts.get(source, -1) + 1
            by[term] = make("var", (source, draws[source, draw], column))
        elif term.op == "box":
            name, draw = term.label
            if draw is not None:
                draw = noisy.setdefault(draw, len(noisy))
            by[term] = make("box", (name, draw), [by[part] for part in term.arguments])
        elif term.arguments:
            by[term] = make(term.op, term.label, [by[part] for part in term.arguments])
        else:
            by[term] = term
    return tuple(by[term] for term in terms)
