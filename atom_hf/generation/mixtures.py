"""Mixtures of Gaussians in the plane, on which a generator shows which modes it has lost."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..errors import AtomError


@dataclass(frozen=True)
class Mixture:
    """Gaussians of one standard deviation, in all directions.

    Args:
        centres: [K, d].
        std: the standard deviation.
        weights: [K], which sum to 1.
    """

    centres: np.ndarray
    std: float
    weights: np.ndarray

    def draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Samples [count, d]."""
        which = rng.choice(len(self.centres), size=count, p=self.weights)
        return self.centres[which] + self.std * rng.standard_normal((count, self.centres.shape[1]))


def ring(modes: int = 8, radius: float = 2.0, std: float = 0.02) -> Mixture:
    """Equal modes evenly spaced on a circle. Source: Metz et al. (2017)."""
    angles = 2 * np.pi * np.arange(modes) / modes
    centres = radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return Mixture(centres, std, np.full(modes, 1 / modes))


def grid(side: int = 5, spacing: float = 2.0, std: float = 0.05) -> Mixture:
    """Equal modes on a square grid. Source: Srivastava et al. (2017)."""
    line = spacing * (np.arange(side) - (side - 1) / 2)
    centres = np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2)
    return Mixture(centres, std, np.full(side**2, 1 / side**2))


class ModeCounts(NamedTuple):
    """Where samples of a generator lie in a mixture."""

    covered: int
    """Modes with at least one sample of high quality."""
    high_quality: float
    """The share of samples within `within` standard deviations of the nearest centre."""
    divergence: float
    """KL(modes of the samples of high quality || weights of the mixture) in nats; infinite where there are none."""
    counts: np.ndarray
    """Samples of high quality of each mode [K]."""


def count_modes(samples: np.ndarray, mixture: Mixture, within: float = 3.0) -> ModeCounts:
    """Modes covered, share of high quality, and the divergence from the mixture's weights, of samples [N, d].

    Source: Srivastava et al. (2017): a sample is of high quality within 3 standard deviations of the nearest mode,
    and a mode counts from its first such sample on.

    Raises:
        AtomError: samples that are not [N, d] of finite numbers.
    """
    samples = np.asarray(samples, dtype=np.float64)
    if samples.ndim != 2 or not len(samples) or samples.shape[1] != mixture.centres.shape[1]:
        raise AtomError(f"samples must be [N, {mixture.centres.shape[1]}], got {list(samples.shape)}")
    if not np.isfinite(samples).all():
        raise AtomError("samples hold numbers that are not finite (NaN or infinity): the generator has diverged")
    distances = np.linalg.norm(samples[:, None] - mixture.centres[None], axis=-1)
    nearest = distances.argmin(1)
    good = distances.min(1) <= within * mixture.std
    counts = np.bincount(nearest[good], minlength=len(mixture.centres))
    shares = counts / max(1, counts.sum())
    some = counts > 0
    divergence = (shares[some] * np.log(shares[some] / mixture.weights[some])).sum() if some.any() else np.inf
    return ModeCounts(int(some.sum()), float(good.mean()), float(divergence), counts)
