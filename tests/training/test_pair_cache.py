"""The cache of pairs: what it costs in memory, what it leaves as it was, and what it rejects."""

import pytest
import torch

from atom_hf import AtomError, AtomTrainer, attach_atoms
from atom_hf.benchmark.steps import allocated_peak
from atom_hf.experiments.regularizers import StudyTrainer, StudyTrainingArguments
from helpers.models import rows_for, tiny
from helpers.training import SUM, Gradients, arguments, equal, history, make, train

STEP = {**SUM, "atom_weight": 30.0, "max_steps": 1, "max_grad_norm": 0.0, "optim": "sgd"}
LENGTH = 48


def long_rows(count):
    """Rows of one length, so that every batch of as many takes as much memory."""
    rows = rows_for("bert", 60)
    words = [token for row in rows for token in row["input_ids"][1:-1]]
    return [
        {
            "input_ids": words[i * 7 : i * 7 + LENGTH],
            "attention_mask": [1] * LENGTH,
            "labels": rows[i]["labels"],
        }
        for i in range(count)
    ]


def step_peak(folder, batch, batches, **options):
    sizes = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": batches}
    trainer = make("bert", folder, rows=long_rows(batch * batches), **STEP, **sizes, **options)
    trainer.check_atoms()
    return allocated_peak(trainer.train)


def test_memory_grows_by_atoms_and_not_by_activations(tmp_path):
    whole = step_peak(tmp_path, 32, 1)
    small = step_peak(tmp_path, 4, 8)
    assert whole > 3 * small, "a batch of 32 is out of reach of what holds four"
    cached = {batches: step_peak(tmp_path, 4, batches, atom_pair_batch=4 * batches) for batches in (2, 8)}
    # Rows of 35 numbers, and pairs of them: some dozens of kilobytes, where activations of four rows take megabytes.
    assert cached[8] - small < 32 * 35 * 4 * 10 + 32 * 32 * 35 * 4 * 2
    assert cached[8] - cached[2] < 0.1 * small


def test_running_statistics_see_each_batch_once(tmp_path):
    options = {"gradient_accumulation_steps": 2, "atom_head_learning_rate": 0.0, "learning_rate": 0.0}
    runs = [train("resnet", tmp_path, **{**STEP, **options}, **more) for more in ({}, {"atom_pair_batch": 8})]
    buffers = [dict(run.model.named_buffers()) for run in runs]
    assert any(name.endswith("running_mean") for name in buffers[0])
    assert equal(*buffers)


@pytest.mark.parametrize("name", ["bert", "gpt2", "vit"])
def test_weight_0_leaves_the_model_and_its_random_numbers_alone(name, tmp_path):
    options = {"dropout": 0.2, "gradient_accumulation_steps": 2, "max_steps": 3, "train_sampling_strategy": "random"}
    plain = train(name, tmp_path, **{**STEP, **options, "atom_weight": 0.0})
    cached = train(name, tmp_path, **{**STEP, **options, "atom_weight": 0.0}, atom_pair_batch=8)
    assert equal(plain.model.state_dict(), cached.model.state_dict())
    assert [entry.get("task_loss") for entry in history(plain)] == [entry.get("task_loss") for entry in history(cached)]


def test_the_log_is_that_of_the_whole_group(tmp_path):
    whole = train("vit", tmp_path, **STEP, per_device_train_batch_size=8)
    cached = train("vit", tmp_path, **STEP, gradient_accumulation_steps=2, atom_pair_batch=8)
    names = ["loss", "task_loss", "atom_loss", "atom_energy", "atom_constraint", "atom_importance", "atom_distance"]
    for name in [*names, "atom_radius", "atom_net_charge", "atom_positive_share"]:
        assert history(cached)[0][name] == pytest.approx(history(whole)[0][name], rel=1e-5), name


class Shuffling(AtomTrainer):
    """A trainer that changes its batches on the way to the model."""

    def compute_loss(self, model, inputs, **kwargs):
        return super().compute_loss(model, {**inputs, "input_ids": inputs["input_ids"].flip(0)}, **kwargs)


