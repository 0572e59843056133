"""Distances relative to their own scale, against the definition in loops, with their gradient."""

import pytest
import torch

import atom_hf.atoms.closed_form
from atom_hf import Atoms
from atom_hf.atoms.energy import pair_means
from atom_hf.atoms.loss import atom_loss
from helpers.naive import naive_energy
from helpers.placed_atoms import CONSTRAINTS, random_atoms, random_batch

FREE = {"neutrality": 0.0, "charge_floor": 0.0, "charge_floor_weight": 0.0, "constrained": False, "relative": True}


def naive_scale(centers):
    """sqrt of the mean over ordered pairs of distinct atoms of the squared distance of their centres, pair by pair."""
    pairs = [(a, b) for a in range(len(centers)) for b in range(len(centers)) if a != b]
    return (sum(float((centers[a] - centers[b]).square().sum()) for a, b in pairs) / len(pairs)) ** 0.5


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("softening", [0.0, 0.1, 1.0])
def test_the_energy_is_that_of_positions_divided_by_the_scale(seed, softening):
    q, p, mask = random_batch(seed, (5, 4, 3), mask=True)
    mask[2] = False  # a sample without a token has no part in the scale
    atoms = Atoms.from_tokens(q, p, mask, token_reduction="mean")
    scale = naive_scale(atoms.center[atoms.exists])
    expected, _ = naive_energy(
        q.tolist(), (p / scale).tolist(), mask.tolist(), softening=softening, token_reduction="mean"
    )
    parts = atom_loss(atoms, softening=softening, **FREE)
    assert parts.energy.item() == pytest.approx(expected, rel=1e-9)
    # The same as the energy of distances softened in units of the scale, times the scale.
    assert parts.energy.item() == pytest.approx(scale * pair_means(atoms, softening * scale).energy.item(), rel=1e-9)
    assert parts.loss is not None and parts.constraint.item() == 0


@pytest.mark.parametrize("factor", [1e-3, 7.0, 1e4])
def test_a_common_factor_of_the_positions_changes_nothing(factor):
    q, p, _ = random_batch(1, (6, 3, 4))
    whole = atom_loss(Atoms.from_tokens(q, p, token_reduction="mean"), softening=0.1, **FREE)
    larger = atom_loss(Atoms.from_tokens(q, factor * p, token_reduction="mean"), softening=0.1, **FREE)
    torch.testing.assert_close(larger.energy, whole.energy, rtol=1e-9, atol=0)
    torch.testing.assert_close(larger.distance, factor * whole.distance, rtol=1e-9, atol=0)  # the log's stays absolute


@pytest.mark.parametrize("blocks", [2**24, 4], ids=["at once", "in blocks"])
@pytest.mark.parametrize("constrained", [False, True])
def test_gradcheck(blocks, constrained, monkeypatch):
    monkeypatch.setattr(atom_hf.atoms.closed_form, "BLOCK_ENTRIES", blocks)
    packed = random_atoms(3, 5, 3).pack()
    packed[1] = torch.tensor([0.0, 0.0, -1.0] + [0.0] * 3)  # a sample without tokens
    packed.requires_grad_()
    options = {**CONSTRAINTS, "charge_floor": 0.9, "net_charge": 0.5, "relative": True, "constrained": constrained}
    loss = lambda packed: atom_loss(Atoms.unpack(packed), softening=0.2, **options).loss  # noqa: E731
    assert torch.autograd.gradcheck(loss, (packed,))


def fixed(center):
    """Atoms of one token each, of charge 1."""
    ones = torch.ones(len(center), 1, dtype=center.dtype)
    return Atoms.from_tokens(ones, center.unsqueeze(1), token_reduction="mean")


def test_centres_that_coincide_stay_finite_and_in_their_place():
    center = torch.ones(4, 3, requires_grad=True)
    parts = atom_loss(fixed(center), softening=0.1, **FREE)
    parts.loss.backward()
    assert parts.energy.item() == pytest.approx(10)  # 1 / softening
    assert torch.equal(center.grad, torch.zeros(4, 3))


def test_two_atoms_have_no_scale_but_their_own_distance():
    center = torch.tensor([[0.0, 0.0], [3.0, 4.0]], dtype=torch.float64, requires_grad=True)
    parts = atom_loss(fixed(center), softening=0.1, **FREE)
    parts.loss.backward()
    assert parts.energy.item() == pytest.approx(1.01**-0.5) and parts.distance.item() == pytest.approx((1.01**0.5) * 5)
    torch.testing.assert_close(center.grad, torch.zeros_like(center), rtol=0, atol=1e-12)


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_atoms_have_no_energy(count):
    center = torch.ones(3, 2, requires_grad=True)
    mask = torch.arange(3)[:, None] < count
    atoms = Atoms.from_tokens(torch.ones(3, 1), center.unsqueeze(1), mask, token_reduction="mean")
    parts = atom_loss(atoms, softening=0.1, **FREE)
    parts.loss.backward()
    assert parts.loss.item() == 0 and torch.equal(center.grad, torch.zeros(3, 2))


@pytest.mark.parametrize("net_charge", [-0.3, 0.0, 0.5])
def test_the_net_charge_that_the_neutrality_keeps(net_charge):
    q, p, _ = random_batch(2, (4, 3, 2))
    atoms = Atoms.from_tokens(q, p, token_reduction="mean")
    options = {"neutrality": 3.0, "charge_floor": 0.0, "charge_floor_weight": 0.0, "net_charge": net_charge}
    expected = sum(3.0 * (sum(row) / 3 - net_charge) ** 2 for row in q.tolist()) / 4
    assert atom_loss(atoms, softening=0.1, **options).constraint.item() == pytest.approx(expected)
