"""Graphs of diagrams: sources, constants and boxes, the wires between them, and where a wire is copied or discarded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .kinds import Type
from .spec import TaskSpec
from .term_types import Types
from .terms import Term, make, subterms


@dataclass(frozen=True)
class Node:
    """Something that wires run into and out of."""

    kind: str
    """data, noise, const, box, copy; start or end, where a wire comes into the diagram or leaves it."""
    name: str
    inputs: int
    outputs: int
    frames: tuple[str, ...] = ()
    """Of a box: trained, fixed, function, noisy."""


@dataclass(frozen=True)
class Wire:
    """From an output of a node to an input of another."""

    start: int
    output: int
    end: int
    input: int
    label: str = ""
    """Its type; empty behind the dot of a copy."""


@dataclass
class Graph:
    """A diagram: its nodes, by their numbers, its wires, and the outputs (node, output, type) that are discarded."""

    nodes: list[Node] = field(default_factory=list)
    wires: list[Wire] = field(default_factory=list)
    discards: list[tuple[int, int, str]] = field(default_factory=list)

    def add(self, node: Node) -> int:
        """Add a node, and return its number."""
        self.nodes.append(node)
        return len(self.nodes) - 1


def graph_of(
    spec: TaskSpec,
    terms: Sequence[Term],
    names: Mapping[Term, str],
    trained: Sequence[str],
    open_ends: Sequence[str] = (),
) -> Graph:
    """The graph of some wires.

    Args:
        terms: the wires.
        names: of variables.
        trained: the boxes to be shown as trained.
        open_ends: sources that stand for wires that come from outside.
    """
    graph, types = Graph(), Types(spec)
    ports: dict[tuple, tuple[int, int]] = {}  # (node, output) of each draw's column and each term
    uses: dict[tuple[int, int], list[tuple[int, int]]] = {}
    labels: dict[tuple[int, int], str] = {}

    def use(term: Term, node: int, place: int) -> None:
        uses.setdefault(ports[_key(term)], []).append((node, place))

    inner = list(subterms(*terms))
    draws = {term.label[:2]: None for term in inner if term.op == "var"}
    for source, draw in draws:
        found = spec.sources[source]
        name = source + "'" * draw
        kind = "start" if source in open_ends else "data" if found.is_data else "noise"
        node = graph.add(Node(kind, name, 0, len(found.types)))
        for column, wire in enumerate(found.types):
            ports["var", source, draw, column] = node, column
            labels[node, column] = _named(wire, make("var", (source, draw, column)), names)
    for term in inner:
        if term.op == "const":
            ports[_key(term)] = node = graph.add(Node("const", term.label[0], 0, 1)), 0
            labels[node] = str(types.of(term))
        elif term.op == "box":
            outputs = _outputs(spec, types, term)
            name = term.label[0]
            node = graph.add(Node("box", name, len(term.arguments), len(outputs), _frames(spec, term, trained)))
            for place, part in enumerate(term.arguments):
                use(part, node, place)
            for place, wire in enumerate(outputs):
                labels[node, place] = str(wire)
                ports[("part", term, place) if len(outputs) > 1 else _key(term)] = node, place
    for term in terms:
        use(term, graph.add(Node("end", "", 1, 0)), 0)
    for port, label in labels.items():
        _connect(graph, port, uses.get(port, []), label)
    return graph


def _key(term: Term) -> tuple:
    if term.op == "var":
        return ("var", *term.label)
    return ("part", term.arguments[0], term.label[0]) if term.op == "part" else (term,)


def _named(wire: Type, variable: Term, names: Mapping[Term, str]) -> str:
    """The label of a source's wire: its variable, where it has one, and its type."""
    return f"{names[variable]} : {wire}" if variable in names else str(wire)


def _outputs(spec: TaskSpec, types: Types, box: Term) -> Sequence[Type]:
    found = spec.lets.get(box.label[0]) or spec.boxes.get(box.label[0])
    return [types.of(box)] if found is None else found.outputs


def _frames(spec: TaskSpec, box: Term, trained: Sequence[str]) -> tuple[str, ...]:
    name, draw = box.label
    found = []
    if name in trained:
        found.append("trained")
    if name in spec.fixed:
        found.append("fixed")
    if name in spec.functions or (name not in spec.boxes and name not in spec.lets):
        found.append("function")
    if draw is not None:
        found.append("noisy")
    return tuple(found)


def _connect(graph: Graph, port: tuple[int, int], uses: Sequence[tuple[int, int]], label: str) -> None:
    """Wires from an output to all that use it: through the dot of a copy, if there are several."""
    if not uses:
        graph.discards.append((*port, label))
    elif len(uses) == 1:
        graph.wires.append(Wire(*port, *uses[0], label))
    else:
        dot = graph.add(Node("copy", "", 1, len(uses)))
        graph.wires.append(Wire(*port, dot, 0, label))
        graph.wires += [Wire(dot, place, *use) for place, use in enumerate(uses)]
