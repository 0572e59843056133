"""Whether a task follows from another: against enumeration by loops, and in words."""

from itertools import product

import pytest

from atom_hf import AtomError
from atom_hf.tasks import read_task, refines
from atom_hf.tasks.syntax import Call, Group, Name

LENS = {
    "putget": "get(put(x, a)) == a",
    "getput": "put(x, get(x)) == x",
    "undo": "put(put(x, a), get(x)) == x",
    "putput": "put(put(x, a), b) == put(x, b)",
    "law": "(put(x, a), a) ~ (x, y)",
    "image": "put(x, a) ~ x",
    "pair": "(get(put(x, a)), a) ~ (get(x), y)",
    "reads": "get(x) == y",
    "still": "put(x, a) == x",
    "twice": "put(put(x, get(x)), get(x)) == x",
    "moves": "put(x, get(x)) ~ x",
}
HEAD = """\
type image = pixels(1, 8, 8), label = class({n})
data D : image, label
noise A : label = {a}
{get} get : image -> label
learner put : image, label -> image
"""


def lens(*names, n=2, a="marginal(D.2)", get="fixed", over="x, y in D; a in A; b in A"):
    atoms = "".join(f"    {name}: {LENS[name]}\n" for name in names)
    trains = "" if get == "fixed" else "    train: get(x) == get(x)\n"
    keep = "" if any("put" in LENS[name] for name in names) else "    keep: put(x, a) == put(x, a)\n"
    return read_task(f"{HEAD.format(n=n, a=a, get=get)}for {over}:\n{atoms}{trains}{keep}")


FOLLOWS = {
    "getput putput": "undo getput",
    "getput": "twice moves",
    "law reads": "putget image reads",
    "law": "image pair",
    "law getput": "image moves",
    "still": "getput undo twice putput",
    "still reads law": "putget",
}
DOES_NOT = {
    "getput": "law",
    "putget getput": "undo",
    "undo": "still",
    "image": "law",
    "putget": "getput",
    "putget getput undo": "putput",
    "law": "undo",
}


@pytest.mark.parametrize(("given", "goal"), FOLLOWS.items())
def test_what_follows_is_proved(given, goal):
    found = refines(lens(*given.split()), lens(*goal.split()))
    assert found.answer is True and found and len(found.steps) >= len(goal.split()) and found.counterexample is None


@pytest.mark.parametrize(("given", "goal"), DOES_NOT.items())
def test_a_counterexample_is_one(given, goal):
    found = refines(lens(*given.split()), lens(*goal.split()))
    assert found.answer is False and not found
    model, task = found.counterexample, lens(*{*given.split(), goal})
    assert model.atom == goal
    for name in task.atoms:
        assert naive_holds(task, name, model) == (name != goal)
    assert "does not follow" in str(found) and model.failure in str(found)


@pytest.fixture(scope="module")
def truths():
    """What holds of all laws in each model of two values."""
    task = lens(*LENS)
    return [({name: naive_holds(task, name, model) for name in LENS}, vars(model)) for model in all_models()]


@pytest.mark.parametrize("name", LENS)
def test_proofs_hold_in_all_models_of_two_values(name, truths):
    """Laws that prove another do so in every table: proofs are sound."""
    others = [other for other in LENS if other != name]
    pairs = [(one,) for one in others] + [("getput", other) for other in others if other != "getput" != name]
    proved = [given for given in pairs if refines_quickly(given, name)]
    for holds, model in truths:
        for given in proved:
            assert holds[name] or not all(holds[other] for other in given), (given, name, model)


def refines_quickly(given, goal):
    from atom_hf.tasks.refinement import FEW_TERMS, _prove
    from atom_hf.tasks.rewriting import Prover
    from atom_hf.tasks.terms import sides_of

    task = lens(*given, goal)
    sides = {name: sides_of(task, atom) for name, atom in task.atoms.items()}
    known = [sides[name] for name in given]
    return _prove(Prover(task, known), known, sides[goal], FEW_TERMS) is not None


class TwoValues:
    def __init__(self, data, get, put):
        self.data, self.tables = {"D": data}, {"get": get, "put": put}
        self.sets = {"image": 2, "label": 2}


def all_models():
    """Every model of two images and two labels, over data that takes both of each."""
    for labels in ((0, 1), (1, 0)):
        data = list(enumerate(labels))
        for get in product(range(2), repeat=2):
            for put in product(range(2), repeat=4):
                keys = list(product(range(2), repeat=2))
                yield TwoValues(data, {(i,): get[i] for i in range(2)}, dict(zip(keys, put, strict=True)))


def naive_holds(task, name, model):
    """Whether an atom holds, by its expressions, at every row and every label."""
    atom = task.atoms[name]
    labels = [y for _, y in model.data["D"]] if atom.relation == "~" else sorted({*range(model.sets["label"])})
    points = [
        {"x": x, "y": y, "a": a, "b": b} for (x, y), a, b in product(model.data["D"], labels, labels)
    ]  # fmt: skip
    pairs = [[naive_value(side, point, model) for side in (atom.left, atom.right)] for point in points]
    if atom.relation == "==":
        return all(left == right for left, right in pairs)
    return sorted(left for left, _ in pairs) == sorted(right for _, right in pairs)


