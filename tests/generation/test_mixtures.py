"""Mixtures, and the modes that samples cover."""

import math

import numpy as np
import pytest

from atom_hf.generation.mixtures import Mixture, count_modes, grid, ring
from helpers.error_messages import error_message


@pytest.mark.parametrize("make, modes, apart", [(ring, 8, 4 * math.sin(math.pi / 8)), (grid, 25, 2)])
def test_modes_are_apart_and_samples_lie_at_them(make, modes, apart):
    mixture = make()
    pairs = [math.dist(a, b) for i, a in enumerate(mixture.centres) for b in mixture.centres[:i]]
    assert len(mixture.centres) == modes and min(pairs) == pytest.approx(apart) and apart > 20 * mixture.std
    found = count_modes(mixture.draw(20_000, np.random.default_rng(0)), mixture)
    assert found.covered == modes and found.divergence < 0.002
    assert found.high_quality == pytest.approx(1 - math.exp(-4.5), abs=0.003)  # of a Gaussian in the plane within 3 std


def test_counts_are_those_of_a_loop():
    mixture = Mixture(np.array([[0.0, 0], [1, 0], [0, 1]]), 0.1, np.array([0.5, 0.25, 0.25]))
    samples = mixture.draw(200, np.random.default_rng(1)) + np.random.default_rng(2).normal(0, 0.1, (200, 2))
    samples = samples[samples[:, 1] < 0.5]  # the third mode is lost
    counts = [0, 0, 0]
    for sample in samples:
        distances = [math.dist(sample, centre) for centre in mixture.centres]
        if min(distances) <= 0.3:
            counts[distances.index(min(distances))] += 1
    found = count_modes(samples, mixture)
    assert found.counts.tolist() == counts and found.covered == 2 and found.high_quality == sum(counts) / len(samples)
    shares = [count / sum(counts) for count in counts[:2]]
    naive = shares[0] * math.log(shares[0] / 0.5) + shares[1] * math.log(shares[1] / 0.25)
    assert found.divergence == pytest.approx(naive)


def test_samples_far_from_all_modes():
    found = count_modes(np.full((10, 2), 9.0), ring())
    assert found.covered == 0 and found.high_quality == 0 and found.divergence == math.inf
    error_message(lambda: count_modes(np.full((3, 2), np.nan), ring()), "not finite", "diverged")
    error_message(lambda: count_modes(np.ones((3, 4)), ring()), "samples must be [N, 2]", "[3, 4]")
