"""Metrics of an evaluation, against counts."""

import math

import numpy as np
import pytest
from transformers import EvalPrediction

from atom_hf.finetune.metrics import classification_metrics, perplexity


def naive_metrics(truth, chosen):
    """Accuracy, the mean of the classes' F1, and Gorodkin's R_K, from counts."""
    classes = sorted({*truth, *chosen})
    pairs = list(zip(truth, chosen, strict=True))
    right, n = sum(t == c for t, c in pairs), len(pairs)
    scores = []
    for k in classes:
        hits = sum(t == c == k for t, c in pairs)
        wrong = sum((t == k) != (c == k) for t, c in pairs)
        scores.append(2 * hits / (2 * hits + wrong) if hits else 0.0)
    true_counts, chosen_counts = ([part.count(k) for k in classes] for part in (list(truth), list(chosen)))
    covariance = right * n - sum(t * c for t, c in zip(true_counts, chosen_counts, strict=True))
    spread = (n * n - sum(c * c for c in chosen_counts)) * (n * n - sum(t * t for t in true_counts))
    return {
        "accuracy": right / n,
        "f1": sum(scores) / len(scores),
        "mcc": covariance / math.sqrt(spread) if spread else 0.0,
    }


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("seed", range(4))
def test_metrics_against_counts(classes, seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(40, classes))
    truth = rng.integers(0, classes, 40)
    truth[:10] = logits[:10].argmax(1)  # better than chance
    found = classification_metrics(EvalPrediction(predictions=logits, label_ids=truth))
    assert found == pytest.approx(naive_metrics(truth.tolist(), logits.argmax(1).tolist()))
    assert all(type(value) is float for value in found.values())


def test_metrics_where_one_class_is_never_chosen():
    truth, logits = np.array([0, 0, 0, 1]), np.array([[1.0, 0.0]] * 4)
    found = classification_metrics(EvalPrediction(predictions=logits, label_ids=truth))
    # F1 of class 0: 2 * 3 / (2 * 3 + 1); of class 1: none is found.
    assert found == pytest.approx({"accuracy": 0.75, "f1": (6 / 7) / 2, "mcc": 0.0})


def test_metrics_of_a_model_with_more_outputs():
    truth, logits = np.array([0, 1]), np.array([[1.0, 0.0], [0.0, 1.0]])
    further = np.zeros((2, 3, 5))
    found = classification_metrics(EvalPrediction(predictions=(logits, further), label_ids=truth))
    assert found == {"accuracy": 1.0, "f1": 1.0, "mcc": 1.0}


def test_perplexity():
    assert perplexity(0.0) == 1.0
    # A model that takes each of 50 tokens for equally likely is as perplexed as 50 tokens.
    assert perplexity(math.log(50)) == pytest.approx(50)
    assert perplexity(1e4) == math.inf