def naive_value(expression, point, model):
    match expression:
        case Name(name):
            return (point[name],)
        case Group(parts):
            return tuple(v for part in parts for v in naive_value(part, point, model))
        case Call(box, arguments):
            inputs = tuple(v for part in arguments for v in naive_value(part, point, model))
            return (model.tables[box].get(inputs, 0),)


def test_a_proof_is_said_step_by_step():
    found = refines(lens("putput", "getput"), lens("undo"))
    assert found.steps == ["undo: put(put(x, a), get(x)) = put(x, get(x)) by putput = x by getput"]
    assert refines(lens("law", "reads"), lens("putget")).steps == ["putget: get(put(x, a)) = a by reads and law"]
    assert refines(lens("putget", "undo"), lens("undo")).steps == ["undo: it is undo"]
    assert str(refines(lens("getput"), lens("moves"))) == (
        "yes\nmoves: by getput both sides are x, of independent draws"
    )


def test_only_an_independent_class_noise_becomes_any_expression():
    """PutPut and GetPut give Undo because the second attribute may be get(x): of an attribute of the datum it may not."""
    over = "x, y in D; a in A; u, b in D"
    assert refines(lens("putput", "getput"), lens("undo")).answer is True
    assert refines(lens("putput", "getput", a="uniform"), lens("undo", a="uniform")).answer is True
    assert refines(lens("putput", "getput", over=over), lens("undo")).answer is not True


def test_an_equation_holds_on_its_source_and_not_everywhere():
    found = refines(lens("still"), lens("still"))
    assert found.answer is True
    task = HEAD.format(n=3, a="uniform", get="fixed") + "learner r : image -> image\nfor x, y in D; a in A:\n"
    copies = read_task(f"{task}    copy: r(x) == x\n    use: put(x, a) == put(x, a)\n")
    off = read_task(f"{task}    copy: r(put(x, a)) == put(x, a)\n")
    assert refines(copies, off).answer is False
    on = read_task(f"{task}    copy: r(x) == x\n    law: put(x, a) ~ x\n")
    assert refines(on, off).answer is True


def test_a_learner_may_be_fixed_or_filled_in_but_not_the_other_way_round():
    free, fixed = lens("reads", get="learner"), lens("reads")
    assert refines(fixed, free).answer is True
    assert refines(free, fixed).answer is False
    code = "type code = vector(4)\nlearner enc : image -> code\nlearner dec : code, label -> image\n"
    head = HEAD.format(n=3, a="uniform", get="fixed")
    let = f"{head}{code}let put(x, a) = dec(enc(x), a)\nfor x, y in D:\n    rebuild: dec(enc(x), get(x)) == x\n"
    filled, asked = read_task(let), lens("getput", n=3, a="uniform")
    assert refines(filled, asked).answer is True
    back = refines(asked, filled)
    assert back.answer is None and "the first task has no learner dec, enc" in back.steps[0]


def test_costs_and_angles_are_only_compared_with_themselves():
    head = HEAD.format(n=3, a="uniform", get="fixed") + "for x, y in D; a in A:\n    getput: put(x, get(x)) == x\n"
    cost = read_task(f"{head}    cost: minimize error(put(x, a), x)\n")
    same = read_task(f"{head}    other: minimize error(put(x, a), put(x, get(x)))\n")
    assert refines(cost, same).answer is True and refines(cost, cost).answer is True
    assert refines(lens("getput", n=3, a="uniform"), cost).answer is None
    angle = read_task(f"{head}    angle: put(x, a) == x by cosine\n")
    exact = read_task(f"{head}    angle: put(x, a) == x\n")
    assert refines(angle, angle).answer is True and refines(exact, angle).answer is True
    assert refines(angle, exact).answer is not True
    weightless = read_task(f"{head}    angle 0: put(x, a) == x\n")
    assert refines(weightless, exact).answer is False


GAN = """\
type image = vector(2), code = vector(2), truth = logit
data D : image
noise N : code = normal
const one : truth = 1
const zero : truth = 0
learner gen : code -> image
learner dis : image -> truth
for x in D; n in N:
    real: dis(x) == one trains dis
    fake: dis(gen(n)) == zero trains dis
    fool: dis(gen(n)) == one trains gen
"""


def test_a_game_has_no_perfect_solution():
    with pytest.raises(AtomError) as found:
        refines(read_task(GAN), read_task(GAN))
    assert str(found.value) == (
        "fake, fool: dis(gen(n)) cannot equal both zero and one, so that no perfect solution exists and anything would "
        "follow; leave one of them out"
    )
    alone = read_task(GAN.replace("    fake: dis(gen(n)) == zero trains dis\n", ""))
    assert refines(alone, alone).answer is True


def test_a_name_means_one_thing_in_both():
    with pytest.raises(
        AtomError,
        match=r"^D is pixels\(1, 8, 8\), class\(2\) in the first task and pixels\(1, 8, 8\), class\(3\) in the",
    ):
        refines(lens("getput"), lens("getput", n=3))
    with pytest.raises(
        AtomError, match=r"A is class\(2\) = uniform in the first task and class\(2\) = marginal\(D.2\) in the second"
    ):
        refines(lens("putget", a="uniform"), lens("putget"))
