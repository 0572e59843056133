"""The energy distance, against loops over pairs, and against what it should be of rows of one law."""

import math

import pytest
import torch

from atom_hf import AtomError
from atom_hf.tasks.laws import WIDE, energy_distance
from atom_hf.tasks.wires import Simplex


def naive(x, y, first, second):
    """2 E|X - Y| - E|X - X'| - E|Y - Y'| over pairs of rows of one class and of different numbers, by class."""
    total = weight = 0.0
    for c in sorted({*first}):
        own, other = ([i for i, k in enumerate(ids) if k == c] for ids in (first, second))
        if min(len(own), len(other)) < 2:
            continue
        means = []
        for a, ia, b, ib in ((x, own, y, other), (x, own, x, own), (y, other, y, other)):
            distances = [math.dist(a[i], b[j]) for i in ia for j in ib if i != j]
            means.append(sum(distances) / len(distances))
        total += len(other) * (2 * means[0] - means[1] - means[2])
        weight += len(other)
    return total / weight


@pytest.fixture
def rows():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(12, 3, generator=generator), 0.5 + torch.randn(12, 3, generator=generator), generator


def test_without_classes(rows):
    x, y, _ = rows
    expected = naive(x.tolist(), y.tolist(), [0] * 12, [0] * 12)
    assert energy_distance([x], [y], "law").item() == pytest.approx(expected, rel=1e-4)


def test_within_classes(rows):
    x, y, _ = rows
    first, second = torch.tensor([0] * 5 + [1] * 6 + [2]), torch.tensor([1] * 4 + [0] * 6 + [2, 2])
    wires = [
        [x.view(12, 1, 3, 1), Simplex(ids=first, classes=3)],
        [y.view(12, 1, 3, 1), Simplex(ids=second, classes=3)],
    ]
    expected = naive(x.tolist(), y.tolist(), first.tolist(), second.tolist())
    assert energy_distance(*wires, "law").item() == pytest.approx(expected, rel=1e-4)


def test_wide_rows_far_from_zero(rows):
    """These are compared by matrix products: the value and its gradient are those of the pairs, where rows coincide too."""
    _, _, generator = rows
    x, y = (20 + torch.randn(12, WIDE + 8, generator=generator) for _ in range(2))
    x[3], y[5] = y[5], x[3].clone()
    x[7] = x[8]
    x.requires_grad_(True)
    found = energy_distance([x], [y], "law")
    assert found.item() == pytest.approx(naive(x.tolist(), y.tolist(), [0] * 12, [0] * 12), abs=1e-4)
    (gradient,) = torch.autograd.grad(found, x)

    exact, other = x.detach().double().requires_grad_(True), y.double()
    apart = [(i, j) for i in range(12) for j in range(12) if i != j]
    across = sum((exact[i] - other[j]).norm() for i, j in apart)
    within = sum((exact[i] - exact[j]).norm() for i, j in apart)
    (expected,) = torch.autograd.grad((2 * across - within) / len(apart), exact)
    assert torch.allclose(gradient.double(), expected, atol=1e-5)


def test_a_predicted_class_is_a_point_that_takes_a_gradient(rows):
    x, y, generator = rows
    logits = torch.randn(12, 3, generator=generator, requires_grad=True)
    ids = torch.tensor([0, 1, 2] * 4)
    found = energy_distance([x, Simplex(logits=logits)], [y, Simplex(ids=ids, classes=3)], "law")
    points = [
        torch.cat([side, hot], 1)
        for side, hot in ((x, logits.softmax(-1)), (y, torch.nn.functional.one_hot(ids).float()))
    ]
    expected = naive(*(side.tolist() for side in points), [0] * 12, [0] * 12)
    assert found.item() == pytest.approx(expected, rel=1e-4)
    found.backward()
    assert logits.grad.abs().sum() > 0
    alone = energy_distance([Simplex(ids=ids, classes=3)], [Simplex(ids=ids.roll(1), classes=3)], "law")
    assert abs(alone.item()) < 0.3  # classes against classes, of one law


def test_rows_of_one_law_have_distance_zero_even_if_one_is_made_from_the_other():
    generator, found = torch.Generator().manual_seed(1), []
    for _ in range(400):
        x = torch.randn(8, 5, generator=generator)
        found.append(energy_distance([x], [-x], "law").item())
    mean, error = sum(found) / 400, torch.tensor(found).std().item() / 20
    # With the pairs of a row and itself it would be far off.
    assert abs(mean) < 4 * error < 0.2


def test_too_few_rows_are_refused():
    x = torch.randn(3, 2)
    with pytest.raises(AtomError, match="law: ~ needs a class with two rows on either side, and this batch has 3 rows"):
        energy_distance([x, Simplex(ids=torch.arange(3))], [x, Simplex(ids=torch.arange(3))], "law")
    with pytest.raises(AtomError, match="law: ~ needs two rows on either side, and this batch has 1 rows"):
        energy_distance([x[:1]], [x[:1]], "law")
