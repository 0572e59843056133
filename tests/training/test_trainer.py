"""Training: the flag off is Trainer itself; the flag on adds the atom loss, its log and its heads, and nothing else."""

import dataclasses
import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import arguments, batch_for, collator_for, make_tokenizer, rows_for, tiny
from naive import naive_constraint, naive_energy
from safetensors.torch import load_file
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    T5Config,
    T5ForConditionalGeneration,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from atom_hf import (
    AtomConfig,
    AtomError,
    AtomMixin,
    AtomTrainer,
    AtomTrainerMixin,
    AtomTrainingArguments,
    attach_atoms,
)

# The atom term as a plain weighted sum, felt by the model from the first step to the last.
SUM = {"atom": True, "atom_weighting": "absolute", "atom_warmup_ratio": 0.0, "atom_schedule": "constant"}
LOGGED = {
    *("task_loss", "atom_loss", "atom_energy", "atom_constraint", "atom_importance", "atom_positive_share"),
    *("atom_negative_share", "atom_distance", "atom_radius", "atom_net_charge", "atom_gate"),
}
NOT_THE_SAME_TWICE = ("runtime", "per_second")


def make(name, folder, *, model=None, rows=None, cls=AtomTrainer, dropout=0.0, pieces=(), **options):
    """A trainer of the tiny model `name`; `pieces` are arguments of the trainer, `options` of its arguments."""
    pieces = dict(pieces)
    if "model_init" not in pieces:
        pieces["model"] = model or tiny(name, dropout=dropout)
    if name != "vit":
        pieces.setdefault("processing_class", make_tokenizer())
    rows = rows_for(name) if rows is None else rows
    args = pieces.pop("args", None) or arguments(folder, **options)
    return cls(args=args, train_dataset=rows, data_collator=collator_for(name), **pieces)


def train(*args, **options):
    trainer = make(*args, **options)
    trainer.train()
    return trainer


def backbone(trainer):
    return {key: value for key, value in trainer.model.state_dict().items() if "atom_heads" not in key}


def heads(trainer):
    return {key: value.clone() for key, value in trainer.model.state_dict().items() if "atom_heads" in key}


def equal(a, b):
    return list(a) == list(b) and all(torch.equal(a[key], b[key]) for key in a)


def history(trainer):
    """The log, without what a clock measures."""
    return [
        {k: v for k, v in entry.items() if not k.endswith(NOT_THE_SAME_TWICE)} for entry in trainer.state.log_history
    ]


class Gradients(TrainerCallback):
    """Keeps the gradients of each optimizer step."""

    def __init__(self):
        self.steps = []

    def on_pre_optimizer_step(self, args, state, control, model, **kwargs):
        self.steps.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})


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


# The loss and its log


