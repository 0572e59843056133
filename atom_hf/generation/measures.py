"""How good samples are: distances and shares between features of real and of generated samples, and what latents use.

Features are arrays [N, d], one row a sample: pixels, or the pooled hidden states of a classifier. The effective rank of latents
is in `utils/statistics.py`.
"""

from typing import NamedTuple

import numpy as np
from scipy.linalg import eigh
from scipy.spatial.distance import pdist
from sklearn.neighbors import NearestNeighbors

from ..errors import AtomError


def frechet_distance(real: np.ndarray, generated: np.ndarray) -> float:
    """Squared Fréchet distance between Gaussians fitted to features [N, d] and [M, d]; 0 is best.

        ||m - m'||^2 + tr(C + C' - 2 (C C')^(1/2))

    Source: Dowson and Landau (1982); of images' features Heusel et al. (2017) ("FID"). It falls with the number of
    samples: compare only figures of equal N and M.
    """
    real, generated = _features(real, "real"), _features(generated, "generated", like=real)
    means = real.mean(0) - generated.mean(0)
    first, second = (np.cov(values, rowvar=False).reshape(values.shape[1], -1) for values in (real, generated))
    root = _square_root(first)
    # The trace of (C C')^(1/2) by the eigenvalues of a symmetric matrix, which has the same ones.
    middle = np.clip(eigh(root @ second @ root, eigvals_only=True), 0, None)
    return float(means @ means + np.trace(first) + np.trace(second) - 2 * np.sqrt(middle).sum())


def _square_root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = eigh(matrix)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T


class Fidelity(NamedTuple):
    """What shares of the samples are where they should be: 1 is best (density may exceed it)."""

    precision: float
    """Generated samples within the neighbourhood of a real one."""
    recall: float
    """Real samples within the neighbourhood of a generated one."""
    density: float
    """Neighbourhoods of real samples that a generated one lies in, divided by k."""
    coverage: float
    """Real samples with a generated one in their own neighbourhood."""


def fidelity(real: np.ndarray, generated: np.ndarray, k: int = 5) -> Fidelity:
    """Precision, recall, density and coverage of features [N, d] and [M, d]. A neighbourhood reaches to the k-th neighbour.

    Source: precision and recall, Kynkäänniemi et al. (2019); density and coverage, Naeem et al. (2020).

    Raises:
        AtomError: no more than k samples of either.
    """
    real, generated = _features(real, "real"), _features(generated, "generated", like=real)
    if min(len(real), len(generated)) <= k:
        raise AtomError(f"k is {k}: it must be less than the numbers of samples, {len(real)} and {len(generated)}")
    distances = _distances(real, generated)
    of_real, of_generated = (_radii(values, k) for values in (real, generated))
    in_real = distances < of_real[:, None]
    return Fidelity(
        precision=float(in_real.any(0).mean()),
        recall=float((distances < of_generated[None]).any(1).mean()),
        density=float(in_real.sum(0).mean() / k),
        coverage=float((distances.min(1) < of_real).mean()),
    )


def _radii(values: np.ndarray, k: int) -> np.ndarray:
    """The distance of each row [N] to its k-th neighbour among the others."""
    return NearestNeighbors(n_neighbors=k).fit(values).kneighbors()[0][:, -1]


def _distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    from scipy.spatial.distance import cdist

    return cdist(first, second)


class Nearest(NamedTuple):
    """The training sample that is nearest to each generated one."""

    index: np.ndarray
    """[M]."""
    distance: np.ndarray
    """[M]."""
    memorised: float
    """The share of generated samples that are much nearer to it than to the next one."""


def nearest_training(training: np.ndarray, generated: np.ndarray, ratio: float = 1 / 3) -> Nearest:
    """The nearest of the training samples [N, d] to each generated one [M, d], by the Euclidean distance.

    A sample counts as memorised if that distance is less than `ratio` of the distance to the second nearest. Source: Yoon et
    al. (2023), whose ratio of 1/3 is the default.
    """
    training, generated = _features(training, "training"), _features(generated, "generated", like=training)
    distances, indices = NearestNeighbors(n_neighbors=2).fit(training).kneighbors(generated)
    copied = distances[:, 0] < ratio * distances[:, 1]
    return Nearest(indices[:, 0], distances[:, 0], float(copied.mean()))


def class_diversity(
    real: np.ndarray, real_classes: np.ndarray, generated: np.ndarray, generated_classes: np.ndarray
) -> float:
    """How diverse generated samples of one class are, beside real ones: 1 for as diverse, 0 for copies of one sample.

    Of each class the mean distance between two of its samples [N, d], by that of real ones; the mean over the classes [N] of
    which there are two samples or more of either kind. NaN if there is none.
    """
    real, generated = _features(real, "real"), _features(generated, "generated", like=real)
    ratios = []
    for one in np.unique(real_classes):
        spreads = [
            pdist(values[classes == one]) for values, classes in ((real, real_classes), (generated, generated_classes))
        ]
        if all(map(len, spreads)):
            ratios.append(spreads[1].mean() / spreads[0].mean())
    return float(np.mean(ratios)) if ratios else float("nan")


def active_units(posterior_means: np.ndarray, threshold: float = 0.01) -> int:
    """How many latents of a VAE vary with the input: those whose posterior mean [N, d] has a variance above the threshold.

    Source: Burda et al. (2016), whose threshold of 0.01 is the default.
    """
    return int((_features(posterior_means, "posterior_means").var(0) > threshold).sum())


def _features(values: np.ndarray, name: str, like: np.ndarray | None = None) -> np.ndarray:
    """Features as float64. Raises `AtomError` unless they are [N, d] of finite numbers, two or more, as wide as `like`."""
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or len(values) < 2 or not values.shape[1]:
        raise AtomError(f"{name} must be features [N, d] of two samples or more, got {list(values.shape)}")
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values).all(1))[0])
        raise AtomError(f"{name}: row {row} holds numbers that are not finite (NaN or infinity)")
    if like is not None and values.shape[1] != like.shape[1]:
        raise AtomError(f"{name}: features are {values.shape[1]} wide, those they are compared with {like.shape[1]}")
    return values
