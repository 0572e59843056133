"""The map of atoms against plain loops over their pairs."""

import math
from dataclasses import replace

import numpy as np
import pytest
from sklearn.decomposition import PCA

from atom_hf.errors import AtomError
from atom_hf.visualization.atoms_map import MOST_ATOMS, map_atoms, tell
from helpers.importances import atom, random_atoms


def rest_by_hand(one, other):
    like = one.positive * other.positive + one.negative * other.negative
    opposite = one.positive * other.negative + one.negative * other.positive
    return (one.radius + other.radius) / 2 / (math.sqrt(opposite / like) - 1) if opposite > like else math.inf


def test_pairs_and_neighbours():
    atoms = random_atoms(14)
    found = map_atoms(atoms)
    at = 0
    for i, one in enumerate(atoms):
        for other in atoms[i + 1 :]:
            distance = np.linalg.norm(one.center.astype(float) - other.center)
            assert found.distance[at] == pytest.approx(distance) and found.rest[at] == pytest.approx(
                rest_by_hand(one, other), rel=1e-6
            )
            at += 1
    assert at == len(found.distance) == len(found.rest)
    nearest = set()
    for i, one in enumerate(atoms):
        j = min((j for j in range(14) if j != i), key=lambda j: np.linalg.norm(one.center - atoms[j].center))
        nearest.add((min(i, j), max(i, j)))
    assert {pair[:2] for pair in found.nearest} == nearest and len(found.nearest) == len(nearest)
    for i, near in enumerate(found.neighbours):
        others = sorted(
            (j for j in range(14) if j != i), key=lambda j: np.linalg.norm(atoms[i].center - atoms[j].center)
        )
        assert [j for j, _, _ in near] == others[:3]
        assert [distance for _, distance, _ in near] == pytest.approx(
            [np.linalg.norm(atoms[i].center.astype(float) - atoms[j].center) for j in others[:3]]
        )
    for i, j, kind in found.nearest:
        rest, distance = rest_by_hand(atoms[i], atoms[j]), np.linalg.norm(atoms[i].center - atoms[j].center)
        assert kind == ("repels" if math.isinf(rest) else "closer" if distance < rest else "further")


def test_the_projection_says_how_much_it_keeps():
    atoms = random_atoms(30, width=5)
    found = map_atoms(atoms)
    axes = PCA(2).fit(np.array([one.center for one in atoms], float))
    assert found.kept == pytest.approx(axes.explained_variance_ratio_.sum())
    # The spots are a shadow: no pair is further apart than in all dimensions.
    flat = np.linalg.norm(found.spots[:, None] - found.spots, axis=-1)[np.triu_indices(30, 1)]
    assert (flat <= found.distance + 1e-9).all() and found.kept < 1
    flat_atoms = [atom(1, 0, [x, x + 1, 0], 1) for x in (0.0, 1.0, 5.0)]
    assert map_atoms(flat_atoms).kept == pytest.approx(1)


@pytest.mark.parametrize("width", [1, 2, 900])
def test_any_width(width):
    found = map_atoms(random_atoms(5, width=width))
    assert found.spots.shape == (5, 2) and np.isfinite(found.spots).all()


def test_a_common_offset_costs_no_digit():
    atoms = random_atoms(6, width=4)
    moved = [replace(one, center=one.center.astype(float) + 1e7) for one in atoms]
    assert map_atoms(moved).distance == pytest.approx(map_atoms(atoms).distance, rel=1e-6)


def test_coincident_atoms_and_such_without_tokens():
    found = map_atoms([atom(0.5, 0.1, [1, 1], 1), atom(0.1, 0.5, [1, 1], 1), atom(0, 0, [math.nan, 0], -1)])
    assert found.index.tolist() == [0, 1] and math.isnan(found.kept) and not found.spots.any()
    assert found.distance.tolist() == [0] and found.nearest == [(0, 1, "closer")]


def test_many_atoms_are_thinned_evenly():
    few = random_atoms(3, width=2)
    found = map_atoms([few[i % 3] for i in range(MOST_ATOMS + 500)])
    assert len(found.index) == MOST_ATOMS == len(set(found.index.tolist()))
    assert found.index[0] == 0 and found.index[-1] == MOST_ATOMS + 499


def test_error_messages():
    with pytest.raises(AtomError, match=r"\[2, 3\] wide"):
        map_atoms([atom(1, 0, [0, 0], 1), atom(1, 0, [0, 0, 0], 1)])
    with pytest.raises(AtomError, match="two atoms"):
        map_atoms([atom(1, 0, [0, 0], 1), atom(0, 0, [0, 0], -1)])


def test_tell():
    assert [tell(1, rest) for rest in (2, 0.5, math.inf, math.nan)] == ["closer", "further", "repels", "repels"]
