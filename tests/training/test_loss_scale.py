"""Scale of the task loss and of the atom term: models that ignore `num_items_in_batch` are found out and corrected."""

from types import SimpleNamespace

import pytest
import torch
from transformers import Trainer

from atom_hf.training.loss_scale import TaskLossScale, loss_divisor, trying_out
from helpers.models import batch_for, tiny
from helpers.training import make


def scale_of(name, folder, steps=2, computes=Trainer, **options):
    trainer = make(name, folder, cls=Trainer, gradient_accumulation_steps=2, **options)
    trainer.current_gradient_accumulation_steps = steps
    return TaskLossScale(trainer, computes)


@pytest.mark.parametrize("name", ["bert", "distilbert", "roberta", "gpt2-classifier"])
def test_the_mean_of_a_batch_becomes_its_share_of_the_step(name, tmp_path):
    scale, batch = scale_of(name, tmp_path), batch_for(name, 4, labels=True)
    losses = torch.stack([scale.trainer.model(**batch_for(name, 1, start=i, labels=True)).loss for i in range(4)])
    factor = scale.of(batch, torch.tensor(10))
    assert factor.item() == pytest.approx(0.4)
    torch.testing.assert_close(scale.trainer.model(**batch).loss * factor, losses.sum() / 10)


@pytest.mark.parametrize("name", ["vit", "gpt2"])
def test_a_model_that_counts_right_is_left_alone(name, tmp_path):
    assert scale_of(name, tmp_path).of(batch_for(name, labels=True), torch.tensor(10)) is None


@pytest.mark.parametrize(
    "options",
    [{"steps": 1}, {"computes": type("Own", (Trainer,), {})}, {"label_smoothing_factor": 0.1}],
    ids=["a single batch", "another trainer's loss", "Trainer's own loss"],
)
def test_what_needs_no_correction_is_not_tried(options, tmp_path, monkeypatch):
    scale = scale_of("bert", tmp_path, **options)
    monkeypatch.setattr(scale, "_tries", None)
    assert scale.of(batch_for("bert", labels=True), torch.tensor(10)) is None


def test_without_a_number_of_items_there_is_nothing_to_correct(tmp_path):
    assert scale_of("bert", tmp_path).of(batch_for("bert", labels=True), None) is None


def test_a_model_is_tried_once(tmp_path, monkeypatch):
    scale = scale_of("bert", tmp_path)
    calls = []
    monkeypatch.setattr(scale, "_tries", lambda *given: calls.append(given) or True)
    for _ in range(3):
        scale.of(batch_for("bert", labels=True), torch.tensor(10))
    assert len(calls) == 1


def test_trying_out_leaves_no_trace():
    model = tiny("bert", dropout=0.5).train()
    model.bert.embeddings.eval()
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    with trying_out(model, torch.device("cpu")):
        outputs = model(**batch_for("bert", labels=True))
        torch.rand(1)
        assert not outputs.loss.requires_grad and not model.training
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("scaled", "accepts", "loss_func", "items", "divisor"),
    [
        (None, True, None, 8, 4),
        (None, True, None, None, 1),
        (None, False, None, 8, 1),
        (None, False, print, None, 4),
        (True, False, None, None, 4),
        (False, True, print, 8, 1),
    ],
)
def test_the_atom_term_is_divided_where_trainer_does_not(scaled, accepts, loss_func, items, divisor):
    trainer = SimpleNamespace(
        loss_is_scaled_for_ga=scaled,
        model_accepts_loss_kwargs=accepts,
        compute_loss_func=loss_func,
        current_gradient_accumulation_steps=4,
    )
    assert loss_divisor(trainer, items) == divisor
