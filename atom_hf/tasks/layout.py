"""Where the nodes of a diagram lie: in layers from left to right, after Sugiyama, Tagawa and Toda (1981).

A wire that crosses a layer gets a bend there. Nodes are ordered by the mean place of their neighbours, and moved towards them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from .diagram import Graph, Node

ROW, GAP, MARGIN = 26.0, 16.0, 12.0  # between ports, between nodes, around a box's text
LETTER, SMALL = 7.9, 6.7  # width of a letter of a name and of a label
BEND = 26.0  # of a gap between columns, behind the labels
SWEEPS = 8


@dataclass(frozen=True)
class Placed:
    """A node with its place: the left and top, and its size."""

    node: Node
    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class Line:
    """A wire as the points that it runs through, from left to right. Its label stands at the first."""

    points: tuple[tuple[float, float], ...]
    label: str
    ends: bool = False
    """Whether it is discarded at the last."""


@dataclass(frozen=True)
class Layout:
    """A diagram with all places, from (0, 0) to (width, height)."""

    nodes: list[Placed]
    lines: list[Line]
    width: float
    height: float


def size_of(node: Node) -> tuple[float, float]:
    """The width and height of a node."""
    if node.kind == "box":
        return max(34.0, len(node.name) * LETTER + 2 * MARGIN), max(node.inputs, node.outputs, 1) * ROW + 6
    if node.kind in ("data", "noise"):
        return len(node.name) * LETTER + 22, node.outputs * ROW + 6
    if node.kind == "const":
        return len(node.name) * LETTER + 34, ROW + 8
    return (0.0, ROW - GAP) if node.kind in ("start", "end") else (8.0, ROW)


def place(graph: Graph) -> Layout:
    """Places for a graph: the same for the same graph."""
    return _Layout(graph).run()


class _Layout:
    def __init__(self, graph: Graph):
        self.nodes: list[Node] = list(graph.nodes)
        self.discards = sorted(graph.discards)
        self.wires = sorted(graph.wires, key=lambda w: (w.start, w.output, w.end, w.input))
        self.layer = self._layers()
        # Segments between neighbouring layers: (start, output, end, input). Bends are nodes of their own.
        self.chains: list[list[tuple[int, int]]] = []
        self.segments: list[tuple[int, int, int, int]] = []
        for wire in self.wires:
            chain = [(wire.start, wire.output)]
            for layer in range(self.layer[wire.start] + 1, self.layer[wire.end]):
                self.nodes.append(Node("bend", "", 1, 1))
                self.layer.append(layer)
                chain.append((len(self.nodes) - 1, 0))
            chain.append((wire.end, wire.input))
            self.chains.append(chain)
            self.segments += [(*a, *b) for a, b in pairwise(chain)]
        self.sizes = [size_of(node) for node in self.nodes]

    def _layers(self) -> list[int]:
        layer = [0] * len(self.nodes)
        for _ in self.nodes:
            for wire in self.wires:
                layer[wire.end] = max(layer[wire.end], layer[wire.start] + 1)
        last = max(layer)
        for number, node in enumerate(self.nodes):
            if node.kind == "end":
                layer[number] = last
            elif node.kind == "const":  # beside what takes it
                layer[number] = min(layer[wire.end] for wire in self.wires if wire.start == number) - 1
        return layer

    def run(self) -> Layout:
        count = max(self.layer) + 1
        columns = [[n for n in range(len(self.nodes)) if self.layer[n] == layer] for layer in range(count)]
        self._order(columns)
        tops = self._heights(columns)
        lefts = self._widths(columns)
        placed = [
            Placed(node, lefts[self.layer[n]], tops[n], *self.sizes[n])
            for n, node in enumerate(self.nodes)
            if node.kind != "bend"
        ]
        # Nodes stand in the middle of their column.
        wide = [max(self.sizes[n][0] for n in column) for column in columns]
        middle = {
            n: lefts[self.layer[n]] + (wide[self.layer[n]] - self.sizes[n][0]) / 2 for n in range(len(self.nodes))
        }
        placed = [Placed(p.node, middle[n], p.top, p.width, p.height) for n, p in enumerate(placed)]
        lines = []
        for wire, chain in zip(self.wires, self.chains, strict=True):
            points = []
            for at, (node, port) in enumerate(chain):
                y = tops[node] + self._port(node, port, inputs=at > 0)
                left, width = middle[node], self.sizes[node][0]
                if at > 0:
                    points.append((left, y))
                if at < len(chain) - 1 and (at == 0 or self.nodes[node].kind == "bend"):
                    points.append((left + width, y))
            # Straight below the labels of its column, and bent behind them.
            straight = self._labels(self.layer[wire.start])
            if points[0][1] != points[1][1] and straight:
                points.insert(1, (points[0][0] + straight, points[0][1]))
            lines.append(Line(tuple(points), wire.label))
        for node, port, label in self.discards:
            x, y = middle[node] + self.sizes[node][0], tops[node] + self._port(node, port, inputs=False)
            lines.append(Line(((x, y), (x + len(label) * SMALL + 10, y)), label, ends=True))
        height = max(tops[n] + self.sizes[n][1] for n in range(len(self.nodes)))
        return Layout(placed, lines, max([lefts[-1] + wide[-1], *(line.points[-1][0] + 6 for line in lines)]), height)

    def _port(self, node: int, port: int, inputs: bool) -> float:
        """How far below the top of a node a wire enters or leaves it."""
        many = self.nodes[node].inputs if inputs else self.nodes[node].outputs
        height = self.sizes[node][1]
        if self.nodes[node].kind in ("copy", "discard", "bend", "const", "start", "end"):
            return height / 2
        return height / 2 + (port - (many - 1) / 2) * ROW

    def _order(self, columns: list[list[int]]) -> None:
        """Order each column by the mean place of its neighbours in the one before, and then in the one after."""
        place = {n: float(i) for column in columns for i, n in enumerate(column)}

        def sort(column: list[int], key: Callable[[int], float]) -> None:
            column.sort(key=lambda n: (key(n), place[n]))
            for i, n in enumerate(column):
                place[n] = float(i)

        before = {n: [(s, p, o) for s, p, e, o in self.segments if e == n] for n in range(len(self.nodes))}
        after = {n: [(e, o, p) for s, p, e, o in self.segments if s == n] for n in range(len(self.nodes))}
        for sweep in range(SWEEPS):
            order = columns[1:] if sweep % 2 == 0 else columns[-2::-1]
            near = before if sweep % 2 == 0 else after
            for column in order:
                means = {n: _mean([place[m] + port / 10 for m, port, _ in near[n]], place[n]) for n in column}
                sort(column, means.__getitem__)

    def _heights(self, columns: list[list[int]]) -> list[float]:
        """The top of each node: as near to its neighbours as the others in its column allow."""
        tops = [0.0] * len(self.nodes)
        for column in columns:
            y = 0.0
            for n in column:
                tops[n] = y
                y += self.sizes[n][1] + GAP
        for sweep in range(SWEEPS):
            forward = sweep % 2 == 0
            for column in columns if forward else columns[::-1]:
                wanted = {}
                for n in column:
                    ends = []
                    for start, output, end, inp in self.segments:
                        if forward and end == n:
                            ends.append(tops[start] + self._port(start, output, False) - self._port(n, inp, True))
                        elif not forward and start == n:
                            ends.append(tops[end] + self._port(end, inp, True) - self._port(n, output, False))
                    wanted[n] = _mean(ends, tops[n])
                self._settle(column, wanted, tops)
        least = min(tops)
        return [round(top - least, 2) for top in tops]

    def _settle(self, column: Sequence[int], wanted: dict[int, float], tops: list[float]) -> None:
        """Give nodes their wanted tops; those that would overlap share the mean shift of their group."""
        groups: list[list[int]] = []
        starts: list[float] = []
        for n in column:
            groups.append([n])
            starts.append(wanted[n])
            while len(groups) > 1 and starts[-2] + self._tall(groups[-2]) + GAP > starts[-1]:
                joined = groups[-2] + groups[-1]
                shifts, y = [], 0.0
                for m in joined:
                    shifts.append(wanted[m] - y)
                    y += self.sizes[m][1] + GAP
                groups[-2:], starts[-2:] = [joined], [sum(shifts) / len(shifts)]
        for group, y in zip(groups, starts, strict=True):
            for n in group:
                tops[n] = y
                y += self.sizes[n][1] + GAP

    def _tall(self, group: Sequence[int]) -> float:
        return sum(self.sizes[n][1] for n in group) + GAP * (len(group) - 1)

    def _widths(self, columns: list[list[int]]) -> list[float]:
        """The left of each column: labels fit between columns."""
        lefts, x = [], 0.0
        for number, column in enumerate(columns):
            lefts.append(x)
            x += max(self.sizes[n][0] for n in column) + self._labels(number) + BEND
        return lefts

    def _labels(self, layer: int) -> float:
        """The width of the labels behind a column."""
        labels = [wire.label for wire in self.wires if self.layer[wire.start] == layer]
        labels += [label for node, _, label in self.discards if self.layer[node] == layer]
        longest = max(map(len, labels), default=0)
        return longest * SMALL + 10 if longest else 0.0


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise
