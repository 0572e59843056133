"""The sparring copy: which noise is chosen, that the classifier stays what it is, and that a run takes up what is there."""

import pytest
import torch

from atom_hf import AtomError
from atom_hf.tasks.manipulation import sparring
from atom_hf.tasks.manipulation.rows import LabelledRows
from atom_hf.tasks.manipulation.sparring import SIGMAS, accuracy, input_range, sigmas_to_try, sparring_copy
from helpers.manipulators import digit_rows, digits_classifier, small


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def test_the_largest_noise_that_costs_two_points_at_most_is_chosen(tmp_path, monkeypatch):
    train, held_out, _ = digit_rows()
    module = digits_classifier().module
    before = state(module)
    found = sparring_copy(module, train, held_out, SIGMAS, small(tmp_path), steps=60)
    tried = [sigma for sigma in SIGMAS if sigma in found.accuracies]
    assert tried == list(SIGMAS[: len(tried)]) and tried[-1] == found.sigma
    passes = [found.accuracies[sigma] >= found.accuracies[0.0] - 0.02 for sigma in tried]
    assert passes == [False] * (len(tried) - 1) + [True]
    assert accuracy(found.module, held_out) == pytest.approx(found.accuracies[found.sigma])
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    # It reads through its noise better than the classifier does.
    noise = found.sigma * torch.randn(held_out.floats.shape, generator=torch.Generator().manual_seed(0))
    noised = LabelledRows(held_out.floats + noise, held_out.labels)
    assert accuracy(found.module, noised) > accuracy(module, noised) + 0.02
    # The same run takes it from its folder; one with other settings does not.
    calls, real = [], sparring.fit
    monkeypatch.setattr(sparring, "fit", lambda *given: calls.append(given) or real(*given))
    again = sparring_copy(module, train, held_out, SIGMAS, small(tmp_path), steps=60)
    assert not calls and again.sigma == found.sigma and again.accuracies == found.accuracies
    assert all(torch.equal(value, found.module.state_dict()[name]) for name, value in again.module.state_dict().items())
    sparring_copy(module, train, held_out, (0.2,), small(tmp_path), steps=2)
    assert len(calls) == 1


def test_without_a_noise_that_passes_it_is_the_classifier(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(sparring, "COSTS", -1.0)
    train, held_out, _ = digit_rows()
    module = digits_classifier().module
    found = sparring_copy(module, train, held_out, (0.3, 0.2), small(tmp_path), steps=5)
    assert found.sigma == 0 and "every noise costs more than two points" in caplog.text
    assert all(torch.equal(value, found.module.state_dict()[name]) for name, value in module.state_dict().items())
    assert not any(parameter.requires_grad for parameter in found.module.parameters())


def test_a_noise_that_is_given_is_taken(tmp_path):
    train, held_out, _ = digit_rows()
    assert sparring_copy(digits_classifier().module, train, held_out, (9.0,), small(tmp_path), steps=5).sigma == 9.0


def test_the_range_of_vectors_is_a_mean_over_coordinates():
    assert input_range(digit_rows()[0]) == 1
    assert input_range(LabelledRows(torch.tensor([[0.0, 5.0], [1.0, 2.0]]), torch.zeros(2))) == 2


def test_noises():
    assert sigmas_to_try("auto") == SIGMAS and sigmas_to_try("0.3") == (0.3,) and sigmas_to_try(0) == ()
    for given in ("-1", "much", "nan"):
        with pytest.raises(
            AtomError, match=f"--sigma must be auto, or a number from 0 .no noise. to 10, got '{given}'"
        ):
            sigmas_to_try(given)
