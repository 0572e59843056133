"""The drawing of a task: what is in it, that nothing lies on anything else, and that it is the same each time."""

import itertools
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

from atom_hf.tasks import draw_task, read_task
from atom_hf.tasks.diagram import graph_of
from atom_hf.tasks.layout import place
from atom_hf.tasks.terms import sides_of
from helpers.paths import environment
from helpers.tasks import EVERY_PATTERN, fit

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def task():
    return read_task(EVERY_PATTERN)


@pytest.fixture(scope="module")
def drawn(task):
    return ET.fromstring(draw_task(task))


def groups(drawn, kind):
    return [group for group in drawn.iter(f"{SVG}g") if group.get("class") == kind]


def texts(element):
    return [" ".join("".join(text.itertext()).split()) for text in element.iter(f"{SVG}text")]


def shapes(element, tag, name):
    return [shape for shape in element.iter(f"{SVG}{tag}") if name in shape.get("class", "").split()]


def test_every_atom_is_drawn_with_its_boxes_its_weight_and_what_it_trains(task, drawn):
    atoms = groups(drawn, "atom")
    assert len(atoms) == len(task.atoms) and len(groups(drawn, "let")) == 1
    for group, atom in zip(atoms, task.atoms.values(), strict=True):
        words = texts(group)
        assert words[0].startswith(f"{atom.name} weight {atom.weight:g}")
        sides = sides_of(task, atom, fill=False)
        boxes = {term.label[0] for side in (sides.left, sides.right) for term in walk(side) if term.op == "box"}
        assert boxes <= set(words)
    assert "fool weight 1, trains gen" in texts(atoms[6])
    title, desc = drawn.find(f"{SVG}title").text, drawn.find(f"{SVG}desc").text
    assert title.startswith("A task of 15 atoms: fit, rebuild") and read_task(desc) == task
    assert drawn.get("role") == "img" and drawn.get("aria-labelledby") == "title desc"


def walk(terms):
    for term in terms:
        yield term
        yield from walk(term.arguments)


def test_frames_say_what_a_box_is(drawn):
    atoms = {texts(group)[0].split()[0]: group for group in groups(drawn, "atom")}
    count = {name: len(shapes(group, "rect", "trained")) for name, group in atoms.items()}
    assert (
        count["fit"] == 1
        and count["fool"] == 1
        and count["denoise"] == 2
        and count["undo"] == 2
        and count["steered"] == 1
    )
    assert len(shapes(atoms["undo"], "rect", "frame")) == 1  # get, within its box
    assert len(shapes(atoms["match"], "rect", "noisy")) == 2
    assert len(shapes(atoms["prior"], "polygon", "state")) == 1
    # A copy has a small dot, a discard a larger one: x goes to put and get, y nowhere, on either side of getput.
    assert sorted(dot.get("r") for dot in shapes(atoms["getput"], "circle", "dot")) == ["4", "5", "5"]
    assert "minimize" not in str(texts(drawn)) and "is minimal" in str(texts(ET.fromstring(draw_task(COST))))


COST = read_task(fit("cost: minimize entropy(f(hide(x)))"))


def test_wires_are_labelled(drawn):
    labels = [text.text for text in drawn.iter(f"{SVG}text") if text.get("class") == "label"]
    assert {"x : image", "y : label", "n : code", "stats", "truth", "class(batch)"} <= set(labels)


@pytest.mark.parametrize("name", ["fit", "match", "putget", "getput", "undo", "law", "rebuild"])
def test_nothing_lies_on_anything_else(task, name):
    sides = sides_of(task, task.atoms[name], fill=False)
    for terms in (sides.left, sides.right):
        layout = place(graph_of(task, terms, sides.names, []))
        for a, b in itertools.combinations(layout.nodes, 2):
            apart = a.left + a.width <= b.left or b.left + b.width <= a.left
            assert apart or a.top + a.height <= b.top or b.top + b.height <= a.top
        for node in layout.nodes:
            assert min(node.left, node.top) >= 0
            assert node.left + node.width <= layout.width and node.top + node.height <= layout.height + 1e-6
        for line in layout.lines:
            assert all(x <= x2 for (x, _), (x2, _) in itertools.pairwise(line.points))
            start, (x, y) = line.points[0], line.points[1]
            assert not line.label or (y == start[1] and x - start[0] >= 6 * len(line.label))


def test_wires_run_from_port_to_port(task):
    sides = sides_of(task, task.atoms["undo"], fill=False)
    layout = place(graph_of(task, sides.left, sides.names, []))
    ends = [line.points[-1] for line in layout.lines if not line.ends]
    for node in layout.nodes:
        into = [y for x, y in ends if x == node.left and node.top <= y <= node.top + node.height]
        assert len(into) == node.node.inputs and len(set(into)) == len(into)


def test_names_are_escaped():
    text = draw_task(
        read_task(fit("fit: f(x) == y").replace("learner f", 'fixed g : image -> label = "a<b&c"\nlearner f'))
    )
    assert "a<b" not in text and "a&lt;b&amp;c" in text
    ET.fromstring(text)


def test_the_drawing_is_the_same_in_another_process(task, tmp_path):
    (tmp_path / "every.task").write_text(EVERY_PATTERN, encoding="utf-8")
    program = (
        "import sys; from atom_hf.tasks import draw_task, read_task; print(draw_task(read_task(sys.argv[1])), end='')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "every.task")],
        env={**environment(), "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == draw_task(task)
