"""The passes that are promised against those that are made."""

import pytest

from atom_hf import AtomConfig, attach_atoms
from atom_hf.faithfulness import cost
from atom_hf.faithfulness.classifier import Classifier
from atom_hf.faithfulness.cost import counted
from atom_hf.faithfulness.estimate import estimate
from atom_hf.faithfulness.measure import check_samples, measure_cost, measure_samples
from atom_hf.faithfulness.methods import METHODS
from atom_hf.faithfulness.samples import Samples
from helpers.models import make_tokenizer, tiny

ROWS = [{"text": text} for text in ["the moon and the sea is here now", "a king and his great love of the night"] * 5]


@pytest.mark.parametrize("name", ["importance", "random", "integrated_gradients", "shapley_sampling"])
def test_passes_are_about_those_that_are_made(name):
    model = attach_atoms(tiny("bert").eval(), AtomConfig(layer=-1), make_tokenizer())
    method, sizes = METHODS[name], {"steps": 5, "perturbations": 6}
    classifiers = [Classifier(model, make_tokenizer(), strategy) for strategy in ("mask", "drop")]
    told = estimate(classifiers[0], {method: 2}, ROWS, **sizes, checks=2)
    samples = None
    with counted(model) as passes:
        for classifier in classifiers:
            samples = Samples(classifier, ROWS, like=samples)
            list(measure_samples(method, samples, list(samples.rows), **sizes))
            if classifier is classifiers[0] and not method.is_sampled:
                check_samples(method, samples, 2)
            measure_cost(method, samples)
    made = passes.forward + 2 * passes.backward
    # The cost is timed against forward passes, and sets that come twice are masked once.
    assert made / 1.5 < told.passes < 1.5 * made + 2 * cost.FEW * len(ROWS) and told.seconds > 0


def test_nothing_left_takes_nothing():
    assert estimate(None, {}, ROWS, steps=5, perturbations=6, checks=2) == (0, 0)
