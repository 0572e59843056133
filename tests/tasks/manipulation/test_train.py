"""`manipulate`: what is trained and what stands still, resuming, and what is refused before training starts."""

import logging

import pytest
import torch

from atom_hf import AtomError
from atom_hf.errors import DivergedError
from atom_hf.tasks import Manipulator, manipulate
from atom_hf.tasks.kinds import Kind
from atom_hf.tasks.manipulation.classifier import Classifier, make_classifier
from atom_hf.tasks.manipulation.rows import LabelledRows
from helpers.manipulators import NAMES, digit_rows, digits_classifier, digits_manipulator, small

WIDTHS = {"hidden_sizes": (4, 8)}


def vectors(count, seed):
    """Two classes of four coordinates, of which the first two tell them apart, far from 0 and of another scale."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (count,), generator=generator)
    values = torch.randn(count, 4, generator=generator)
    values[:, :2] += 4.0 * labels[:, None] - 2
    return LabelledRows(50 + 10 * values, labels)


def linear_classifier():
    """The exact posterior of `vectors`."""
    module = make_classifier({"architecture": "linear"}, Kind("vector", (4,)), 2)
    with torch.no_grad():
        module.layers[0].weight.copy_(torch.tensor([[0.0] * 4, [0.4, 0.4, 0, 0]]))
        module.layers[0].bias.copy_(torch.tensor([0.0, -40.0]))
    return Classifier(module, {"architecture": "linear"}, ["low", "high"])


def test_an_editor_of_digits_writes_what_is_read():
    manipulator, (_, _, test) = digits_manipulator(), digit_rows()
    edited = manipulator.edit(test.floats, "seven")
    assert (manipulator.classify(edited).argmax(1) == 7).float().mean() > 0.9
    own = manipulator.edit(test.floats, manipulator.classify(test.floats).argmax(1))
    assert (own - test.floats).square().mean() < 0.8 * (edited - test.floats).square().mean()
    config = manipulator.config
    assert config.labels == NAMES and config.noise_std == pytest.approx(0.3) and config.dataset == "digits"
    assert config.classifier_name == "classifiers/digits" and config.classifier_hash == digits_classifier().weights_hash


def test_an_editor_of_vectors_moves_what_tells_the_classes_apart(tmp_path):
    train, held_out, test = (vectors(count, seed) for count, seed in ((2000, 0), (300, 1), (300, 2)))
    args = small(tmp_path, max_steps=250, learning_rate=5e-3)
    manipulator = manipulate(linear_classifier(), train, held_out, sigma=0, hidden_sizes=(32,), args=args)
    low, high = test.of_class(0), test.of_class(1)
    edited = manipulator.edit(low, "high")
    assert (manipulator.classify(edited).argmax(1) == 1).float().mean() > 0.98
    assert (edited.mean(0)[:2] - high.mean(0)[:2]).abs().max() < 8
    change = (edited - low).square().mean(0).sqrt()
    assert change[:2].min() > 3 * change[2:].max()
    # Of the classifier as it is, the logits are those that it gives of the rows themselves.
    torch.testing.assert_close(
        manipulator.classify(test.floats), linear_classifier().module(test.floats), rtol=1e-3, atol=1e-2
    )


def test_a_run_that_is_resumed_ends_as_if_it_had_not_been_interrupted(tmp_path):
    train, judge, _ = digit_rows()
    options = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3, "lr_scheduler_type": "constant"}

    def made(folder, **more):
        args = small(folder, **{**options, **more})
        return manipulate(digits_classifier(), train, judge, sigma=0, args=args, **WIDTHS)

    whole = made(tmp_path / "whole")
    made(tmp_path / "part", max_steps=3)
    with pytest.raises(AtomError, match="holds another run; resume it by --resume_from_checkpoint true"):
        made(tmp_path / "part")
    resumed = made(tmp_path / "part", resume_from_checkpoint="true")
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_the_classifier_stands_still(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    train, judge, _ = digit_rows()
    before = {name: value.clone() for name, value in digits_classifier().module.state_dict().items()}
    manipulator = manipulate(digits_classifier(), train, judge, sigma=0, args=small(tmp_path, max_steps=3), **WIDTHS)
    assert isinstance(manipulator, Manipulator) and manipulator.config.noise_std == 0
    for name, value in before.items():
        assert torch.equal(digits_classifier().module.state_dict()[name], value)
        assert torch.equal(manipulator.get.state_dict()[name], value)
    assert not any(parameter.requires_grad for parameter in manipulator.get.parameters())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"put": "residual"}, "--put residual does not edit images"),
        ({"weights": [0, 0, 0, 0]}, "--weights: that of putget is 0"),
        ({"sigma": "loud"}, "--sigma must be auto, or a number"),
        (
            {"labels": NAMES[::-1]},
            "labels: the classes of the classifier are zero, one, .*; give rows with ids of this order",
        ),
        ({"steps": {"per_device_train_batch_size": 16}}, "law: ~ compares at least two rows of each class in a batch"),
    ],
)
def test_what_is_wrong_is_said_before_training_starts(tmp_path, started, options, says):
    train, judge, _ = digit_rows()
    args = small(tmp_path, **options.pop("steps", {}))
    with pytest.raises(AtomError, match=says):
        manipulate(digits_classifier(), train, judge, args=args, **options)
    assert not started


def test_a_loss_that_is_not_a_number_names_its_atom(tmp_path):
    train, judge, _ = digit_rows()
    broken = make_classifier(digits_classifier().form, train.kind, 10)
    with torch.no_grad():
        next(broken.parameters()).fill_(float("nan"))
    classifier = Classifier(broken, digits_classifier().form, NAMES)
    with pytest.raises(DivergedError, match="putget is nan"):
        manipulate(classifier, train, judge, sigma=0, args=small(tmp_path, max_steps=2), **WIDTHS)
