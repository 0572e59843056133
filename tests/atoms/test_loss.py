"""The loss of atoms: their energy and the constraints of their charges."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import atom_hf.atoms.closed_form
from atom_hf import Atoms
from atom_hf.atoms.energy import pair_means
from atom_hf.atoms.loss import atom_loss
from helpers.naive import naive_constraint
from helpers.placed_atoms import CONSTRAINTS, batches, random_atoms, random_batch


@settings(max_examples=100, deadline=None, derandomize=True)
@given(batches(), st.floats(0, 3), st.floats(0, 1), st.floats(0, 20))
def test_the_loss_is_the_energy_and_the_constraints(batch, neutrality, charge_floor, charge_floor_weight):
    q, p, mask, softening, token_reduction = batch
    mask = torch.ones_like(q, dtype=torch.bool) if mask is None else mask
    constraints = {
        "neutrality": neutrality,
        "charge_floor": charge_floor,
        "charge_floor_weight": charge_floor_weight,
    }
    atoms = Atoms.from_tokens(q, p, mask, token_reduction=token_reduction)
    parts = atom_loss(atoms, softening=softening, **constraints)
    assert torch.equal(parts.loss, parts.energy + parts.constraint)
    expected = naive_constraint(q.tolist(), mask.tolist(), token_reduction=token_reduction, **constraints)
    assert parts.constraint.item() == pytest.approx(expected, rel=1e-9, abs=1e-13)
    means = pair_means(atoms, softening)
    assert torch.equal(parts.energy, means.energy) and torch.equal(parts.distance, means.distance)


@pytest.mark.parametrize("energy_weight", [0.0, 0.5, 3.0])
def test_the_energy_has_a_weight_of_its_own(energy_weight):
    q, p, mask = random_batch(0, (4, 3, 2), mask=True)
    atoms = Atoms.from_tokens(q.requires_grad_(), p.requires_grad_(), mask, token_reduction="mean")
    parts = atom_loss(atoms, softening=0.1, energy_weight=energy_weight, **CONSTRAINTS)
    whole = atom_loss(atoms, softening=0.1, **CONSTRAINTS)
    assert torch.equal(parts.energy, whole.energy) and torch.equal(parts.constraint, whole.constraint)
    torch.testing.assert_close(parts.loss, energy_weight * whole.energy + whole.constraint)
    # At 0 the constraints alone act on the importance, and nothing on the positions.
    (gradient,) = torch.autograd.grad(parts.loss, p)
    assert (gradient.abs().max() > 0) == (energy_weight > 0)


@pytest.mark.parametrize("blocks", [2**24, 4], ids=["at once", "in blocks"])
def test_gradcheck_of_the_whole_loss(blocks, monkeypatch):
    monkeypatch.setattr(atom_hf.atoms.closed_form, "BLOCK_ENTRIES", blocks)
    packed = random_atoms(3, 5, 3).pack()
    packed[1] = torch.tensor([0.0, 0.0, -1.0] + [0.0] * 3)  # a sample without tokens
    packed.requires_grad_()
    options = {**CONSTRAINTS, "charge_floor": 0.9, "neutrality": 2.0, "energy_weight": 0.7}
    loss = lambda packed: atom_loss(Atoms.unpack(packed), softening=0.2, **options).loss  # noqa: E731
    assert torch.autograd.gradcheck(loss, (packed,))


def test_the_constraints_wake_dead_charges_and_balance_them():
    dead = torch.tensor([[0.1, -0.1], [0.05, -0.05]], dtype=torch.float64, requires_grad=True)
    one_sided = torch.tensor([[0.9, 0.8], [0.7, 0.9]], dtype=torch.float64, requires_grad=True)
    _, p, _ = random_batch(0, (2, 2, 3))
    for q in (dead, one_sided):
        atoms = Atoms.from_tokens(q, p, token_reduction="mean")
        atom_loss(atoms, softening=0.1, **CONSTRAINTS, energy_weight=0.0).loss.backward()
    assert (dead.grad * dead.detach() < 0).all(), "below the floor a step down the gradient grows every charge"
    assert (one_sided.grad > 0).all(), "a net charge shrinks"
