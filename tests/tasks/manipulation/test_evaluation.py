"""What is measured of edits, against loops over rows; which edits count; and what is refused."""

import math

import pytest
import torch

from atom_hf import AtomError
from atom_hf.tasks import evaluate_manipulator
from atom_hf.tasks.manipulation.evaluation import edit_all, editor_of, read_rows
from atom_hf.tasks.manipulation.judge import check_judge_rows, make_judge
from atom_hf.tasks.manipulation.rows import LabelledRows
from helpers.manipulators import NAMES, digit_rows, digits_classifier, digits_manipulator, small


def rms(one, other):
    return math.sqrt(sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) / len(one))


def energy(first, second):
    """By loops, without the pairs of one number."""

    def mean(a, b):
        found = [math.dist(x, y) for i, x in enumerate(a) for j, y in enumerate(b) if i != j]
        return sum(found) / len(found)

    return 2 * mean(first, second) - mean(first, first) - mean(second, second)


@pytest.fixture(scope="module")
def evaluated():
    _, judge, test = digit_rows()
    some = test.draw(40)
    found = evaluate_manipulator(digits_manipulator(), some, judge, classifier=digits_classifier().module)
    return found, some


def test_what_is_measured_is_what_loops_find(evaluated):
    found, some = evaluated
    manipulator, (_, judge_rows, _) = digits_manipulator(), digit_rows()
    judge = make_judge("svm", judge_rows, NAMES, None)
    values = some.floats
    own = manipulator.classify(values).argmax(1).tolist()
    moves, undone, identity, judged, read, by_class = [], [], [], [], [], {}
    for row, label in enumerate(some.labels.tolist()):
        one = values[row : row + 1]
        flat = one.flatten().tolist()
        identity.append(rms(manipulator.edit(one, own[row]).flatten().tolist(), flat))
        for to in range(10):
            if to == label:
                continue
            edited = manipulator.edit(one, to)
            moves.append(rms(edited.flatten().tolist(), flat))
            undone.append(rms(manipulator.edit(edited, own[row]).flatten().tolist(), flat))
            judged.append(int(judge.read(edited)[0]) == to)
            read.append(int(manipulator.classify(edited).argmax()) == to)
            by_class.setdefault(to, []).append(edited.flatten().tolist())

    def total(values):
        return math.sqrt(sum(value**2 for value in values) / len(values))

    assert found["edits"] == len(moves) == 9 * 40 and found["rows"] == 40
    for name, values in (("identity", identity), ("undo", undone), ("move", moves)):
        assert found[name] == pytest.approx(total(values), rel=1e-4), name
    assert found["judge"] == pytest.approx(sum(judged) / len(judged))
    assert found["success"] == pytest.approx(sum(read) / len(read))
    assert found["gap"] == pytest.approx(found["success"] - found["judge"])
    assert found["judge_accuracy"] == pytest.approx(judge.accuracy(some)) and found["judge_accuracy"] > 0.8
    seven = energy(by_class[7], some.of_class(7).flatten(1).tolist())
    assert found["energy_by_class"][7][0] == pytest.approx(seven, rel=1e-3)


def test_an_editor_that_changes_nothing_is_told_from_one_that_edits(evaluated):
    found, some = evaluated
    own = read_rows(digits_manipulator(), some)
    still = edit_all(lambda values, own, to, strength=1.0: values, some, own, 10)
    judge = make_judge("svm", digit_rows()[1], NAMES, None)
    assert (judge.read(still.values) == still.to).float().mean() < 0.1 < found["judge"]
    assert not bool((some.labels[still.source] == still.to).any())
    edits = edit_all(editor_of(digits_manipulator()), some, own, 10)
    assert edits.values.shape == (360, 1, 8, 8) and 0 <= found["interpolation"] <= 1 and "success_classifier" in found


def test_judges(monkeypatch):
    monkeypatch.setattr("atom_hf.tasks.manipulation.judge.STEPS", 400)
    _, rows, test = digit_rows()
    for name in ("linear", "mlp(32)"):
        assert make_judge(name, rows, NAMES, small("unused")).accuracy(test) > 0.8
    with pytest.raises(AtomError, match=r"--judge '\./nosuch': no such model that can be read"):
        make_judge("./nosuch", rows, NAMES, small("unused"))


def test_rows_that_cannot_be_judged_are_refused():
    _, judge, test = digit_rows()
    without = judge.take((judge.labels != 3).nonzero().flatten())
    with pytest.raises(AtomError, match="no rows of three are left for the judge; give more evaluation rows"):
        evaluate_manipulator(digits_manipulator(), test, without)
    check_judge_rows(judge, NAMES)
    vectors = LabelledRows(torch.zeros(3, 4), torch.tensor([0, 1, 2]))
    with pytest.raises(AtomError, match=r"rows: they are vector\(4\), and the manipulator edits pixels\(1, 8, 8\)"):
        evaluate_manipulator(digits_manipulator(), vectors, judge)
