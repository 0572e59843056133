"""The training loss and its log: with the flag on, the atom loss joins the task's, that of a class of one's own too."""

import math

import pytest
import torch
from transformers import Trainer

from atom_hf import AtomTrainer, attach_atoms
from helpers.models import batch_for, make_tokenizer, rows_for, tiny
from helpers.training import LOGGED, SUM, equal, history, make, naive_atom_loss, train


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


@pytest.mark.parametrize("name", ["bert", "gpt2", "vit"])
@pytest.mark.parametrize("weighting", ["relative", "absolute"])
def test_the_log_of_each_step(name, weighting, tmp_path):
    torch.manual_seed(42)  # as the trainer does, so that the heads are those of the run
    model = attach_atoms(tiny(name), processing_class=None if name == "vit" else make_tokenizer())
    importance = model.atom_importance(**batch_for(name))
    real = importance[~importance.isnan()]
    energy, constraint = naive_atom_loss(model, batch_for(name))

    trainer = train(name, tmp_path, atom=True, atom_weighting=weighting, atom_weight=0.6)
    steps = [entry for entry in history(trainer) if "loss" in entry]
    assert [entry["step"] for entry in steps] == [1, 2, 3]
    for entry in steps:
        assert set(entry) == {*LOGGED, "loss", "grad_norm", "learning_rate", "epoch", "step"}
        assert all(math.isfinite(value) for value in entry.values())
        assert entry["loss"] == pytest.approx(entry["task_loss"] + 0.6 * entry["atom_loss"], rel=1e-5)
        assert entry["atom_loss"] == pytest.approx(entry["atom_energy"] + entry["atom_constraint"], rel=1e-5)
    first = {
        # GPT-2's own mean is over one token less in each row than the one that Trainer passes it the number of.
        "task_loss": history(train(name, tmp_path))[0]["loss"],
        "atom_energy": energy,
        "atom_constraint": constraint,
        "atom_importance": real.abs().mean().item(),
        "atom_positive_share": (real > 0).float().mean().item(),
        "atom_negative_share": (real < 0).float().mean().item(),
    }
    assert {key: steps[0][key] for key in first} == pytest.approx(first, rel=1e-4)


def test_the_log_averages_over_its_steps(tmp_path):
    each = [entry for entry in history(train("bert", tmp_path, atom=True, max_steps=4)) if "loss" in entry]
    pairs = [
        entry for entry in history(train("bert", tmp_path, atom=True, max_steps=4, logging_steps=2)) if "loss" in entry
    ]
    for name in LOGGED - {"atom_balancer"}:
        expected = [(each[i][name] + each[i + 1][name]) / 2 for i in (0, 2)]
        assert [entry[name] for entry in pairs] == pytest.approx(expected, rel=1e-5)


def test_the_log_adds_up_under_accumulation(tmp_path):
    # With GPT-2 as in the tests of accumulation below; Trainer itself logs BERT's loss as a sum over the batches of a step.
    trainer = train("gpt2", tmp_path, **SUM, atom_weight=0.6, gradient_accumulation_steps=2, max_steps=2)
    plain = train("gpt2", tmp_path, gradient_accumulation_steps=2, max_steps=2)
    assert history(trainer)[0]["task_loss"] == pytest.approx(history(plain)[0]["loss"], rel=1e-5)
    for entry in history(trainer)[:2]:
        assert entry["loss"] == pytest.approx(entry["task_loss"] + 0.6 * entry["atom_loss"], rel=1e-5)
