"""Signatures of the built-in functions."""

import pytest

from atom_hf import AtomError
from atom_hf.tasks import read_task
from atom_hf.tasks.functions import BUILT_IN, Maker
from helpers.tasks import fit

USES = {
    "draw": "learner e : image -> stats\nlearner d : code -> image|d(draw(e(x))) == x",
    "mask": "function m : code -> code = mask\nlearner e : image -> code\nlearner d : code -> image|d(m(e(x))) == x",
    "jitter": "function m : image -> image = jitter(sigma=0.2)\nlearner g : image -> image|g(m(x)) == x",
    "shift": "learner g : image -> label|g(shift(x)) == y",
    "flip": "learner g : image -> label|g(flip(x)) == y",
    "add": "learner g : image -> image|add(g(x), x) == x",
    "error": "const nought : scalar = 0\nlearner g : image -> image|error(g(x), x) == nought",
    "entropy": "const nought : scalar = 0|entropy(f(x)) == nought",
    "hard": "learner g : label -> image|g(hard(f(x))) == x",
    "against": "learner g : image -> code|against(g(view(x)), g(view(x))) == own",
}


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_function_can_be_used_by_its_name(name):
    more, equation = USES[name].split("|")
    task = read_task(fit(f"fit: f(x) == y\nuse: {equation}", more))
    assert name in str(task) and read_task(str(task)) == task


def test_a_declared_function_draws_if_the_built_in_one_does():
    task = read_task(
        fit("fit: f(m(x)) == y", "function m : image -> image = mask(0.2)\nfunction own2 : code -> code noisy")
    )
    assert task.boxes["m"].noisy and task.boxes["own2"].noisy and not task.boxes["f"].noisy


def test_options_have_defaults_and_bounds():
    known = BUILT_IN["mask"].options
    assert Maker("mask").values(known, "m") == {"share": 0.5}
    assert Maker("mask", (0.4,)).values(known, "m") == Maker("mask", (), (("share", 0.4),)).values(known, "m")
    with pytest.raises(AtomError, match="m: share of mask is given twice"):
        Maker("mask", (0.4,), (("share", 0.4),)).values(known, "m")
    with pytest.raises(AtomError, match="m: mask takes numbers, not a column of a source"):
        Maker("mask", column=("D", 1)).values(known, "m")
