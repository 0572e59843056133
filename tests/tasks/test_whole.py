"""Tasks that the identity solves are refused, and others are not."""

import pytest

from atom_hf import AtomError
from atom_hf.tasks import read_task
from atom_hf.tasks.whole import check_not_trivial
from helpers.tasks import EVERY_PATTERN, fit

PUT = "{get} get : image -> label\nlearner put : image, label -> image"
LAWS = "putget: get(put(x, {a})) == {a}\ngetput: put(x, get(x)) == x\nundo: put(put(x, {a}), get(x)) == x"


def laws(a, get="fixed", more=""):
    text = fit(LAWS.format(a=a) + more + "\nfit: f(x) == y", PUT.format(get=get))
    return read_task(text.replace("n in N", "a in A"))


def test_laws_with_an_independent_attribute_are_trained():
    check_not_trivial(read_task(EVERY_PATTERN))
    check_not_trivial(laws("a"))
    check_not_trivial(laws("y", more="\nreal: minimize error(put(x, y), hide(x))"))


def test_laws_with_the_own_label_are_refused():
    with pytest.raises(AtomError) as found:
        check_not_trivial(laws("y"))
    assert str(found.value).startswith(
        "putget, getput, undo: put(x, y) = x solves all that put is in, so that it learns"
    )
    assert "noise A : label = marginal(D.2)" in str(found.value)
    with pytest.raises(AtomError, match="putget, getput, undo, law: put"):
        check_not_trivial(laws("y", more="\nlaw: (put(x, y), y) ~ (x, y)"))


def test_a_classifier_that_is_trained_on_the_label_reads_it():
    with pytest.raises(AtomError, match=r"put\(x, y\) = x solves all that put is in"):
        check_not_trivial(laws("y", get="learner", more="\nread: get(x) == y"))
    check_not_trivial(laws("y", get="learner", more="\nread: get(hide(x)) == y"))


def test_a_learner_of_one_input_is_left_alone():
    check_not_trivial(read_task(fit("same: copy(x) == x\nfit: f(x) == y", "learner copy : image -> image")))
    with pytest.raises(AtomError, match=r"same: copy\(x, y\) = x solves all that copy is in"):
        check_not_trivial(
            read_task(fit("same: copy(x, y) == x\nfit: f(x) == y", "learner copy : image, label -> image"))
        )
