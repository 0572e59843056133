"""Draw a task as an SVG: each atom as an equation between two string diagrams, read from left to right."""

from collections.abc import Sequence
from xml.sax.saxutils import escape

from .diagram import Graph, Node, Wire, graph_of
from .kinds import number
from .layout import LETTER, Layout, Line, Placed, place
from .printer import print_task
from .spec import Atom, Let, TaskSpec
from .terms import body_of, make, sides_of
from .typecheck import learners_in

PAD, BETWEEN, HEAD, RULE = 24.0, 26.0, 26.0, 30.0
INK, FAINT, PAPER = "#1d1c1a", "#615d57", "#ffffff"
FONT = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace"

_STYLE = (
    f"text{{font-family:{FONT};font-size:13px;fill:{INK}}}"
    f".label{{font-size:11px;fill:{FAINT}}}.middle{{text-anchor:middle}}"
    f".head{{font-weight:bold}}.note{{font-weight:normal;fill:{FAINT}}}.sign{{font-size:20px;text-anchor:middle}}"
    f".wire,.frame{{fill:none;stroke:{INK};stroke-width:1.3}}.dot{{fill:{INK}}}.paper{{fill:{PAPER}}}"
    f".box,.state{{fill:{PAPER};stroke:{INK};stroke-width:1.3}}.trained{{stroke-width:3.6}}.noisy{{stroke-dasharray:5 3}}"
)

Drawing = tuple[str, float, float]
"""Elements, and their width and height."""


def draw_task(spec: TaskSpec) -> str:
    """The SVG of a task: the same text each time for the same task.

    Raises:
        AtomError: an atom is huge.
    """
    drawings = [("atom", _atom(spec, atom)) for atom in spec.atoms.values()]
    drawings += [("let", _let(spec, let)) for let in spec.lets.values()]
    drawings.append(("legend", _legend(spec)))
    rows, y = [], PAD
    for kind, (drawn, _, height) in drawings:
        rows.append(f'<g class="{kind}" transform="translate({_n(PAD)} {_n(y)})">{drawn}</g>')
        y += height + RULE
    width = max(wide for _, (_, wide, _) in drawings) + 2 * PAD
    height = y - RULE + PAD
    size = f'width="{_n(width)}" height="{_n(height)}"'
    many = f"{len(spec.atoms)} atom{'' if len(spec.atoms) == 1 else 's'}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {_n(width)} {_n(height)}" role="img" '
        'aria-labelledby="title desc">\n'
        f'<title id="title">A task of {many}: {escape(", ".join(spec.atoms))}</title>\n'
        f'<desc id="desc">{escape(print_task(spec))}</desc>\n'
        f'<style>{_STYLE}</style>\n<rect class="paper" {size}/>\n' + "\n".join(rows) + "\n</svg>\n"
    )


def _atom(spec: TaskSpec, atom: Atom) -> Drawing:
    sides = sides_of(spec, atom, fill=False)
    trained = list(atom.trains or learners_in(spec, atom))
    trained += [name for name, let in spec.lets.items() if set(_learners_in(spec, let)) & set(trained)]
    layouts = [place(graph_of(spec, terms, sides.names, trained)) for terms in (sides.left, sides.right) if terms]
    note = f"weight {number(atom.weight)}" + (f", trains {', '.join(atom.trains)}" if atom.trains else "")
    by = f"by {atom.divergence}" if atom.divergence else ""
    sign = {"==": "=", "~": "~", "minimize": "is minimal"}[atom.relation]
    return _equation(atom.name, note, layouts, sign, by)


def _learners_in(spec: TaskSpec, let: Let) -> list[str]:
    return learners_in(spec, Atom(let.name, "==", let.body, None, ()))


def _let(spec: TaskSpec, let: Let) -> Drawing:
    terms, within = body_of(spec, let)
    left, learners = Graph(), _learners_in(spec, let)
    box = left.add(Node("box", let.name, len(let.inputs), len(let.outputs)))
    for port, (name, wire) in enumerate(zip(let.parameters, let.inputs, strict=True)):
        left.wires.append(Wire(left.add(Node("start", "", 0, 1)), 0, box, port, f"{name} : {wire}"))
    for port, wire in enumerate(let.outputs):
        left.wires.append(Wire(box, port, left.add(Node("end", "", 1, 0)), 0, str(wire)))
    names = {make("var", (name, 0, 0)): name for name in let.parameters}
    right = graph_of(within, terms, names, [], open_ends=let.parameters)
    note = f"made of {', '.join(learners)}" if learners else ""
    return _equation(f"let {let.name}", note, [place(left), place(right)], "is", "")


def _equation(name: str, note: str, layouts: Sequence[Layout], sign: str, by: str) -> Drawing:
    """A heading, and below it two diagrams with a sign between them, or one with a sign behind it."""
    parts = [f'<text class="head" y="12">{escape(name)} <tspan class="note">{escape(note)}</tspan></text>']
    tall = max(layout.height for layout in layouts)
    middle, x = HEAD + tall / 2, 0.0
    wide = max(24.0, len(sign) * 12.0, len(by) * 6.7)
    for at, layout in enumerate(layouts):
        parts.append(f'<g transform="translate({_n(x)} {_n(middle - layout.height / 2)})">{_diagram(layout)}</g>')
        x += layout.width
        if at == 0:
            x += BETWEEN
            parts.append(f'<text class="sign" x="{_n(x + wide / 2)}" y="{_n(middle + 6)}">{escape(sign)}</text>')
            if by:
                at_by = f'x="{_n(x + wide / 2)}" y="{_n(middle + 24)}"'
                parts.append(f'<text class="label middle" {at_by}>{escape(by)}</text>')
            x += wide + (BETWEEN if len(layouts) > 1 else 0.0)
    heading = (len(name) + len(note) + 1) * LETTER
    return "".join(parts), max(x, heading), HEAD + max(tall, 36.0)


