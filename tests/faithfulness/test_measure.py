"""Lines of results against the metrics of one sample at a time."""

import math

import numpy as np
import pytest
import torch

from atom_hf import AtomConfig, attach_atoms
from atom_hf.faithfulness import measure as measuring
from atom_hf.faithfulness import metrics
from atom_hf.faithfulness.classifier import Classifier
from atom_hf.faithfulness.cost import counted
from atom_hf.faithfulness.measure import check_samples, measure_cost, measure_samples
from atom_hf.faithfulness.methods import METHODS
from atom_hf.faithfulness.randomization import randomized
from atom_hf.faithfulness.samples import Samples
from helpers.models import make_tokenizer, tiny

ROWS = [{"text": text} for text in ["the moon and the sea", "", "a king", "love is here", *["my heart"] * 8]]


@pytest.fixture(scope="module")
def samples():
    model = attach_atoms(tiny("bert").eval(), AtomConfig(layer=-1), make_tokenizer())
    return Samples(Classifier(model, make_tokenizer(), "drop"), ROWS)


def test_a_text_without_a_token_is_left_out(samples):
    assert list(samples.rows) == [0, *range(2, 12)]


def test_lines_are_the_metrics_of_each_sample(samples):
    method, numbers = METHODS["input_x_gradient"], list(samples.rows)
    lines = list(measure_samples(method, samples, numbers, steps=4, perturbations=5))
    assert [line["sample"] for line in lines] == numbers
    for line in lines:
        inputs, target = samples.batch([line["sample"]])
        attribution = method(samples.classifier, inputs, target)[0, samples.classifier.tokens(inputs)[0]].numpy()
        assert line["attribution"] == pytest.approx(attribution.tolist(), abs=1e-5)
        values = samples.classifier.values(inputs, int(target))
        for name, value in metrics.masking_metrics(np.array(line["attribution"]), values, 4).items():
            assert line[name] == pytest.approx(value, abs=1e-5), name
        off = metrics.random_subsets(line["tokens"], 5, seed=line["sample"])
        assert line["infidelity"] == pytest.approx(
            metrics.infidelity(attribution, values, off, normalize=False), abs=1e-5
        )


def test_another_strategy_shares_what_does_not_depend_on_it(samples):
    masked = Samples(Classifier(samples.classifier.model, make_tokenizer(), "mask"), ROWS, like=samples)
    numbers, sizes = list(samples.rows)[:3], {"steps": 4, "perturbations": 5}
    for name in ("integrated_gradients", "importance"):
        first = list(measure_samples(METHODS[name], samples, numbers, **sizes))
        cost = measure_cost(METHODS[name], samples)
        with counted(samples.classifier.model) as passes:
            second = list(measure_samples(METHODS[name], masked, numbers, **sizes))
            assert (measure_cost(METHODS[name], masked) == cost) == (name == "integrated_gradients")
        assert passes.backward <= 1 and passes.forward > 0  # one says which token the classifier reads
        alone = measure_samples(METHODS[name], Samples(masked.classifier, ROWS), numbers, **sizes)
        for line, other, expected in zip(second, first, alone, strict=True):
            assert line["attribution"] == pytest.approx(expected["attribution"], abs=1e-5)
            for measure in ("comprehensiveness", "sufficiency", "deletion", "insertion", "infidelity_normalized"):
                assert line[measure] == pytest.approx(expected[measure], abs=1e-5)
            assert line["deletion"] != other["deletion"]


def test_checks_compare_with_the_random_model_and_leave_the_model_alone(samples):
    method, before = METHODS["hidden_norm"], measuring.weights_of(samples.classifier.model)
    lines = check_samples(method, samples, 2, seed=5)
    assert measuring.weights_of(samples.classifier.model) == before
    assert [line["sample"] for line in lines] == [0, 2] and all(0 < line["sensitivity_max"] < 1 for line in lines)
    original = dict(samples.attributions(method, [0, 2]))
    with randomized(samples.classifier.model, 5) as levels:
        for level in levels:
            found = dict(samples.attributions(method, [0, 2]))
            for line in lines:
                expected = metrics.randomization(original[line["sample"]], found[line["sample"]])
                assert line["randomization"][level] == pytest.approx(
                    [expected["signed"], expected["absolute"]], abs=1e-5
                )


def test_weights_are_told_apart():
    one, same, other = (measuring.weights_of(tiny("bert", seed=seed)) for seed in (0, 0, 1))
    assert one == same != other and len(one) == 16
    assert len(measuring.weights_of(tiny("bert").to(torch.bfloat16))) == 16


def test_numbers_are_rounded_to_what_json_holds():
    given = {"a": [1.23456789, math.nan, 3], "b": "text", "c": math.inf}
    assert measuring.rounded(given) == {"a": [1.23457, None, 3], "b": "text", "c": None}
