"""The rest distance of pairs against the least of their energy, found by search over the double sum over tokens."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from atom_hf import Atoms
from atom_hf.atoms.energy import rest_distance


def pair_energy(one, other, distance, softening=0.0):
    """Eq. 5 for two atoms whose centres are this far apart, straight from Eqs. 5 and 8; each a (charges, radius)."""
    distance = np.sqrt(distance**2 + softening**2)
    reach = (one[1] + other[1]) / 2
    return sum(q * p / (distance + (reach if q * p < 0 else 0)) for q in one[0] for p in other[0])


def atoms_of(parts):
    charges = [np.asarray(charges) for charges, _ in parts]
    positive, negative = ([float((sign * q).clip(min=0).sum()) for q in charges] for sign in (1, -1))
    scalars = (torch.tensor(part, dtype=torch.float64) for part in (positive, negative, [r for _, r in parts]))
    positive, negative, radius = scalars
    return Atoms(positive, negative, torch.zeros(len(parts), 3).double(), radius)


def random_parts(seed, count=6):
    rng = np.random.default_rng(seed)
    return [(rng.uniform(-1, 1, 5) + rng.choice([-0.3, 0.3]), rng.uniform(0.2, 3)) for _ in range(count)]


@pytest.mark.parametrize("softening", [0.0, 0.5])
def test_the_energy_is_least_at_the_rest_distance(softening):
    parts = random_parts(0)
    rest = rest_distance(atoms_of(parts), softening)
    resting = 0
    for i, one in enumerate(parts):
        for j, other in enumerate(parts):
            if i == j:
                assert torch.isnan(rest[i, j])
                continue
            found = minimize_scalar(
                lambda log, one=one, other=other: pair_energy(one, other, np.exp(log), softening),
                bounds=(-7, 12),
                method="bounded",
                options={"xatol": 1e-9},
            )
            if sum(one[0]) * sum(other[0]) >= 0:
                # It falls all the way: nowhere is better than farther away.
                assert torch.isposinf(rest[i, j]) and found.x > 11.9
            elif rest[i, j] == 0:
                assert found.x < -6.9
            else:
                resting += 1
                assert float(rest[i, j]) == pytest.approx(np.exp(found.x), rel=1e-3)
    assert resting >= 6


def test_opposite_net_charges_are_what_gives_a_rest_distance():
    atoms = atoms_of([([0.5, -0.2], 1.0), ([-0.5, 0.1], 2.0), ([0.4], 1.0), ([-0.4], 1.0)])
    rest = rest_distance(atoms)
    net = atoms.positive - atoms.negative
    finite = torch.isfinite(rest)
    assert torch.equal(finite, torch.outer(net, net) < 0)
    assert torch.equal(finite, finite.T)
    # Without like charges nothing keeps two atoms apart.
    assert rest[2, 3] == 0


def test_nearly_neutral_atoms_keep_their_digits():
    # The ratio is 1 + 2e-12: the root less 1, taken plainly in float64, has three or four digits of it.
    rest = rest_distance(atoms_of([([0.5 + 5e-7, -0.5 + 5e-7], 1.0), ([-0.5 - 5e-7, 0.5 - 5e-7], 1.0)]))
    like = 2 * (0.5 + 5e-7) * (0.5 - 5e-7)
    assert float(rest[0, 1]) == pytest.approx(2 * like / 1e-6**2, rel=1e-6)


def test_what_is_no_pair_has_none():
    atoms = atoms_of([([0.5, -0.1], 1.0), ([-0.5], 1.0), ([0.0], 1.0), ([0.0], 1.0)])
    atoms = atoms._replace(radius=torch.tensor([1.0, -1.0, 1.0, 1.0]).double())
    rest = rest_distance(atoms)
    assert torch.isnan(rest[0, 1]) and torch.isnan(rest[1]).all()  # a sample without a token
    assert torch.isnan(rest[2, 3])  # no charge, no force
    assert (
        rest.dtype == torch.float64 and rest_distance(Atoms(*(part.float() for part in atoms))).dtype == torch.float32
    )


def test_the_scale_of_the_charges_does_not_matter():
    parts = random_parts(3)
    other = [(charges / (i + 2), radius) for i, (charges, radius) in enumerate(parts)]
    torch.testing.assert_close(rest_distance(atoms_of(other)), rest_distance(atoms_of(parts)), equal_nan=True)
