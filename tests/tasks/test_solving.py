"""Solutions in finite models, counted: the lenses of the paper, and brute force."""

from itertools import product

import pytest

from atom_hf.tasks import read_task
from atom_hf.tasks.finite import Model, Setting, SpentError
from atom_hf.tasks.solving import constraints_of, solutions
from atom_hf.tasks.terms import sides_of

LENSES = """\
type image = pixels(1, 8, 8), label = class({n})
data D : image
noise A : label = uniform
learner get : image -> label
learner put : image, label -> image
for x in D; a in A; b in A:
    putget: get(put(x, a)) == a
    getput: put(x, get(x)) == x
    undo: put(put(x, a), get(x)) == x
    putput: put(put(x, a), b) == put(x, b)
"""


def counts(values, states):
    """(the lenses with Undo, those of them that violate PutPut)."""
    task = read_task(LENSES.format(n=values))
    sides = {name: sides_of(task, atom) for name, atom in task.atoms.items()}
    model = Model(task, Setting(values, states, states, states))
    laws = constraints_of(model, [sides[name] for name in ("putget", "getput", "undo")])
    putput = constraints_of(model, [sides["putput"]])
    found = [all(law.check() for law in putput) for _ in solutions(model, laws)]
    return len(found), found.count(False)


@pytest.mark.parametrize(("values", "states"), [(2, 2), (2, 3), (2, 4), (3, 3)])
def test_solutions_are_those_of_brute_force(values, states):
    def lens(get, put):
        rows = list(product(range(states), range(values)))
        return (
            all(get[put[x, a]] == a for x, a in rows)
            and all(put[x, get[x]] == x for x in range(states))
            and all(put[put[x, a], get[x]] == x for x, a in rows)
        )

    keys = list(product(range(states), range(values)))
    gets = [get for get in product(range(values), repeat=states) if len(set(get)) == values]
    many = 0
    for get in gets:
        # Only what PutGet allows is tried: a put of a gives a state of value a.
        allowed = [[z for z in range(states) if get[z] == a] for _, a in keys]
        many += sum(lens(get, dict(zip(keys, put, strict=True))) for put in product(*allowed))
    assert counts(values, states)[0] == many


def test_undo_equals_putput_for_two_values_but_not_for_three():
    assert counts(2, 4) == (12, 0)
    assert counts(3, 6) == (720, 360)
    assert counts(3, 4) == (0, 0)  # Undo makes all fibres of one size


def test_tables_that_are_given_stay():
    task = read_task(LENSES.format(n=2))
    sides = [sides_of(task, task.atoms[name]) for name in ("putget", "getput")]
    model = Model(task, Setting(2, 2, 2, 2), {"get": {(0,): 1, (1,): 0}})
    found = [dict(one.tables["put"]) for one in solutions(model, constraints_of(model, sides))]
    assert found == [{(0, 0): 1, (0, 1): 0, (1, 0): 1, (1, 1): 0}]


def test_a_search_ends_when_it_has_taken_its_steps():
    task = read_task(LENSES.format(n=3))
    model = Model(task, Setting(3, 6, 6, 6))
    sides = [sides_of(task, atom) for atom in task.atoms.values()]
    with pytest.raises(SpentError):
        list(solutions(model, constraints_of(model, sides), most=50))


def test_a_noisy_box_holds_for_each_of_its_draws():
    text = LENSES.format(n=2).partition("for x")[0] + "function hide : image -> image noisy\nfor x in D; a in A:\n"
    task = read_task(f"{text}    rebuild: put(hide(x), get(x)) == x\n")
    model = Model(task, Setting(2, 2, 2, 2))
    laws = constraints_of(model, [sides_of(task, task.atoms["rebuild"])])
    entries = 4 + 2 + 4
    # Entries that nothing reads are left open, and may be either of two values.
    many = sum(2 ** (entries - sum(map(len, one.tables.values()))) for one in solutions(model, laws))
    naive = 0
    for hide, get, put in product(*(list(product(range(2), repeat=n)) for n in (4, 2, 4))):
        naive += all(put[2 * hide[2 * x + w] + get[x]] == x for x in range(2) for w in range(2))
    assert many == naive > 0