def naive_atom_loss(model, batch):
    """Energy and constraint by the loops of naive.py, from hidden states and head weights, in float64."""
    config = model.atom_config
    with torch.no_grad():
        states = model(**batch, output_hidden_states=True).hidden_states[config.layer].double()
        tokens = states - states.mean(-1, keepdim=True)
        tokens = tokens / (tokens.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        weights = {name: tensor.double() for name, tensor in model.atom_heads.state_dict().items()}
        charge = tokens @ weights["importance.weight"].T + weights["importance.bias"]
        importance = (2 * torch.sigmoid(charge.squeeze(-1)) - 1).tolist()
        position = (tokens @ weights["position.weight"].T + weights["position.bias"]).tolist()
    mask = (~model.atom_importance(**batch).isnan()).tolist()
    reduction = config.token_reduction
    energy, _ = naive_energy(importance, position, mask, softening=config.softening, token_reduction=reduction)
    limits = {name: getattr(config, name) for name in ("neutrality", "charge_floor", "charge_floor_weight")}
    return energy, naive_constraint(importance, mask, token_reduction=reduction, **limits)


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
    for name in LOGGED - {"atom_gate"}:
        expected = [(each[i][name] + each[i + 1][name]) / 2 for i in (0, 2)]
        assert [entry[name] for entry in pairs] == pytest.approx(expected, rel=1e-5)


def test_the_log_adds_up_under_accumulation(tmp_path):
    # With GPT-2 as in the tests of accumulation below; Trainer itself logs BERT's loss as a sum over the batches of a step.
    trainer = train("gpt2", tmp_path, **SUM, atom_weight=0.6, gradient_accumulation_steps=2, max_steps=2)
    plain = train("gpt2", tmp_path, gradient_accumulation_steps=2, max_steps=2)
    assert history(trainer)[0]["task_loss"] == pytest.approx(history(plain)[0]["loss"], rel=1e-5)
    for entry in history(trainer)[:2]:
        assert entry["loss"] == pytest.approx(entry["task_loss"] + 0.6 * entry["atom_loss"], rel=1e-5)


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


def test_an_optimizer_without_the_heads_is_refused(tmp_path):
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


def mean_loss(outputs, labels, num_items_in_batch=None):
    loss = torch.nn.functional.cross_entropy(outputs["logits"], labels, reduction="sum")
    return loss / (len(labels) if num_items_in_batch is None else num_items_in_batch)


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
    state = trainer.model.atom_gate.state()
    assert state["task_norm"] == pytest.approx(task.norm().item(), rel=1e-3)
    assert state["atom_norm"] == pytest.approx((whole - task).norm().item(), rel=1e-3)


# Data and options of all kinds

EMPTY = {"input_ids": [2, 3], "attention_mask": [1, 1], "labels": 0}  # [CLS] [SEP]


@pytest.mark.parametrize("softening", [0.0, 0.1])
@pytest.mark.parametrize(
    "kind", ["one row is left over", "the same row", "some rows without words", "a batch without words"]
)
def test_odd_batches_train_on(kind, softening, tmp_path):
    rows = rows_for("bert")
    rows = {
        "one row is left over": rows[:5],
        "the same row": rows[:1] * 8,
        "some rows without words": [*rows[:3], EMPTY, EMPTY, EMPTY, EMPTY, rows[4]],
        "a batch without words": [*rows[:4], *[EMPTY] * 4],
    }[kind]
    options = {"max_steps": -1, "num_train_epochs": 3.0, "logging_nan_inf_filter": False, "atom_softening": softening}
    trainer = train("bert", tmp_path, rows=rows, **SUM, **options)
    steps = [entry for entry in history(trainer) if "loss" in entry]
    assert len(steps) == 6
    assert all(math.isfinite(value) for entry in steps for value in entry.values())
    assert all(value.isfinite().all() for value in trainer.model.state_dict().values())


def test_rows_without_any_token_are_refused_before_training(tmp_path):
    trainer = make("bert", tmp_path, rows=[EMPTY] * 8, atom=True, atom_tokens="content")
    with pytest.raises(AtomError, match=r"atom_tokens.*'content'.*'all'"):
        trainer.train()
    assert trainer.state.global_step == 0
    train("bert", tmp_path, rows=[EMPTY] * 8, atom=True, atom_tokens="all")


@pytest.mark.parametrize(
    ("name", "options", "pieces"),
    [
        ("bert", {"label_smoothing_factor": 0.2}, {}),
        ("gpt2", {"label_smoothing_factor": 0.2}, {}),
        ("bert", {}, {"compute_loss_func": mean_loss}),
        ("bert", {"bf16": True}, {}),
        ("gpt2", {"bf16": True}, {}),
        ("vit", {"bf16": True}, {}),
        ("bert", {"activation_checkpointing": True}, {}),
        ("gpt2", {"activation_checkpointing": True}, {}),
        ("vit", {"activation_checkpointing": True}, {}),
    ],
)
def test_other_options_go_on_as_they_are(name, options, pieces, tmp_path):
    plain = train(name, tmp_path, pieces=pieces, dropout=0.1, **options)
    atom = make(name, tmp_path, pieces=pieces, dropout=0.1, **SUM, **options)
    before = heads(atom)
    atom.train()
    assert history(atom)[0]["task_loss"] == pytest.approx(history(plain)[0]["loss"], rel=1e-6)
    assert not any(torch.equal(value, before[key]) for key, value in heads(atom).items())
    assert {value.dtype for value in atom.model.state_dict().values() if value.is_floating_point()} == {torch.float32}
    assert all(value.isfinite().all() for value in atom.model.state_dict().values())


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", ["bert", "gpt2", "vit"])
def test_activation_checkpointing_changes_no_gradient(name, reentrant, tmp_path):
    options = {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": reentrant}}
    # SGD: Adam would blow up the rounding error of a gradient that is 0, as above.
    flags = {**SUM, "atom_weighting": "relative", "atom_weight": 1.0, "optim": "sgd", "learning_rate": 0.05}
    whole, again = (train(name, tmp_path, dropout=0.1, **flags, **more) for more in ({}, options))
    for key, value in whole.model.state_dict().items():
        torch.testing.assert_close(again.model.state_dict()[key], value, rtol=0, atol=1e-6)
    assert whole.model.atom_gate.state() == pytest.approx(again.model.atom_gate.state(), rel=1e-5)


@pytest.mark.parametrize("model_init", [lambda: tiny("bert"), lambda trial: tiny("bert")], ids=["()", "(trial)"])
def test_model_init_gives_each_run_new_heads(model_init, tmp_path):
    trainer = make("bert", tmp_path, atom=True, pieces={"model_init": model_init})
    trainer.train()
    first = trainer.model
    trainer.train()
    assert trainer.model is not first and isinstance(trainer.model, AtomMixin)
    assert equal(first.state_dict(), trainer.model.state_dict())


class Stream(torch.utils.data.IterableDataset):
    """Rows that come one after the other, and nobody knows how many."""

    def __iter__(self):
        yield from rows_for("bert")


def test_a_stream_of_rows(tmp_path):
    streamed, stored = (train("bert", tmp_path, rows=rows, **SUM) for rows in (Stream(), rows_for("bert")))
    assert equal(streamed.model.state_dict(), stored.model.state_dict())


class Augmented(torch.utils.data.Dataset):
    """Images of random brightness, from any of the three generators that `set_seed` seeds."""

    def __init__(self, draw):
        self.rows, self.draw = rows_for("vit"), draw

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return {**self.rows[index], "pixel_values": self.rows[index]["pixel_values"] * self.draw()}


@pytest.mark.parametrize(
    "draw", [random.random, np.random.rand, lambda: torch.rand(1)], ids=["random", "numpy", "torch"]
)
def test_a_paired_plain_run_sees_the_same_augmented_data(draw, tmp_path):
    options = {"rows": Augmented(draw), "max_grad_norm": 0.0}
    plain, atom = (train("vit", tmp_path, **options, **flags) for flags in ({}, {"atom": True, "atom_weight": 0.0}))
    assert equal(backbone(plain), backbone(atom))


def test_a_model_that_has_atoms_keeps_its_layer_and_tokens(tmp_path):
    model = attach_atoms(tiny("bert"), AtomConfig(layer=1, tokens="all", weight=0.01), make_tokenizer())
    before = model.atom_heads.state_dict()
    trainer = make("bert", tmp_path, model=model, **SUM, atom_weight=0.5, atom_layer=2, atom_softening=0.4)
    config = trainer.model.atom_config
    assert trainer.model is model and equal(before, model.atom_heads.state_dict())
    assert (config.layer, config.tokens, config.weight, config.softening) == (1, "all", 0.5, 0.4)
    assert config.special_token_ids and config.hidden_size == 32


# Other trainers


@dataclasses.dataclass
class BothArguments(AtomTrainingArguments, Seq2SeqTrainingArguments):
    pass


class BothTrainer(AtomTrainerMixin, Seq2SeqTrainer):
    pass


def test_the_mixin_joins_another_trainer(tmp_path):
    options = arguments(tmp_path, **SUM).to_dict()
    args = BothArguments(**{key: value for key, value in options.items() if value is not None})
    rows, seen = rows_for("gpt2")[:4], []
    pieces = {"args": args, "eval_dataset": rows, "compute_metrics": lambda found: seen.append(found.predictions) or {}}
    trainer = train("gpt2", tmp_path, cls=BothTrainer, pieces=pieces)
    assert [set(entry) >= LOGGED for entry in history(trainer)] == [True, True, True, False]
    same = train("gpt2", tmp_path, **SUM)
    assert equal(trainer.model.state_dict(), same.model.state_dict())
    trainer.args.predict_with_generate = True
    trainer.evaluate(max_new_tokens=3)
    assert seen[0].dtype == np.int64 and seen[0].shape[0] == 4


class Timid(Trainer):
    """A trainer as many projects have one: it passes on whatever it is given."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)


class TimidAtomTrainer(AtomTrainerMixin, Timid):
    pass


@pytest.mark.parametrize("positional", [False, True])
def test_the_mixin_joins_a_trainer_that_passes_its_arguments_on(positional, tmp_path):
    model, args = tiny("bert"), arguments(tmp_path, atom=True)
    trainer = TimidAtomTrainer(model, args) if positional else TimidAtomTrainer(model=model, args=args)
    assert isinstance(trainer.model, AtomMixin)


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_an_encoder_decoder_makes_atoms_of_what_its_encoder_reads(kind, tmp_path):
    sizes = {"vocab_size": 400, "d_model": 16, "pad_token_id": 0, "decoder_start_token_id": 0, "num_layers": 1}
    if kind == "t5":
        model = T5ForConditionalGeneration(T5Config(**sizes, d_kv=8, d_ff=16, num_heads=2))
    else:
        layers = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
        widths = {"encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "max_position_embeddings": 48}
        model = BartForConditionalGeneration(BartConfig(**sizes, **layers, **widths))
    attach_atoms(model, AtomConfig(weighting="absolute"))
    ids = torch.randint(3, 400, (2, 7))
    labels = torch.randint(3, 400, (2, 4))
    outputs = model(input_ids=ids, labels=labels)
    assert outputs.atom_importance.shape == (2, 7) and not outputs.atom_importance.isnan().any()
    assert not {"encoder_hidden_states", "decoder_hidden_states"} & set(outputs)
    outputs.atoms.sum().backward()
    embedding = model.get_encoder().get_input_embeddings().weight
    assert embedding.grad is not None and embedding.grad.abs().sum() > 0


# What would lose the heads or compare the wrong samples


def test_several_gpus_in_one_process_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(AtomTrainingArguments, "n_gpu", 2)
    with pytest.raises(AtomError, match="accelerate launch"):
        make("bert", tmp_path, atom=True)


def test_a_wrapped_model_is_refused(tmp_path):
    with pytest.raises(AtomError, match=r"Sequential.*wrapped"):
        make("bert", tmp_path, model=torch.nn.Sequential(attach_atoms(tiny("bert"))), atom=True)


def test_no_model_is_refused(tmp_path):
    with pytest.raises(AtomError, match=r"model must be .*PeftModel.*got NoneType"):
        AtomTrainer(args=arguments(tmp_path, atom=True))


def test_saving_at_the_end_of_a_push_leaves_the_model_clean(tmp_path):
    """Trainer.push_to_hub saves through the same door as a checkpoint, into the final folder."""
    trainer = make("bert", tmp_path, atom=True)
    trainer.save_model(str(tmp_path / "final"), _internal_call=True)
    trainer.save_model(None, _internal_call=True)
    for folder in (tmp_path / "final", Path(trainer.args.output_dir)):
        assert not [name for name in load_file(folder / "model.safetensors") if "atom" in name]
        assert (folder / "atom_heads.safetensors").is_file()


def test_flags_that_the_heads_overrule_are_said(tmp_path, caplog):
    model = attach_atoms(tiny("bert"), AtomConfig(layer=1))
    with caplog.at_level("WARNING", "atom_hf"):
        make("bert", tmp_path, model=model, atom=True, atom_layer=-1)
    assert model.atom_config.layer == 1 and "atom_layer" in caplog.text


def test_the_mixin_behind_the_trainer_is_refused():
    with pytest.raises(AtomError, match=r"class Behind: AtomTrainerMixin comes first, in front of the trainer"):

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


def test_data_that_is_read_once_is_checked_at_the_first_step(tmp_path):
    from datasets import IterableDataset

    def rows():
        yield from [{"input_ids": [2, 3], "attention_mask": [1, 1], "labels": 0}] * 16

    trainer = make("bert", tmp_path, rows=IterableDataset.from_generator(rows), atom=True)
    with pytest.raises(AtomError, match="leaves no token in the first samples"):
        trainer.train()
    assert trainer.state.global_step == 0


@pytest.mark.parametrize("frozen", [True, False])
def test_a_layer_that_nothing_is_trained_before_is_said(frozen, tmp_path, caplog):
    model = tiny("bert")
    model.bert.requires_grad_(not frozen)
    train("bert", tmp_path, model=model, atom=True)
    assert ("nothing before this layer is trained" in caplog.text) == frozen
    assert "does not depend on this layer" not in caplog.text
