"""What the built-in functions compute."""

import math

import pytest
import torch

from atom_hf.tasks.function_modules import function_of
from atom_hf.tasks.functions import BUILT_IN, Maker
from atom_hf.tasks.wires import Gaussian, Simplex


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def made(name, *plain):
    return function_of(Maker(name, plain))


def test_every_function_of_the_language_is_computed():
    assert all(callable(function_of(Maker(name))) for name in BUILT_IN)


def test_draws_are_of_their_distribution():
    stats = Gaussian(torch.full((4000, 2), 3.0), torch.full((4000, 2), math.log(0.25)))
    drawn = made("draw")(stats)
    assert drawn.mean().item() == pytest.approx(3, abs=0.05) and drawn.std().item() == pytest.approx(0.5, abs=0.02)
    values = torch.ones(200, 1, 8, 8)
    assert made("mask", 0.3)(values).mean().item() == pytest.approx(0.7, abs=0.02)
    assert set(made("mask", 0.3)(values).unique().tolist()) == {0.0, 1.0}
    assert made("jitter", 0.2)(values).std().item() == pytest.approx(0.2, abs=0.01)
    flipped = made("flip")(torch.arange(8.0).expand(100, 1, 8, 8))
    assert 30 < (flipped[:, 0, 0, 0] == 7).sum() < 70


def test_shifts_move_each_image_by_itself():
    images = torch.zeros(300, 2, 7, 9)
    images[:, :, 3, 4] = 1
    moved = made("shift", 2)(images)
    places = [(int(i) // 9 - 3, int(i) % 9 - 4) for i in moved[:, 0].flatten(1).argmax(1)]
    assert set(places) == {(a, b) for a in range(-2, 3) for b in range(-2, 3)}
    assert torch.equal(moved[:, 0], moved[:, 1]) and torch.equal(moved.flatten(2).sum(2), torch.ones(300, 2))
    edge = torch.ones(50, 1, 3, 3)
    assert set(made("shift")(edge).sum((1, 2, 3)).tolist()) == {4.0, 6.0, 9.0}


def test_sums_errors_and_entropies():
    a, b = torch.rand(5, 1, 2, 2), torch.rand(5, 1, 2, 2)
    assert torch.equal(made("add")(a, b), a + b)
    pairs = zip(a.flatten(1).tolist(), b.flatten(1).tolist(), strict=True)
    naive = [sum((x - y) ** 2 for x, y in zip(p, q, strict=True)) for p, q in pairs]
    assert made("error")(a, b).tolist() == pytest.approx(naive)
    logits = torch.randn(5, 3)
    naive = [-sum(p * math.log(p) for p in row) for row in logits.softmax(-1).tolist()]
    assert made("entropy")(Simplex(logits=logits)).tolist() == pytest.approx(naive)
    assert made("entropy")(Simplex(ids=torch.tensor([0, 2]), classes=3)).tolist() == [0, 0]


def test_a_hard_class_passes_its_gradient_straight_through():
    logits = torch.randn(4, 3, requires_grad=True)
    hard = made("hard")(Simplex(logits=logits))
    assert torch.equal(hard.point.detach().round(), torch.nn.functional.one_hot(logits.argmax(1), 3).float())
    (hard.point * torch.arange(3.0)).sum().backward()
    expected = logits.detach().clone().requires_grad_()
    (expected.softmax(-1) * torch.arange(3.0)).sum().backward()
    assert torch.allclose(logits.grad, expected.grad) and hard.logits is logits


def test_against_compares_each_row_with_all():
    a, b = torch.randn(4, 3), torch.randn(4, 3)
    found = made("against", 0.5)(a, b).logits
    for i in range(4):
        for j in range(4):
            cosine = torch.dot(a[i], b[j]) / a[i].norm() / b[j].norm()
            assert found[i, j].item() == pytest.approx(cosine.item() / 0.5, rel=1e-5)
