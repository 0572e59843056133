"""Samples read, predicted and masked together, against one at a time."""

import numpy as np
import pytest

from atom_hf.faithfulness.classifier import Classifier
from atom_hf.faithfulness.cost import counted
from atom_hf.faithfulness.methods import METHODS
from atom_hf.faithfulness.samples import Samples
from helpers.models import make_tokenizer, tiny

ROWS = [{"text": text} for text in ["the moon and the sea", "", "a king", "love is here", "my heart"]]


@pytest.fixture(params=["mask", "drop"])
def samples(request):
    return Samples(Classifier(tiny("bert").eval(), make_tokenizer(), request.param), ROWS)


def test_samples_are_read_as_one_by_one(samples):
    classifier = samples.classifier
    assert list(samples.rows) == [0, 2, 3, 4]
    for number, row in samples.rows.items():
        inputs = classifier.encode([row])
        target, probability = classifier.predict(inputs)
        assert samples.targets[number] == int(target) and samples.lengths[number] == inputs["input_ids"].shape[1]
        assert samples.probabilities[number] == pytest.approx(float(probability), abs=1e-6)
    assert list(samples.buckets([0, 2, 3], 2)) == [[2, 3], [0]]


def test_values_are_found_together_once(samples):
    rng, classifier = np.random.default_rng(0), samples.classifier
    counts = {n: int(classifier.tokens(classifier.encode([row])).sum()) for n, row in samples.rows.items()}
    asked = {number: rng.random((6, count)) < 0.5 for number, count in counts.items()}
    different = sum(len(np.unique(keep, axis=0)) for keep in asked.values())
    with counted(classifier.model) as passes:
        samples.prepare(asked)
        samples.prepare(asked)
    assert passes.forward == different
    for number, keep in asked.items():
        inputs, target = samples.batch([number])
        expected = classifier.values(inputs, int(target), batch_size=1)(keep)
        assert samples.values[number](keep) == pytest.approx(expected, abs=1e-6)


def test_attributions_come_in_the_order_that_is_asked_for(samples):
    method, classifier = METHODS["input_x_gradient"], samples.classifier
    found = list(samples.attributions(method, [4, 0, 2]))
    assert [number for number, _ in found] == [4, 0, 2]
    for number, attribution in found:
        inputs, target = samples.batch([number])
        alone = method(classifier, inputs, target)[0, classifier.tokens(inputs)[0]].numpy()
        assert attribution == pytest.approx(alone, abs=1e-5)
