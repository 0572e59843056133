"""Training: the flag off is Trainer itself; the flag on adds the atom loss and its heads, and nothing else."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import Trainer, TrainerCallback, TrainingArguments

from atom_hf import AtomError, AtomMixin, AtomTrainer, AtomTrainerMixin, AtomTrainingArguments, attach_atoms
from helpers.error_messages import error_message
from helpers.models import batch_for, collator_for, make_tokenizer, rows_for, tiny
from helpers.training import SUM, Gradients, arguments, backbone, equal, heads, history, make, train

# The flag off


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_off_is_trainer_to_the_bit(name, tmp_path):
    options = {"gradient_accumulation_steps": 2, "dropout": 0.1, "train_sampling_strategy": "random"}
    options |= {"eval_strategy": "steps", "eval_steps": 1, "max_steps": 4, "atom_weight": 0.5}
    pieces = {"eval_dataset": rows_for(name)[:6]}
    runs = [train(name, tmp_path, cls=cls, pieces=pieces, **options) for cls in (Trainer, AtomTrainer)]
    assert equal(*(run.model.state_dict() for run in runs)) and history(runs[0]) == history(runs[1])
    assert not equal(runs[0].model.state_dict(), tiny(name).state_dict())
    assert not isinstance(runs[1].model, AtomMixin)


def test_arguments_of_trainers_own_mean_off(tmp_path):
    args = TrainingArguments(output_dir=str(tmp_path), report_to=[], use_cpu=True)
    assert not isinstance(make("bert", tmp_path, pieces={"args": args}).model, AtomMixin)


@pytest.mark.parametrize("name", ["bert", "gpt2", "vit"])
@pytest.mark.parametrize("how", [{"atom_weight": 0.0}, {"atom_weight": 0.0, "atom_weighting": "absolute"}])
def test_weight_0_leaves_the_model_to_the_task(name, how, tmp_path):
    # Without clipping to the bit, dropout and order of the rows included. With clipping nearly so: the heads' gradients
    # are all 0, but being there they change the order in which the squares of the others are summed. (Adam would make
    # much of such a last bit wherever a gradient is 0 but for rounding, as that of an attention's key bias.)
    clipped = {"max_grad_norm": 0.05, "optim": "sgd", "learning_rate": 0.05}
    for options, tolerance in (({"max_grad_norm": 0.0}, 0.0), (clipped, 1e-6)):
        options = {"dropout": 0.1, "train_sampling_strategy": "random", **options}
        plain, atom = (train(name, tmp_path, **options, **flags) for flags in ({}, {"atom": True, **how}))
        for key, value in backbone(plain).items():
            torch.testing.assert_close(backbone(atom)[key], value, rtol=0, atol=tolerance)


@pytest.mark.parametrize("weighting", ["relative", "absolute"])
def test_during_the_warm_up_only_the_heads_learn(weighting, tmp_path):
    flags = {"atom": True, "atom_weighting": weighting, "atom_weight": 0.5, "atom_head_learning_rate": 1e-2}
    plain = train("bert", tmp_path, max_grad_norm=0.0)
    atom = train("bert", tmp_path, max_grad_norm=0.0, atom_warmup_ratio=1.0, **flags)
    assert equal(backbone(plain), backbone(atom))
    assert not equal(heads(atom), heads(make("bert", tmp_path, atom=True)))
    assert not equal(
        backbone(plain), backbone(train("bert", tmp_path, max_grad_norm=0.0, atom_warmup_ratio=0, **flags))
    )


@pytest.mark.parametrize("name", ["bert", "gpt2", "vit"])
def test_evaluation_is_that_of_the_plain_model(name, tmp_path):
    seen = []

    def metrics(prediction):
        seen.append(prediction.predictions)
        return {"sum": float(prediction.predictions.sum())}

    pieces = {"eval_dataset": rows_for(name)[:7], "compute_metrics": metrics}
    trainer = train(name, tmp_path, atom=True, pieces=pieces)
    found = trainer.evaluate()
    bare = tiny(name)
    bare.load_state_dict(backbone(trainer))
    expected = make(name, tmp_path, model=bare, cls=Trainer, pieces=pieces).evaluate()
    compared = [key for key in expected if key in ("eval_loss", "eval_sum")]
    assert len(compared) == 2 and [found[key] for key in compared] == [expected[key] for key in compared]
    assert all(isinstance(logits, np.ndarray) and len(logits) == 7 for logits in seen) and len(seen) == 2


# The optimizer and what it is given


class Rates(TrainerCallback):
    """Keeps the learning rate of each parameter at each step."""

    def __init__(self):
        self.steps = []

    def on_pre_optimizer_step(self, args, state, control, model, optimizer, **kwargs):
        names = {parameter: name for name, parameter in model.named_parameters()}
        self.steps.append([(names[p], group["lr"]) for group in optimizer.param_groups for p in group["params"]])


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_heads_learn_at_their_own_rate_on_the_models_schedule(name, tmp_path):
    rates = Rates()
    flags = {"atom_head_learning_rate": 0.02, "weight_decay": 0.1, "warmup_steps": 1}
    trainer = train(name, tmp_path, atom=True, pieces={"callbacks": [rates]}, **flags)
    parameters = sorted(name for name, _ in trainer.model.named_parameters())
    logged = [entry["learning_rate"] for entry in history(trainer) if "loss" in entry]
    for step, expected in zip(rates.steps, (0.0, 1.0, 0.5), strict=True):
        assert sorted(name for name, _ in step) == parameters  # each parameter once
        for parameter, rate in step:
            peak = 0.02 if parameter.startswith("atom_heads.") else 1e-3
            assert rate == pytest.approx(peak * expected)
    assert logged == pytest.approx([0.0, 1e-3, 5e-4])  # the log goes on to show the model's


@pytest.mark.parametrize("frozen", ["nothing", "the backbone", "everything, after attaching"])
def test_heads_get_gradients_and_move(frozen, tmp_path):
    model, gradients = tiny("bert"), Gradients()
    if frozen == "the backbone":
        model.bert.requires_grad_(False)
    elif frozen.startswith("everything"):  # as one does to train a classifier on frozen features
        attach_atoms(model).requires_grad_(False)
        model.classifier.requires_grad_(True)
    trainer = make("bert", tmp_path, model=model, atom=True, pieces={"callbacks": [gradients]})
    before = heads(trainer)
    trainer.train()
    assert all(parameter.requires_grad for parameter in model.atom_heads.parameters())
    for key, value in heads(trainer).items():
        assert not torch.equal(value, before[key])
        assert all(step[key].abs().max() > 0 for step in gradients.steps) and len(gradients.steps) == 3


def test_an_optimizer_without_the_heads_is_rejected(tmp_path):
    model = tiny("bert")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = make("bert", tmp_path, model=model, atom=True, pieces={"optimizers": (optimizer, None)})
    with pytest.raises(AtomError, match=r"optimizers.*heads.*attach_atoms"):
        trainer.train()
    assert equal(backbone(trainer), tiny("bert").state_dict())


def test_an_optimizer_with_the_heads_is_taken_as_it_is(tmp_path):
    model = attach_atoms(tiny("bert"))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = make("bert", tmp_path, model=model, atom=True, pieces={"optimizers": (optimizer, None)})
    before = heads(trainer)
    trainer.train()
    assert len(trainer.optimizer.param_groups) == 1
    assert not any(torch.equal(value, before[key]) for key, value in heads(trainer).items())


@pytest.mark.parametrize("layer", [-1, 1])
@pytest.mark.parametrize("name", ["bert", "gpt2", "vit"])
def test_the_relative_weight_measures_both_gradients_where_the_tokens_are(name, layer, tmp_path):
    flags = {"atom_layer": layer, "atom_weight": 0.2, "atom_weighting": "relative", "max_steps": 1}
    trainer = make(name, tmp_path, atom=True, **flags)
    twin = make(name, tmp_path, **SUM, atom_layer=layer, atom_weight=0.2)
    (batch,), items = twin.get_batch_samples(iter([batch_for(name, labels=True)]), 1, "cpu")
    batch["output_hidden_states"] = True
    loss, outputs = twin.compute_loss(twin.model.train(), batch, return_outputs=True, num_items_in_batch=items)
    hidden = outputs.hidden_states[layer]
    (task,) = torch.autograd.grad(outputs.loss, hidden, retain_graph=True)
    (whole,) = torch.autograd.grad(loss, hidden)
    trainer.train()
    state = trainer.model.atom_balancer.state()
    assert state["task_norm"] == pytest.approx(task.norm().item(), rel=1e-3)
    assert state["atom_norm"] == pytest.approx((whole - task).norm().item(), rel=1e-3)


# What would lose the heads or compare the wrong samples


def test_several_gpus_in_one_process_are_rejected(tmp_path, monkeypatch):
    monkeypatch.setattr(AtomTrainingArguments, "n_gpu", 2)
    with pytest.raises(AtomError, match="accelerate launch"):
        make("bert", tmp_path, atom=True)


def test_saving_at_the_end_of_a_push_leaves_the_model_clean(tmp_path):
    """Trainer.push_to_hub saves through the same door as a checkpoint, into the final folder."""
    trainer = make("bert", tmp_path, atom=True)
    trainer.save_model(str(tmp_path / "final"), _internal_call=True)
    trainer.save_model(None, _internal_call=True)
    for folder in (tmp_path / "final", Path(trainer.args.output_dir)):
        assert not [name for name in load_file(folder / "model.safetensors") if "atom" in name]
        assert (folder / "atom_heads.safetensors").is_file()


def test_the_mixin_behind_the_trainer_is_rejected():
    with pytest.raises(AtomError, match=r"class Behind: AtomTrainerMixin must come before the trainer"):

        class Behind(Trainer, AtomTrainerMixin):
            pass


def test_arguments_by_place_are_not_given_twice(tmp_path):
    with pytest.raises(TypeError, match=r"got model twice"):
        AtomTrainer(tiny("bert"), arguments(tmp_path), model=tiny("bert"))
    with pytest.raises(TypeError, match=r"got too many arguments"):
        AtomTrainer(*[None] * 30)


def test_the_heads_are_those_of_the_seed(tmp_path):
    def heads(ambient, **options):
        model = tiny("bert")
        torch.manual_seed(ambient)
        return make("bert", tmp_path, model=model, atom=True, **options).model.atom_heads.state_dict()

    assert equal(heads(5), heads(6))
    assert not equal(heads(5), heads(5, seed=7))


class Noisy:
    """A collator with a generator of its own, made when it is first used."""

    def __init__(self):
        self.generator, self.drawn = None, []

    def __call__(self, rows):
        if self.generator is None:
            self.generator = torch.Generator().manual_seed(3)
        self.drawn = [*self.drawn, torch.rand(1, generator=self.generator).item()]
        return collator_for("bert")(rows)


def test_the_check_draws_nothing_from_a_collator(tmp_path):
    drawn = []
    for atom in (False, True):
        collator = Noisy()
        args = arguments(tmp_path, atom=atom)
        options = {"args": args, "train_dataset": rows_for("bert"), "processing_class": make_tokenizer()}
        AtomTrainer(model=tiny("bert"), data_collator=collator, **options).train()
        drawn.append(collator.drawn)
    assert drawn[0] == drawn[1] and len(set(drawn[0])) == len(drawn[0]) > 2


def test_data_that_is_read_once_is_checked_in_the_first_steps(tmp_path, monkeypatch):
    from datasets import IterableDataset

    monkeypatch.setattr("atom_hf.training.first_samples.BLANK_BATCHES", 1)

    def rows():
        yield from [{"input_ids": [2, 3], "attention_mask": [1, 1], "labels": 0}] * 16

    trainer = make("bert", tmp_path, rows=IterableDataset.from_generator(rows), atom=True)
    with pytest.raises(AtomError, match="leaves no token in the first 1 batches"):
        trainer.train()
    assert trainer.state.global_step == 0


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("place", ["bert.embeddings.LayerNorm.bias", "classifier.weight"])
def test_weights_that_are_not_finite_are_not_called_missing_tokens(place, streams, value, tmp_path):
    from datasets import IterableDataset

    model = tiny("bert")
    model.get_parameter(place).data[1] = value
    rows = IterableDataset.from_generator(lambda: iter(rows_for("bert"))) if streams else None
    trainer = make("bert", tmp_path, model=model, rows=rows, atom=True)
    error_message(trainer.train, "model: weights of this", place, "not finite")
    assert trainer.state.global_step == 0


def test_a_loss_that_is_not_a_number_for_want_of_labels_is_none_of_the_weights(tmp_path):
    rows = [{**row, "labels": [-100] * len(row["input_ids"])} for row in rows_for("gpt2")]
    train("gpt2", tmp_path, rows=rows, atom=True, max_steps=1)


@pytest.mark.parametrize("streams", [False, True])
def test_inputs_that_are_not_finite_are_called_that(streams, tmp_path):
    from datasets import IterableDataset

    broken = [{**row, "pixel_values": row["pixel_values"] * math.nan} for row in rows_for("vit")]
    rows = IterableDataset.from_generator(lambda: iter(broken)) if streams else broken
    trainer = make("vit", tmp_path, rows=rows, atom=True)
    error_message(trainer.train, "pixel_values: the inputs hold numbers that are not finite")


@pytest.mark.parametrize("frozen", [True, False])
def test_a_layer_that_nothing_is_trained_before_is_said(frozen, tmp_path, caplog):
    model = tiny("bert")
    model.bert.requires_grad_(not frozen)
    train("bert", tmp_path, model=model, atom=True)
    assert ("no parameter up to this layer is trained" in caplog.text) == frozen
    assert "does not depend on this layer" not in caplog.text
