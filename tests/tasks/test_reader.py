"""Texts that are read, printed back, and refused in one line."""

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atom_hf import AtomError
from atom_hf.tasks import TaskSpec, read_task
from helpers.tasks import EVERY_PATTERN, FIT, fit

ONE = "fit: f(x) == y"


def test_every_pattern_of_the_language_is_read_and_printed_back():
    task = read_task(EVERY_PATTERN)
    assert len(task.atoms) == 15 and list(task.atoms)[:2] == ["fit", "rebuild"]
    assert set(task.fixed) == {"get", "teacher"} and set(task.sources) == {"D", "N", "A"}
    assert "steer" in task.lets and "steer" not in task.learners and len(task.learners) == 11
    prior, hint, fool = (task.atoms[name] for name in ("prior", "hint", "fool"))
    assert prior.weight == 0.1 and str(prior.divergence) == "kl"
    assert hint.divergence.options == (("temperature", 2.0),) and fool.trains == ("gen",)
    assert read_task(str(task)) == task and str(read_task(str(task))) == str(task)


def test_a_task_is_a_text_or_a_file(tmp_path):
    file = tmp_path / "fit.task"
    file.write_text(fit(ONE), encoding="utf-8")
    assert read_task(file) == read_task(str(file)) == read_task(fit(ONE))
    file.write_bytes(fit(ONE).encode() + b"# \xff\n")
    with pytest.raises(AtomError, match=r"fit\.task: line 18: got bytes that are no UTF-8"):
        read_task(file)
    with pytest.raises(AtomError, match=r"'nosuch\.task': there is no such file; give the path of a task, or its text"):
        read_task("nosuch.task")
    with pytest.raises(AtomError, match="a task is a text or the path of a file, got a int"):
        read_task(3)


def test_what_does_not_matter_is_not_kept():
    indented = "\n".join(f"      {line}" for line in fit(ONE).splitlines())
    broken = fit("fit : f(\n   x)   ==   y   # over two lines").replace("\n\n", "\n\n# a comment\n   # another\n\n")
    assert read_task(indented) == read_task(broken) == read_task(fit("fit 1.0: f(x) == (y)"))
    assert read_task(fit(ONE)) != read_task(fit("fit 2: f(x) == y"))


def test_atoms_are_added_in_python():
    task = TaskSpec(FIT)
    task.atom("fit", "f(x) == y", over="x, y in D").atom("again", "f(hide(x)) == y", weight=0.5, trains=["f"])
    lines = "for x, y in D:\n    fit: f(x) == y\n    again 0.5: f(hide(x)) == y trains f\n"
    assert task == read_task(FIT + lines)
    before = str(task)
    for name, equation, options in (
        ("fit", "f(x) == y", {}),
        ("new", "f(y) == y", {}),
        ("new", "f(x) == y", {"weight": -1}),
        ("new", "f(x) == y", {"weight": "1"}),
        ("new", "f(x) == y\n    other: f(x) == y", {}),
        ("new", "f(x) == y", {"over": "x, y in E"}),
    ):
        with pytest.raises(AtomError, match=f"^{name}: "):
            task.atom(name, equation, **options)
        assert str(task) == before
    with pytest.raises(AtomError, match="fit: give over, such as 'x, y in D'"):
        TaskSpec(FIT).atom("fit", "f(x) == y")


UNREADABLE = {
    "": "line 1: the task is empty; expected declarations",
    "  \n\n": "line 1: the task is empty",
    "task one": "line 1: got 'task'; expected the end of the line, 'const', 'data'",
    "type image": "line 1: got the end of the line; expected '='",
    f"{FIT}for x, y in D\n": "line 15: got the end of the line; expected ':' or ';'",
    f"{FIT}for x, y in D:\nfit: f(x) == y\n": "line 16: got 'fit:'; expected the end of the line",
    f"{FIT}    data E : image\n": "line 15: got an indented line; expected",
    fit("fit f(x) == y"): "line 17: got 'f'; expected a number, the end of the line or ':'",
    fit("fit: f(x) = y"): "line 17: got '='; expected",
    fit("fit: f(x == y"): "line 17: got '=='; expected '\\)', ',' or '\\.'",
    fit("fit: f(x) == y by"): "line 17: got the end of the line; expected a name",
    fit("fit: f(x) == y $"): r"line 17: got '\$'; expected",
    fit(f"{ONE}\n  more: f(x) == y"): "line 18: got an indented line; expected a name or the end of the block",
    f"{fit(ONE)}  more: f(x) == y\n": "line 18: got a line that is indented like none above it; expected the same spaces",
    fit("fit 1e999: f(x) == y"): "fit: a weight must be a number of at least 0",
    f"{FIT}type big = vector(0.5)\n": "line 15: got '0.5'; expected a whole number",
    f"{FIT}function a : image -> image, noisy, image\n": "line 15: 'noisy' comes last",
}


@pytest.mark.parametrize(("text", "says"), UNREADABLE.items())
def test_an_unreadable_text_is_refused_by_its_line(text, says):
    with pytest.raises(AtomError, match=says) as found:
        read_task(text)
    assert "\n" not in str(found.value)


