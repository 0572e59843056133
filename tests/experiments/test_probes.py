"""What features know, by hand: each measure against loops, and at its limits."""

import math
import statistics

import numpy as np
import pytest

from atom_hf.experiments.probes import (
    cross_entropy,
    distance_correlation,
    linear_probe,
    neighbor_accuracy,
    scaled_loss,
    twin_retrieval,
)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


# The loss at the best temperature


def naive_loss(logits, labels, temperature):
    total = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        scores = [score / temperature for score in row]
        total += math.log(sum(math.exp(score) for score in scores)) - scores[label]
    return total / len(labels)


def naive_scaled_loss(logits, labels):
    """Each half's temperature is the best of a fine grid."""
    even = [i for i in range(len(labels)) if i % 2 == 0]
    odd = [i for i in range(len(labels)) if i % 2 == 1]
    grid = [math.exp(k / 200) for k in range(-600, 601)]
    losses = []
    for fitted, scored in ((even, odd), (odd, even)):
        best = min(grid, key=lambda t: naive_loss(logits[fitted], labels[fitted], t))
        losses.append(naive_loss(logits[scored], labels[scored], best))
    return statistics.mean(losses)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("sure", [0.3, 1.0, 8.0])
def test_scaled_loss_against_a_grid_of_temperatures(classes, sure):
    logits, labels = normal(60, classes), np.arange(60) % classes
    logits[np.arange(60), labels] += 1
    assert cross_entropy(sure * logits, labels) == pytest.approx(naive_loss(sure * logits, labels, 1.0))
    assert scaled_loss(sure * logits, labels) == pytest.approx(naive_scaled_loss(sure * logits, labels), rel=2e-3)


def test_scaled_loss_does_not_depend_on_how_sure_the_model_is():
    logits, labels = normal(50, 3), np.arange(50) % 3
    logits[np.arange(50), labels] += 1
    assert scaled_loss(20 * logits, labels) == pytest.approx(scaled_loss(logits, labels), rel=1e-4)
    assert cross_entropy(20 * logits, labels) > 2 * scaled_loss(20 * logits, labels)


# Probes


def naive_probe(x, labels, y, strength):
    """A logistic regression of two classes by Newton's method, on features standardised by the fitted rows."""
    mean, spread = x.mean(0), x.std(0)
    x, y = (np.hstack([(part - mean) / spread, np.ones((len(part), 1))]) for part in (x, y))
    penalty = np.diag([1.0] * (x.shape[1] - 1) + [0.0]) / strength
    w = np.zeros(x.shape[1])
    for _ in range(50):
        p = 1 / (1 + np.exp(-x @ w))
        w -= np.linalg.solve((x.T * (p * (1 - p))) @ x + penalty, x.T @ (p - labels) + penalty @ w)
    return y @ w


@pytest.mark.parametrize("seed", range(3))
def test_linear_probe_against_newtons_method(seed):
    x, y = normal(80, 4, seed=seed) * [1, 5, 0.1, 1] + 3, normal(50, 4, seed=seed + 9) * [1, 5, 0.1, 1] + 3
    labels, truth = ((part[:, 0] - part[:, 1] / 5 + normal(len(part), seed=5) > 3).astype(int) for part in (x, y))
    held = np.arange(80) % 4 == 3
    by_strength = {
        c: ((naive_probe(x[~held], labels[~held], x[held], c) > 0) == labels[held]).mean() for c in (0.01, 0.1, 1.0)
    }
    scores = naive_probe(x, labels, y, max(by_strength, key=by_strength.get))
    found = linear_probe(x, labels, y, truth)
    assert found["accuracy"] == pytest.approx(((scores > 0) == truth).mean(), abs=0.021)  # one row at the boundary
    pairs = [(a, b) for a in scores[truth == 1] for b in scores[truth == 0]]
    assert found["auc"] == pytest.approx(statistics.mean(float(a > b) for a, b in pairs), abs=0.005)
    assert 0 < found["mcc"] <= 1


def test_a_probe_of_several_classes_has_no_auc():
    x = np.repeat(np.eye(3), 20, axis=0) + 0.01 * normal(60, 3)
    labels = np.repeat([4, 5, 6], 20)
    assert linear_probe(x, labels, x, labels) == {"accuracy": 1.0, "mcc": 1.0}
    assert neighbor_accuracy(x, labels, x, labels) == 1.0


def naive_neighbors(x, labels, y, truth):
    right = 0
    for row, label in zip(y.tolist(), truth.tolist(), strict=True):
        nearest = sorted(range(len(x)), key=lambda i: math.dist(x[i], row))[:5]
        votes = [int(labels[i]) for i in nearest]
        right += max(sorted(set(votes)), key=votes.count) == label
    return right / len(y)


@pytest.mark.parametrize("seed", range(3))
def test_neighbor_accuracy(seed):
    x, y = normal(60, 3, seed=seed), normal(40, 3, seed=seed + 9)
    labels, truth = ((part[:, 0] > 0) + 2 * (part[:, 1] > 0) for part in (x, y))
    assert neighbor_accuracy(x, labels, y, truth) == pytest.approx(naive_neighbors(x, labels, y, truth))


# Twins and distances


def test_twin_retrieval():
    clean = normal(30, 3)
    corrupted = clean + 0.5 * normal(30, 3, seed=1)
    by_hand = statistics.mean(min(range(30), key=lambda j: math.dist(corrupted[i], clean[j])) == i for i in range(30))
    assert twin_retrieval(clean, corrupted) == pytest.approx(by_hand) and 0 < by_hand < 1
    assert twin_retrieval(clean, clean) == 1
    assert twin_retrieval(clean, clean[::-1]) == 0


def ranks(values):
    order = sorted(values)
    return [statistics.mean(i for i, other in enumerate(order) if other == value) for value in values]


def test_distance_correlation():
    latent = normal(14, 3)
    outputs = latent[:, :2] + 0.3 * normal(14, 2, seed=1)
    pairs = [(i, j) for i in range(14) for j in range(i + 1, 14)]
    one, two = (ranks([math.dist(rows[i], rows[j]) for i, j in pairs]) for rows in (outputs, latent))
    assert distance_correlation(outputs, latent) == pytest.approx(statistics.correlation(one, two))
    assert distance_correlation(3 * latent + 1, latent) == pytest.approx(1)
    assert math.isnan(distance_correlation(np.ones((5, 2)), latent[:5]))


def test_a_model_that_diverged_has_no_measures():
    broken, labels = np.full((8, 2), np.nan), np.arange(8) % 2
    assert math.isnan(scaled_loss(broken, labels)) and math.isnan(twin_retrieval(broken, broken))
    assert math.isnan(neighbor_accuracy(broken, labels, broken, labels))
    assert all(map(math.isnan, linear_probe(broken, labels, broken, labels).values()))
    assert math.isnan(distance_correlation(broken, broken))
