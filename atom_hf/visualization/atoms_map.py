"""The atoms of a set: their centres in two dimensions, and how far each pair is from its rest distance."""

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.decomposition import PCA

from ..atoms.energy import Atoms, rest_distance
from ..errors import AtomError
from ..importance.results import SampleAtom

MOST_ATOMS = 2000  # all pairs of so many, 768 wide, take some five seconds of one core

NEIGHBOURS = 3

CLOSER, FURTHER, REPELS = "closer", "further", "repels"


@dataclass(frozen=True)
class AtomsMap:
    """n atoms, numbered as they came; pairs are those of i < j."""

    index: np.ndarray
    """[n]: which of the given atoms these are."""
    spots: np.ndarray
    """[n, 2]: centres on their first two principal axes, in the units of the positions."""
    kept: float
    """The share of the centres' variance that these axes keep; nan where all centres coincide."""
    radius: np.ndarray
    """[n], in the same units."""
    distance: np.ndarray
    """[n (n - 1) / 2]: Eq. 7 of each pair, in all dimensions."""
    rest: np.ndarray
    """[n (n - 1) / 2]: inf for a pair that repels at every distance, nan for one without charge."""
    nearest: list[tuple[int, int, str]]
    """Each atom's nearest other in all dimensions, each pair once: (i, j, "closer", "further" or "repels")."""
    neighbours: list[list[tuple[int, float, str]]]
    """[n]: the nearest `NEIGHBOURS` others of each, nearest first: (which, distance, "closer", "further" or "repels")."""


def map_atoms(atoms: list[SampleAtom], softening: float = 0.0) -> AtomsMap:
    """Project the centres (PCA), and find the pairs' distances and rest distances (`atoms.energy.rest_distance`).

    Atoms without a token are left out. Of more than 2,000, every k-th is taken. AtomError: centres of different widths.
    """
    index = np.array([i for i, atom in enumerate(atoms) if atom.radius >= 0 and np.isfinite(atom.center).all()], int)
    index = index[np.linspace(0, len(index) - 1, min(len(index), MOST_ATOMS)).astype(int)]
    chosen = [atoms[i] for i in index]
    if len(widths := {len(atom.center) for atom in chosen}) > 1:
        raise AtomError(f"the atoms' centres are {sorted(widths)} wide; give results of one model")
    if len(chosen) < 2:
        raise AtomError(f"a map needs two atoms with tokens, got {len(chosen)}")
    # In float64, and without what all share: so that close centres keep their distance.
    centers = np.array([atom.center for atom in chosen], float)
    centers -= centers.mean(axis=0)
    spots, kept = _project(centers)
    positive, negative, radius = (
        torch.tensor([getattr(atom, name) for atom in chosen], dtype=torch.float64)
        for name in ("positive", "negative", "radius")
    )
    batch = Atoms(positive, negative, torch.from_numpy(centers), radius)
    distance = torch.cdist(batch.center, batch.center, compute_mode="donot_use_mm_for_euclid_dist").numpy()
    rest = rest_distance(batch, softening).numpy()
    i, j = np.triu_indices(len(chosen), 1)
    return AtomsMap(index, spots, kept, radius.numpy(), distance[i, j], rest[i, j], *_nearest(distance, rest))


def tell(distance: float, rest: float) -> str:
    """The side of its rest distance that a pair is on; a pair without charge counts as one that does not attract."""
    return REPELS if not np.isfinite(rest) else CLOSER if distance < rest else FURTHER


def _project(centers: np.ndarray) -> tuple[np.ndarray, float]:
    if not centers.any():
        return np.zeros((len(centers), 2)), float("nan")
    axes = PCA(
        n_components=min(2, *centers.shape), svd_solver="full" if min(centers.shape) < 400 else "covariance_eigh"
    )
    spots = axes.fit_transform(centers)
    return np.pad(spots, ((0, 0), (0, 2 - spots.shape[1]))), float(axes.explained_variance_ratio_.sum())


def _nearest(
    distance: np.ndarray, rest: np.ndarray
) -> tuple[list[tuple[int, int, str]], list[list[tuple[int, float, str]]]]:
    others = distance.copy()
    np.fill_diagonal(others, np.inf)
    order = others.argsort(axis=1, kind="stable")[:, : min(NEIGHBOURS, len(others) - 1)].tolist()
    pairs = sorted({(min(i, near[0]), max(i, near[0])) for i, near in enumerate(order)})
    nearest = [(i, j, tell(distance[i, j], rest[i, j])) for i, j in pairs]
    return nearest, [
        [(j, float(distance[i, j]), tell(distance[i, j], rest[i, j])) for j in near] for i, near in enumerate(order)
    ]