def _diagram(layout: Layout) -> str:
    lines = "".join(_wire(line) for line in layout.lines)
    nodes = "".join(_node(placed) for placed in layout.nodes)
    labels = "".join(
        f'<text class="label" x="{_n(line.points[0][0] + 6)}" y="{_n(line.points[0][1] - 4)}">{escape(line.label)}</text>'
        for line in layout.lines
        if line.label
    )
    return lines + nodes + labels


def _wire(line: Line) -> str:
    path = f"M{_n(line.points[0][0])} {_n(line.points[0][1])}"
    for (x, y), (x2, y2) in zip(line.points, line.points[1:], strict=False):
        bend = (x + x2) / 2
        path += f"L{_n(x2)} {_n(y2)}" if y == y2 else f"C{_n(bend)} {_n(y)} {_n(bend)} {_n(y2)} {_n(x2)} {_n(y2)}"
    dot = _dot(*line.points[-1], 5) if line.ends else ""
    return f'<path class="wire" d="{path}"/>{dot}'


def _dot(x: float, y: float, radius: int) -> str:
    return f'<circle class="dot" cx="{_n(x)}" cy="{_n(y)}" r="{radius}"/>'


def _node(placed: Placed) -> str:
    node, x, y, wide, tall = placed.node, placed.left, placed.top, placed.width, placed.height
    middle = y + tall / 2
    if node.kind == "copy":
        return _dot(x + wide / 2, middle, 4)
    if node.kind in ("data", "noise"):
        bars = "".join(
            f'<line class="frame" x1="{_n(at)}" y1="{_n(y)}" x2="{_n(at)}" y2="{_n(y + tall)}"/>'
            for at in ((x + wide - 5, x + wide) if node.kind == "data" else (x + wide,))
        )
        return bars + f'<text x="{_n(x)}" y="{_n(middle + 4)}">{escape(node.name)}</text>'
    if node.kind == "const":
        points = f"{_n(x + wide)},{_n(middle)} {_n(x)},{_n(y)} {_n(x)},{_n(y + tall)}"
        name = f'<text x="{_n(x + 5)}" y="{_n(middle + 4)}">{escape(node.name)}</text>'
        return f'<polygon class="state" points="{points}"/>{name}'
    if node.kind != "box":
        return ""
    frames = " ".join(name for name in node.frames if name in ("trained", "noisy"))
    round_by = 10 if "function" in node.frames else 0
    drawn = _rect(f"box {frames}".strip(), x, y, wide, tall, round_by)
    if "fixed" in node.frames:
        drawn += _rect("frame", x + 4, y + 4, wide - 8, tall - 8, 0)
    return drawn + f'<text class="middle" x="{_n(x + wide / 2)}" y="{_n(middle + 4)}">{escape(node.name)}</text>'


def _rect(name: str, x: float, y: float, wide: float, tall: float, round_by: int) -> str:
    corner = f' rx="{round_by}"' if round_by else ""
    return f'<rect class="{name}" x="{_n(x)}" y="{_n(y)}" width="{_n(wide)}" height="{_n(tall)}"{corner}/>'


def _legend(spec: TaskSpec) -> Drawing:
    """What the frames of boxes and the ends of wires mean, of those that the task has."""
    kinds = [
        (Node("box", "f", 1, 1, ("trained",)), "trained", bool(spec.learners)),
        (Node("box", "f", 1, 1), "learner, not trained here", any(atom.trains for atom in spec.atoms.values())),
        (Node("box", "f", 1, 1, ("fixed",)), "fixed", bool(spec.fixed)),
        (Node("box", "f", 1, 1, ("function",)), "function", True),
        (Node("box", "f", 1, 1, ("function", "noisy")), "draws at random", True),
        (Node("data", "", 0, 1), "data", True),
        (Node("noise", "", 0, 1), "noise", any(not source.is_data for source in spec.sources.values())),
        (Node("const", "", 0, 1), "constant", bool(spec.consts)),
        (Node("copy", "", 1, 2), "copied", True),
        (None, "discarded", True),
    ]
    parts, x = [], 0.0
    for node, says, is_there in kinds:
        if is_there:
            wide = 22.0 if node is None else {"box": 34.0, "copy": 8.0}.get(node.kind, 22.0)
            end = Line(((x, 13.0), (x + wide, 13.0)), "", ends=True)
            parts.append(_wire(end) if node is None else _node(Placed(node, x, 0.0, wide, 26.0)))
            parts.append(f'<text class="label" x="{_n(x + wide + (12 if node is None else 8))}" y="17">{says}</text>')
            x += wide + len(says) * 6.7 + 24
    return "".join(parts), x, 26.0


def _n(value: float) -> str:
    """A number in as few characters as a tenth of a pixel takes."""
    return f"{value:.1f}".rstrip("0").rstrip(".") if value else "0"