def test_another_batch_in_the_second_pass_is_rejected(tmp_path):
    gradients = Gradients()
    trainer = make("bert", tmp_path, cls=Shuffling, pieces={"callbacks": [gradients]}, **STEP, atom_pair_batch=4)
    trainer.train()  # one batch needs no cache
    options = {**STEP, "gradient_accumulation_steps": 2, "atom_pair_batch": 8}
    with pytest.raises(AtomError, match="atom_pair_batch: a batch had different atoms"):
        make("bert", tmp_path, cls=Shuffling, **options).train()


def test_a_batch_that_is_passed_more_than_once_is_rejected(tmp_path):
    args = arguments(tmp_path, StudyTrainingArguments, **STEP, gradient_accumulation_steps=2, atom_pair_batch=8)
    args.regularizer, args.regularizer_weight = "rdrop", 1.0
    with pytest.raises(AtomError, match=r"atom_pair_batch: .*more than once"):
        make("bert", tmp_path, cls=StudyTrainer, pieces={"args": args}).train()


class OwnStep(AtomTrainer):
    """Its steps are not those of Trainer."""

    def training_step(self, model, inputs, num_items_in_batch=None):
        model.train()
        loss = self.compute_loss(model, self._prepare_inputs(inputs), num_items_in_batch=num_items_in_batch)
        self.accelerator.backward(loss)
        return loss.detach()


def test_a_step_that_does_not_prepare_its_batches_is_rejected(tmp_path):
    make("bert", tmp_path, cls=OwnStep, **STEP).train()
    options = {**STEP, "gradient_accumulation_steps": 2, "atom_pair_batch": 8}
    with pytest.raises(AtomError, match=r"atom_pair_batch: .*does not call super\(\)\.training_step"):
        make("bert", tmp_path, cls=OwnStep, **options).train()


class ScheduleFree(torch.optim.SGD):
    """As schedule-free optimizers do: weights are the ones to train at after `train`, others after `eval`."""

    mode = "eval"

    def train(self):
        self.mode = "train"

    def eval(self):
        self.mode = "eval"


def test_the_first_pass_has_the_weights_to_train_at(tmp_path, monkeypatch):
    options = {**STEP, "gradient_accumulation_steps": 2, "atom_pair_batch": 8}
    model = attach_atoms(tiny("vit"))
    optimizer, modes = ScheduleFree(model.parameters(), lr=0.0), []
    read = AtomTrainer._atom_read
    monkeypatch.setattr(AtomTrainer, "_atom_read", lambda *args: modes.append(optimizer.mode) or read(*args))
    make("vit", tmp_path, model=model, pieces={"optimizers": (optimizer, None)}, **options).train()
    assert modes[-2:] == ["train", "train"] and len(modes) == 3  # the first of them is the check before training


@pytest.mark.parametrize("options", [{"label_smoothing_factor": 0.1}, {}])
def test_the_first_pass_is_given_what_the_second_is(options, tmp_path):
    # Where the loss is not the model's own, Trainer keeps the labels from it.
    model, given = tiny("bert"), []
    model.register_forward_pre_hook(lambda module, args, kwargs: given.append(set(kwargs)), with_kwargs=True)
    make("bert", tmp_path, model=model, **STEP, **options, gradient_accumulation_steps=2, atom_pair_batch=8).train()
    assert len(given) >= 4
    assert all(("labels" in names) == (not options) for names in given)


def test_dropout_without_a_memory_of_random_numbers_would_be_seen(tmp_path, monkeypatch):
    monkeypatch.setattr("atom_hf.training.pair_cache.set_random_state", lambda state, device: None)
    options = {**STEP, "gradient_accumulation_steps": 2, "atom_pair_batch": 8}
    with pytest.raises(AtomError, match="different atoms"):
        make("bert", tmp_path, model=tiny("bert", dropout=0.3), **options).train()