DECLARED = {
    "type image = vector(3)": "type image: image is a type already; choose another name",
    "type vector = class(3)": "type vector: vector is a kind already",
    "type a = b, b = a": "type a goes round in a circle: a = b = a",
    "type a = vectors(3)": "type a: no such type: vectors; there are image, label",
    "type a = vector(3, 4)": r"type a: vector\(3, 4\) has 2 sizes; write vector\(n\)",
    "type a = vector(0)": "a size must be a whole number of at least 1, got 0",
    "type a = pixels(4096, 4096, 4096)": "has more than 16,777,216 values",
    "type a = vector(wide)": "type a: a size is a number, or batch for class",
    "data D : image": "data D: D is a data source already",
    "data in : image": "data in: in is a word of the language; choose another name",
    "data E : row": r"data E: a column cannot be class\(batch\)",
    "noise M : code = cauchy": "noise M: no such noise: cauchy; there are normal, uniform, marginal",
    "noise M : label = normal": r"noise M: normal draws pixels, vector, scalar, and M is class\(10\)",
    "noise M : label = marginal(D.3)": "noise M: D has 2 columns, and no D.3",
    "noise M : label = marginal(D.1)": "noise M: D.1 is image, and M is label",
    "noise M : label = marginal(E.1)": "noise M: no such data source: E; there are D",
    "noise M : label = marginal(N.1)": "noise M: no such data source: N; there are D",
    "noise M : label = marginal(2)": "noise M: marginal takes a column of a source",
    "const two : truth = 2": "const two: the constant of a logit is a probability from 0 to 1, got 2",
    "const ten : label = 10": r"const ten: a class of class\(10\) is a whole number from 0 to 9, got 10",
    "const none : truth": "const none: a constant of logit is a number, got none",
    "const odd : stats = 1": r"const odd: a constant of gaussian\(16\) is standard, got 1",
    "learner f : image -> label": "learner f: f is a learner already",
    "learner h : picture -> label": "learner h: no such type: picture; there are image",
    "learner h, h : image -> label": "learner h: h is a learner already",
    "fixed h, i : image -> label = a/b": "give each its own line, to name its model",
    "function h : image -> image = blur(2)": "function h: no such function: blur; built in are draw, mask",
    "function h : label -> label = mask": "mask is T -> T for pixels or vector; it cannot be label -> label",
    "function h : image -> image = mask(2)": "function h: share of mask must be between 0 and 1, got 2",
    "function h : image -> image = mask(0.1, 0.2)": "function h: mask takes 1 options, got 2",
    "function h : image -> image = mask(size=1)": "function h: mask has no option size; it has share",
    "let h(x) = f(x, x)": "let h: f takes image, got image, image",
    "let h(x) = x": "let h: the type of x is not known; write it behind the name, as in x : image",
    "let h(x, x) = f(x)": "let h: x is a parameter already",
    "let D(x) = f(x)": "let D: D is a data source already",
    "let h(x) = f(y)": "let h: the type of x is not known",
    "let h(x : image) = f(y)": "let h: no such variable: y; there are x",
    "let f(x) = f(x)": "let f goes round in a circle: f -> f",
    "let h(x) = i(x)\nlet i(x) = h(x)": "let h goes round in a circle: h -> i -> h",
    "let f(x) = hide(x)": "let f: hide.x. is image, and f is declared as image -> label",
    "let f(x : label) = f2(x)\nlearner f2 : label -> label": "let f: x is label, and f takes image",
    "learner g : image -> label": "learner g: no atom trains it; use it in an atom with a weight above 0",
}


@pytest.mark.parametrize(("line", "says"), DECLARED.items())
def test_a_declaration_that_cannot_be_is_refused(line, says):
    with pytest.raises(AtomError, match=says) as found:
        read_task(fit(ONE).replace("\n\nfor", f"\n{line}\n\nfor"))
    assert "\n" not in str(found.value)


