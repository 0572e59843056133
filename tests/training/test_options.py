"""Training with data and options of all kinds."""

import math
import random

import numpy as np
import pytest
import torch

from atom_hf import AtomConfig, AtomError, AtomMixin, attach_atoms
from helpers.models import make_tokenizer, rows_for, tiny
from helpers.training import SUM, backbone, equal, heads, history, make, mean_loss, train

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


def test_rows_without_any_token_are_rejected_before_training(tmp_path):
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
    assert whole.model.atom_balancer.state() == pytest.approx(again.model.atom_balancer.state(), rel=1e-5)


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
