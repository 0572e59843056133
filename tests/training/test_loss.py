"""The training loss and its log: with the flag on, the atom loss joins the task's, that of a class of one's own too."""

import pytest
import torch
from torch.nn import Module
from transformers import Trainer, ViTForImageClassification

from atom_hf import AtomTrainer
from helpers.error_messages import error_message
from helpers.models import batch_for, rows_for
from helpers.training import SUM, close, equal, history, make, naive_atom_loss, train


class OwnLoss(AtomTrainer):
    """The usual way to a loss of one's own."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(**inputs)
        return (outputs.loss, outputs) if return_outputs else outputs.loss


class LossAround(AtomTrainer):
    def compute_loss(self, model, inputs, **options):
        return super().compute_loss(model, inputs, **options)


ACCUMULATING = {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2}


# Under accumulation Trainer counts on a loss that knows the number of items, and this one does not.
@pytest.mark.parametrize(("cls", "options"), [(OwnLoss, {}), (LossAround, {}), (LossAround, ACCUMULATING)])
def test_a_loss_of_ones_own_has_the_atom_loss_too(cls, options, tmp_path):
    options = {"atom": True, "atom_weighting": "absolute", "atom_weight": 3.0, **options}
    ours, theirs = (train("vit", tmp_path, cls=one, **options) for one in (AtomTrainer, cls))
    assert not equal(ours.model.state_dict(), make("vit", tmp_path, atom=True).model.state_dict())
    for key, value in ours.model.state_dict().items():
        torch.testing.assert_close(theirs.model.state_dict()[key], value, rtol=0, atol=1e-6, msg=key)
    assert [set(entry) for entry in history(ours)] == [set(entry) for entry in history(theirs)]


class WeightedLoss(AtomTrainer):
    """Its batches hold what the model does not take."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        weight, labels = inputs.pop("weight"), inputs.pop("labels")
        outputs = model(**inputs)
        losses = torch.nn.functional.cross_entropy(outputs.logits, labels, reduction="none")
        loss = (losses * weight).mean()
        return (loss, outputs) if return_outputs else loss


def test_a_loss_of_ones_own_may_take_more_than_the_model(tmp_path):
    rows = [{**row, "weight": 1.0} for row in rows_for("vit")]
    options = {"atom": True, "atom_weighting": "absolute", "remove_unused_columns": False}
    weighted = train("vit", tmp_path, cls=WeightedLoss, rows=rows, **options)
    for key, value in train("vit", tmp_path, **options).model.state_dict().items():
        torch.testing.assert_close(weighted.model.state_dict()[key], value, rtol=0, atol=1e-6, msg=key)


def same_training(cls, folder, **options):
    """Whether a trainer's class trains as AtomTrainer does, and so with the whole atom loss."""
    ours, theirs = (train("vit", folder, cls=one, **SUM, atom_weight=3.0, **options) for one in (AtomTrainer, cls))
    without = train("vit", folder, cls=cls, **{**SUM, "atom_weight": 0.0}, **options)
    assert not close(theirs, without)
    return close(ours, theirs) and history(ours) == history(theirs)


class InEvalMode(AtomTrainer):
    """Its loss has no dropout."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        model.eval()
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)


class OwnInEvalMode(AtomTrainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model.eval()(**inputs)
        return (outputs.loss, outputs) if return_outputs else outputs.loss


class StepInEvalMode(AtomTrainer):
    """Its steps are not those of Trainer."""

    def training_step(self, model, inputs, num_items_in_batch=None):
        model.eval()
        loss = self.compute_loss(model, self._prepare_inputs(inputs), num_items_in_batch=num_items_in_batch)
        self.accelerator.backward(loss)
        return loss.detach()


class Inherited:
    """What a project shares among its trainers."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(**inputs)
        return (outputs.loss, outputs) if return_outputs else outputs.loss


class Inheriting(Inherited, AtomTrainer):
    pass


class WithReference(AtomTrainer):
    """Its loss runs the model in eval mode too, and lets nothing flow back from there."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        target = model.eval()(**inputs).logits.detach()
        outputs = model.train()(**inputs)
        loss = outputs.loss + 0.0 * (outputs.logits - target).square().mean()
        return (loss, outputs) if return_outputs else loss


@pytest.mark.parametrize("cls", [InEvalMode, OwnInEvalMode, StepInEvalMode, Inheriting, WithReference])
def test_a_training_loss_has_the_atom_loss_in_either_mode(cls, tmp_path):
    assert same_training(cls, tmp_path)


def test_a_model_that_stays_in_eval_mode_trains(tmp_path, monkeypatch):
    monkeypatch.setattr(ViTForImageClassification, "train", lambda self, mode=True: Module.train(self, False))
    assert same_training(AtomTrainer, tmp_path)
    pairs = {"atom_pair_batch": 4, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 2}
    assert same_training(InEvalMode, tmp_path, **pairs)


@pytest.mark.parametrize("cls", [AtomTrainer, OwnLoss])
def test_an_evaluation_in_training_mode_has_the_tasks_loss_alone(cls, tmp_path, monkeypatch):
    """As for Monte Carlo dropout."""
    trainer = make("vit", tmp_path, cls=cls, **SUM)
    expected = trainer.evaluate(rows_for("vit"))["eval_loss"]
    monkeypatch.setattr(ViTForImageClassification, "train", lambda self, mode=True: Module.train(self, True))
    trainer.model.train()
    assert trainer.evaluate(rows_for("vit"))["eval_loss"] == pytest.approx(expected, rel=1e-6)
    assert trainer.model.training


class PastTheLoss(AtomTrainer):
    def training_step(self, model, inputs, num_items_in_batch=None):
        loss = model(**self._prepare_inputs(inputs)).loss
        self.accelerator.backward(loss)
        return loss.detach()


class WithoutAPass(AtomTrainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        return sum(parameter.square().sum() for parameter in model.parameters())


def test_a_trainer_that_leaves_no_place_for_the_atom_loss_is_rejected(tmp_path):
    error_message(make("vit", tmp_path, cls=PastTheLoss, **SUM).train, "training_step of PastTheLoss", "compute_loss")
    error_message(
        make("vit", tmp_path, cls=WithoutAPass, **SUM).train, "compute_loss of WithoutAPass", "no forward pass"
    )
    plain = train("vit", tmp_path, cls=PastTheLoss)
    assert equal(plain.model.state_dict(), train("vit", tmp_path, cls=Trainer).model.state_dict())


def test_with_the_flag_off_a_loss_of_ones_own_is_left_alone(tmp_path):
    plain = train("vit", tmp_path, cls=OwnLoss)
    assert equal(plain.model.state_dict(), train("vit", tmp_path, cls=Trainer).model.state_dict())


@pytest.mark.parametrize("name", ["bert", "gpt2", "vit"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_loss_is_the_tasks_plus_the_weighted_atom_loss(name, reduction, tmp_path):
    flags = {"atom_softening": 0.3, "atom_neutrality": 2.0, "atom_charge_floor": 0.9, "atom_charge_floor_weight": 3.0}
    trainer = make(name, tmp_path, **SUM, **flags, atom_weight=0.7, atom_token_reduction=reduction)
    model, batch = trainer.model.train(), batch_for(name, labels=True)
    energy, constraint = naive_atom_loss(model, batch)
    expected = model(**batch).loss.item() + 0.7 * (energy + constraint)
    assert trainer.compute_loss(model, dict(batch)).item() == pytest.approx(expected, rel=1e-4)
    assert constraint > 0 and abs(energy) > 1e-3