ATOMS = {
    "fit: f(y) == y": "fit: wire y into f is label, f takes image",
    "fit: f(hide(y)) == y": "fit: wire y into hide is label, hide takes image",
    "fit: f(x, y) == y": "fit: f takes image, got image, label",
    "fit: f(x) == x": r"fit: the sides differ: f\(x\) is label, x is image",
    "fit: (f(x), x) == (x, y)": r"fit: the sides differ: \(f\(x\), x\) is label, image, \(x, y\) is image, label",
    "fit: h(x) == y": "fit: no such box: h; there are draw, hide, view, f; built in are draw, mask",
    "fit: D(x) == y": "fit: D is a data source, not a box",
    "fit: f(z) == y": "fit: no such variable: z; there are x, y, n, one, zero, unit, own",
    "fit: f(f) == y": "fit: f is a learner, where a variable or a constant is expected; write f",
    "fit: f(x).2 == y": r"fit: f\(x\) has label, and no wire 2",
    "fit: f(add(x, n)) == y": r"add is T, T -> T for pixels or vector; it cannot take image, code",
    "fit: f(x) == y by huber": r"fit: huber is no divergence for class\(10\); there is cross_entropy or kl",
    "fit: f(x) == y by l1": r"fit: l1 does not compare class\(10\); there is cross_entropy or kl",
    "fit: f(x) == y by kl(heat=2)": "fit: kl has no option heat; it has temperature",
    "fit: f(x) == y by kl(temperature=0)": "fit: temperature of kl must be between 0.001 and 1000, got 0",
    "fit: (f(x), x) ~ (y, x) by kl": "fit: kl does not compare laws; there is energy",
    "fit: f(x) == y trains g": "fit: trains g, which is unknown; in it are f",
    "fit: f(x) == y trains hide": "fit: trains hide, which is a function, not a learner; in it are f",
    "fit: f(x) == y trains D": "fit: trains D, which is a data source, not a learner",
    "fit: f(x) == y trains f, f": "fit: trains names a learner twice: f, f",
    "fit: y == f(x)": "fit: the left side of class is compared by its logits, and y has none; put what a box gives",
    "fit: minimize f(x)": r"fit: only a scalar can be minimized, and f\(x\) is label",
    "fit: minimize entropy(f(x)) by kl": "fit: minimize compares nothing; leave out 'by kl'",
    "fit -1: f(x) == y": "fit: a weight must be a number of at least 0 and at most 1e.12, got -1",
    "fit 0: f(x) == y": "all weights are 0: fit; give at least one atom a weight above 0",
    f"{ONE}\n{ONE}": "fit: there is an atom of this name already; choose another name",
    "_: f(x) == y": "_: an atom needs a name",
}


@pytest.mark.parametrize(("line", "says"), ATOMS.items())
def test_an_atom_that_does_not_fit_is_refused(line, says):
    with pytest.raises(AtomError, match=f"^{says}" if ":" in says else says) as found:
        read_task(fit(line))
    assert "\n" not in str(found.value)


BLOCKS = {
    "x in D": r"fit: D has 2 columns \(image, label\), and x in D names 1; _ stands for one that is not used",
    "x, y in E": "fit: no such source: E; there are D, N, A",
    "x, x in D": "fit: x in 'x, x in D' is a variable already; choose another name",
    "x, y in D; x in N": "fit: x in 'x in N' is a variable already",
    "f, y in D": "fit: f in 'f, y in D' is a learner already",
    "x, _ in D; _ in N": r"fit: no such variable: y; there are x, one",
}


@pytest.mark.parametrize(("over", "says"), BLOCKS.items())
def test_variables_that_cannot_be_are_refused(over, says):
    with pytest.raises(AtomError, match=says):
        read_task(f"{FIT}for {over}:\n    {ONE}\n")


def test_trains_of_an_absent_or_fixed_box_is_refused():
    more = "learner g : image -> label\nfixed get : image -> label\nlet h(x) = f(x)"
    says = {"g": "which is not in it; in it are f", "get": "which is a fixed box", "h": "which is defined by let"}
    for name, why in says.items():
        with pytest.raises(AtomError, match=f"fit: trains {name}, {why}"):
            read_task(fit(f"fit: f(x) == get(x) trains {name}\ntwo: g(h(x)) == y".replace("g(h(x))", "g(x)"), more))


def test_nesting_and_size_are_bounded():
    with pytest.raises(AtomError, match="an expression is nested more than 60 deep"):
        read_task(fit(f"fit: {'f(' * 70}x{')' * 70} == y"))
    with pytest.raises(AtomError, match="the task is larger than the 1048576 characters"):
        read_task(fit(ONE) + "#" * 2**20)
    lets = "\n".join(f"let d{n}(x) = d{n - 1}(d{n - 1}(x))" for n in range(1, 40))
    with pytest.raises(AtomError, match="deep: it has more than 2000 boxes once its lets are filled in"):
        from atom_hf.tasks.terms import sides_of

        task = read_task(fit("deep: f(d39(x)) == y", f"let d0(x) = hide(x)\n{lets}"))
        sides_of(task, task.atoms["deep"])


LETTERS = st.sampled_from([*" \n\t:=~,;.()#->_\"'", "\x00", "é", "  ", "    ", "\n    ", "1e9", "-1", "999999999999"])
WORDS = st.sampled_from(sorted(set(re.findall(r"\w+", EVERY_PATTERN))))


@st.composite
def mutations(draw):
    """The text of every pattern, with pieces cut out, put in, doubled and exchanged."""
    text = EVERY_PATTERN
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(text)))
        end = min(len(text), place + draw(st.integers(0, 12)))
        put = draw(st.one_of(st.just(""), LETTERS, WORDS, st.just(text[place:end] * 2), st.text(max_size=3)))
        text = text[:place] + put + text[end:]
    return text


@pytest.mark.promise(
    "A task file that is damaged anywhere ends in one line.",
    "texts of all patterns with pieces cut, put in and exchanged",
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(mutations())
def test_a_mutated_task_is_read_or_refused_in_one_line(text):
    try:
        task = read_task(text)
    except AtomError as error:
        assert len(str(error).splitlines()) == 1, str(error)
    else:
        assert read_task(str(task)) == task
