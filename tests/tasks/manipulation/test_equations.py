"""The equations of a manipulator as a task: what they are, their weights, and that the identity does not solve them."""

import math

import pytest

from atom_hf import AtomError
from atom_hf.tasks import TaskModel, patterns, read_task
from atom_hf.tasks.kinds import Kind
from atom_hf.tasks.manipulation.equations import atom_weights, manipulation_task
from atom_hf.tasks.manipulation.put import make_put
from helpers.manipulators import DIGITS, digits_classifier

VECTOR = Kind("vector", (5,))


def test_the_task_is_the_pattern_with_a_hard_class():
    spec = manipulation_task(DIGITS, 10, atom_weights(DIGITS))
    text = str(spec).replace("hard(get(x))", "get(x)").replace("datum", "image")
    assert read_task(text).atoms == patterns.manipulation().atoms
    assert read_task(str(spec)) == spec


def test_weights_are_those_of_the_rows_or_given():
    assert atom_weights(DIGITS) == {"putget": 1, "getput": 10, "undo": 10, "law": 0.3}
    assert atom_weights(VECTOR) == {"putget": 1, "getput": 1, "undo": 1, "law": 0.3}
    assert atom_weights(VECTOR, [1, 2, 0, 0, 3]) == {"putget": 1, "getput": 2, "putput": 3}
    spec = manipulation_task(VECTOR, 3, atom_weights(VECTOR, [1, 2, 0, 0, 3]))
    assert [atom.equation for atom in spec.atoms.values()][2] == "put(put(x, a), b) == put(x, b)"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([1, 2, 3], "give four numbers, of putget, getput, undo, law .and one of putput., got 3"),
        ([1, -10, 10, 0.3], "that of getput must be 0 or more, got -10"),
        ([1, 10, math.nan, 0.3], "that of undo must be 0 or more, got nan"),
        ([0, 0, 0, 0], "that of putget is 0, and nothing else says what an edit is to be"),
    ],
)
def test_other_weights_are_refused(given, says):
    with pytest.raises(AtomError, match=f"--weights: {says}"):
        atom_weights(DIGITS, given)


def test_laws_that_the_identity_solves_are_refused():
    text = str(manipulation_task(DIGITS, 10, atom_weights(DIGITS)))
    own = (
        text.replace("; a in A", "")
        .replace("noise A : label = marginal(D.2)\n", "")
        .replace("a)", "y)")
        .replace("== a", "== y")
    )
    boxes = {"get": digits_classifier().module, "put": make_put("steer", DIGITS, 10, (4, 4))}
    with pytest.raises(
        AtomError, match=r"put\(x, y\) = x solves all that put is in, so that it learns to change nothing"
    ):
        TaskModel(read_task(own), boxes)
