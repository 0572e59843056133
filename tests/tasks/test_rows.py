"""Rows of several sources, batches of texts, and attributes that depend on the label."""

import numpy as np
import pytest
import torch

from atom_hf import AtomError
from atom_hf.tasks import read_task
from atom_hf.tasks.rows import Column, TaskRows, check_attributes, chi_square, collate


def columns(many, start=0):
    return [Column(torch.arange(start, start + many).float().view(-1, 1)), Column(torch.arange(many) % 3)]


def test_rows_are_keyed_by_their_columns():
    rows = TaskRows({"D": columns(5)})
    assert (
        len(rows) == 5 and set(rows[2]) == {"D.1", "D.2"} and rows[2]["D.1"].item() == 2 and rows[2]["D.2"].item() == 2
    )
    pixels = TaskRows({"D": [Column(torch.tensor([[[[0, 255]]]], dtype=torch.uint8))]})
    assert torch.equal(pixels[0]["D.1"], torch.tensor([[[0.0, 1.0]]]))


def test_the_lengths_of_texts():
    texts = [np.array([1, 2, 3], dtype=np.int32), np.array([4], dtype=np.int32)]
    assert TaskRows({"D": [Column(texts), Column(torch.tensor([0, 1]))]}).lengths == [3, 1]
    assert TaskRows({"D": columns(5)}).lengths is None


def test_a_shorter_source_is_drawn_beside_the_longest_in_another_order_each_epoch():
    rows = TaskRows({"D": columns(7), "E": columns(3, 100)}, seed=1)
    orders = []
    for epoch in (0, 1, 0):
        rows.set_epoch(epoch)
        found = [rows[i] for i in range(7)]
        assert [row["D.1"].item() for row in found] == list(range(7))
        drawn = [int(row["E.1"].item()) - 100 for row in found]
        assert all((row["E.1"].item() - 100) % 3 == row["E.2"].item() for row in found)
        assert sorted(drawn[:3]) == sorted(drawn[3:6]) == [0, 1, 2]
        orders.append(drawn)
    assert orders[0] == orders[2] != orders[1]
    even = TaskRows({"D": columns(50), "E": columns(50)})
    assert [even[i]["E.1"].item() for i in range(50)] != list(range(50))


def test_texts_are_filled_up_and_masked():
    texts = Column([np.array([5, 6, 7], np.int32), np.array([8], np.int32)])
    rows = TaskRows({"T": [texts, Column(torch.tensor([1, 0]))]})
    batch = collate([rows[0], rows[1]])
    assert batch["T.1"].tolist() == [[5, 6, 7], [8, 0, 0]] and batch["T.1.mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["T.2"].tolist() == [1, 0]
    alike = collate([rows[0], rows[0]])
    assert alike["T.1.mask"].tolist() == [[1, 1, 1]] * 2


EDITOR = """\
type image = pixels(1, 8, 8), label = class(3), mood = class(2)
data D : image, label, mood
noise A : mood = marginal(D.3)
fixed get : image -> mood
learner put : image, mood -> image
for x, y, m in D; a in A:
    putget: get(put(x, {a})) == {a}
    getput: put(x, get(x)) == x
"""


def rows_of(labels, moods):
    images = Column(torch.zeros(len(labels), 1, 8, 8))
    return TaskRows({"D": [images, Column(torch.as_tensor(labels)), Column(torch.as_tensor(moods))]})


def test_an_attribute_that_depends_on_the_label_is_refused():
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=300)
    depends, free = (labels > 0).astype(int), rng.integers(2, size=300)
    task = read_task(EDITOR.format(a="m"))
    with pytest.raises(AtomError) as found:
        check_attributes(task, rows_of(labels, depends))
    assert str(found.value) == (
        "putget: in put(x, m) the attribute D.3 depends on the class D.2 of x (chi-square 300.0, p 7e-66); draw it "
        "independently, as in 'noise A : mood = marginal(D.3)', or balance the rows"
    )
    check_attributes(task, rows_of(labels, free))
    check_attributes(task, rows_of(labels, [1] * 300))
    check_attributes(read_task(EDITOR.format(a="a")), rows_of(labels, depends))
    classifier = EDITOR.format(a="a") + "    says: f(x, y) == m\n"
    task = read_task(classifier.replace("learner put", "learner f : image, label -> mood\nlearner put"))
    check_attributes(task, rows_of(labels, depends))


def test_chi_square_is_that_of_the_counts():
    first, second = np.repeat([0, 1], 50), np.r_[np.repeat([0, 1], [40, 10]), np.repeat([0, 1], [20, 30])]
    expected = sum((o - e) ** 2 / e for o, e in ((40, 30), (10, 20), (20, 30), (30, 20)))
    corrected = sum((abs(o - e) - 0.5) ** 2 / e for o, e in ((40, 30), (10, 20), (20, 30), (30, 20)))
    statistic, p = chi_square(first, second)
    assert corrected == pytest.approx(statistic) and statistic < expected and 1e-5 < p < 1e-3
