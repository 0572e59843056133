"""Measures of samples, against their definitions in loops."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from atom_hf.generation.measures import (
    active_units,
    class_diversity,
    fidelity,
    frechet_distance,
    nearest_training,
)
from helpers.error_messages import error_message


def clouds(seed=0, width=4):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((40, width)), 0.7 * rng.standard_normal((30, width)) + 0.4


@pytest.mark.parametrize("width", [1, 4, 50])
def test_frechet_distance(width):
    real, fake = clouds(width=width)
    first, second = (np.atleast_2d(np.cov(x.T)) for x in (real, fake))
    naive = ((real.mean(0) - fake.mean(0)) ** 2).sum() + np.trace(first + second - 2 * np.real(sqrtm(first @ second)))
    # Fewer samples than dimensions leave a singular covariance, on which the naive root is exact to few digits.
    assert frechet_distance(real, fake) == pytest.approx(naive, rel=1e-6 if width < 40 else 1e-2)
    assert frechet_distance(real, real) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(real, real + 3) == pytest.approx(9 * width)


@pytest.mark.parametrize("k", [1, 5])
def test_fidelity(k):
    real, fake = clouds()

    def distance(a, b):
        return sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) ** 0.5

    def radius(rows, i):
        return sorted(distance(rows[i], rows[j]) for j in range(len(rows)) if j != i)[k - 1]

    near_real = [[distance(r, f) < radius(real, i) for f in fake] for i, r in enumerate(real)]
    near_fake = [[distance(r, f) < radius(fake, j) for j, f in enumerate(fake)] for r in real]
    found = fidelity(real, fake, k)
    assert found.precision == pytest.approx(np.mean([any(row[j] for row in near_real) for j in range(len(fake))]))
    assert found.recall == pytest.approx(np.mean([any(row) for row in near_fake]))
    assert found.density == pytest.approx(sum(map(sum, near_real)) / (k * len(fake)))
    assert found.coverage == pytest.approx(np.mean([any(row) for row in near_real]))


def test_what_fidelity_tells_apart():
    rng = np.random.default_rng(1)
    real = np.concatenate([rng.standard_normal((100, 2)), rng.standard_normal((100, 2)) + 20])
    half, far = rng.standard_normal((200, 2)), rng.standard_normal((200, 2)) - 50
    found = fidelity(real, half)
    assert found.precision > 0.9 and 0.3 < found.recall < 0.6 and 0.3 < found.coverage < 0.6
    assert fidelity(real, far) == (0, 0, 0, 0)


def test_nearest_training():
    training, fake = clouds()
    copies = np.concatenate([fake, training[[7, 3]] + 1e-3])
    found = nearest_training(training, copies)
    naive = [[np.linalg.norm(one - other) for other in training] for one in copies]
    assert found.index.tolist() == [int(np.argmin(row)) for row in naive] and found.index[-2:].tolist() == [7, 3]
    assert np.allclose(found.distance, [min(row) for row in naive])
    share = np.mean([sorted(row)[0] < sorted(row)[1] / 3 for row in naive])
    assert found.memorised == pytest.approx(share) and nearest_training(training, training[:5] + 1e-6).memorised == 1


def test_class_diversity():
    real, fake = clouds()
    classes, own = np.arange(40) % 3, np.arange(30) % 4  # one class that is not real
    ratios = []
    for one in range(3):
        spreads = []
        for values, labels in ((real, classes), (fake, own)):
            its = values[labels == one]
            spreads.append(np.mean([np.linalg.norm(a - b) for i, a in enumerate(its) for b in its[:i]]))
        ratios.append(spreads[1] / spreads[0])
    assert class_diversity(real, classes, fake, own) == pytest.approx(np.mean(ratios))
    assert class_diversity(real, classes, 2 * real, classes) == pytest.approx(2)
    assert class_diversity(real, classes, np.ones((9, 4)), np.arange(9) % 3) == 0
    assert np.isnan(class_diversity(real, classes, fake[:3], np.arange(3)))


def test_active_units():
    rng = np.random.default_rng(0)
    means = rng.standard_normal((500, 5)) * [1, 0.2, 0.05, 0, 3]
    assert active_units(means) == 3 and active_units(means, threshold=0.5) == 2


def test_what_is_no_features():
    good = np.ones((4, 2))
    broken = np.where(np.eye(4, 2) > 0, np.nan, 1.0)
    error_message(lambda: frechet_distance(good[0], good), "real must be features [N, d]", "[2]")
    error_message(lambda: frechet_distance(good, good[:1]), "generated must be", "[1, 2]")
    error_message(lambda: fidelity(good, broken), "generated: row 0 holds numbers that are not finite")
    error_message(lambda: nearest_training(good, np.ones((4, 3))), "3 wide", "2")
    error_message(lambda: fidelity(good, good, k=4), "k is 4", "4 and 4")
