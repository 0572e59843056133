"""Equal diagrams are one object, and others are not."""

import re

from atom_hf.tasks import read_task
from atom_hf.tasks.terms import canonical, make, replaced, show_all, sides_of, size, subterms
from helpers.tasks import EVERY_PATTERN, fit

MORE = "learner g : label -> image\nfunction same : image -> image\nlet twice(x) = same(same(x))"


def sides(line, more=MORE):
    task = read_task(fit(f"fit: {line}\nrest: g(f(x)) == x", more))
    return sides_of(task, task.atoms["fit"])


def term(text):
    return sides(f"{text} == x").left[0]


def test_deterministic_boxes_merge_and_noisy_ones_never_do():
    assert term("g(f(x))") is term("g( f(x) )")
    assert size(term("add(same(g(f(x))), same(g(f(x))))")) == 5  # x, f, g, same, add
    both = term("add(hide(g(f(x))), hide(g(f(x))))")
    assert both.arguments[0] is not both.arguments[1]
    assert both.arguments[0].arguments[0] is both.arguments[1].arguments[0]
    assert canonical([both]) == canonical([term("add(hide(g(f(x))), hide(g(f(x))))")])


def test_lets_are_filled_in_and_copy_their_wires():
    assert term("g(f(twice(x)))") is term("g(f(same(same(x))))")
    let = "let double(x : image) = add(x, x)"
    copied = term_of(f"{MORE}\n{let}", "g(f(double(hide(x))))")
    apart = term_of(MORE, "g(f(add(hide(x), hide(x))))")
    assert size(copied) == size(apart) - 1  # one draw, copied, and two draws
    kept = read_task(fit("fit: g(f(twice(x))) == x", MORE))
    assert show_all(sides_of(kept, kept.atoms["fit"], fill=False).left, {}) == "g(f(twice(D.1)))"


def term_of(more, text):
    return sides(f"{text} == x", more).left[0]


def test_what_is_discarded_vanishes():
    more = f"{MORE}\nlearner two : image -> label, image"
    task = read_task(fit("fit: two(x).1 == y\nboth: (f(x), g(f(x))).1 == y\nrest: two(x) == (y, x)", more))
    fit_sides, both, rest = (sides_of(task, task.atoms[name]) for name in ("fit", "both", "rest"))
    assert "g" not in [term.label[0] for term in subterms(*both.left) if term.op == "box"]
    assert rest.left[0] is fit_sides.left[0] and rest.left[0].arguments[0] is rest.left[1].arguments[0]


def test_names_of_bound_variables_do_not_matter():
    base = read_task(EVERY_PATTERN)
    head, tail = EVERY_PATTERN.split("for x, y in D; a in A:")
    for name, other in (("x", "first"), ("y", "second"), ("a", "third")):
        tail = re.sub(rf"\b{name}\b", other, tail)
    renamed = read_task(f"{head}for first, second in D; third in A:{tail}")
    for name in ("putget", "getput", "undo", "law", "steered"):
        ours, theirs = (sides_of(task, task.atoms[name]) for task in (base, renamed))
        assert str(ours.atom) != str(theirs.atom)
        assert (ours.left, ours.right) == (theirs.left, theirs.right)


def test_draws_are_told_apart_and_numbered_as_they_come():
    text = fit("fit: f(x) == y\none: add(x, g(v)) == u\ntwo: add(u, g(y)) == x", MORE)
    task = read_task(text.replace("n in N", "u, v in D"))
    one, two = (sides_of(task, task.atoms[name]) for name in ("one", "two"))
    assert (one.left, one.right) != (two.left, two.right)
    assert canonical((*one.left, *one.right)) == canonical((*two.left, *two.right))


def test_subterms_are_replaced():
    whole = term("add(same(g(f(x))), g(f(x)))")
    inner, x = term("g(f(x))"), term("g(f(x))").arguments[0].arguments[0]
    assert replaced(whole, {inner: x}) is make("box", ("add", None), [make("box", ("same", None), [x]), x])
    assert replaced(whole, {}) is whole
