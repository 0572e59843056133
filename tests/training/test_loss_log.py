"""Log of the atom loss: what a batch adds, what a run logs at each step, over steps and under accumulation."""

import math

import pytest
import torch

from atom_hf import Atoms, attach_atoms
from atom_hf.atoms.loss import AtomLoss
from atom_hf.training.loss_log import LOGGED as NAMES
from atom_hf.training.loss_log import LossLog
from helpers.models import batch_for, make_tokenizer, tiny
from helpers.training import LOGGED, SUM, history, naive_atom_loss, train

NAN = float("nan")


def alone(means):
    return means


def batch_of(seed):
    """(task loss, parts, atoms, importance [3, 4]) of a batch whose last sample has no token."""
    torch.manual_seed(seed)
    importance = torch.rand(3, 4) * 2 - 1
    importance[0, 3] = NAN
    importance[2] = NAN
    mask = ~importance.isnan()
    atoms = Atoms.from_tokens(importance.nan_to_num(), torch.randn(3, 4, 2), mask, token_reduction="mean")
    return torch.rand(()), AtomLoss(*torch.rand(4)), atoms, importance


def naive_entry(task, parts, atoms, importance):
    """What the log says of a batch, token by token and atom by atom."""
    charges = [value for value in importance.flatten().tolist() if not math.isnan(value)]
    there = [i for i in range(3) if atoms.radius[i] >= 0]
    return {
        "task_loss": float(task),
        "atom_loss": float(parts.loss),
        "atom_energy": float(parts.energy),
        "atom_constraint": float(parts.constraint),
        "atom_importance": sum(map(abs, charges)) / len(charges),
        "atom_positive_share": sum(value > 0 for value in charges) / len(charges),
        "atom_negative_share": sum(value < 0 for value in charges) / len(charges),
        "atom_distance": float(parts.distance),
        "atom_radius": sum(float(atoms.radius[i]) for i in there) / len(there),
        "atom_net_charge": sum(float(atoms.positive[i] - atoms.negative[i]) for i in there) / len(there),
    }


def test_a_log_is_the_mean_over_batches():
    log = LossLog()
    assert not log
    batches = [batch_of(seed) for seed in range(3)]
    for batch in batches:
        log.add(*batch)
    entries = [naive_entry(*batch) for batch in batches]
    expected = {name: sum(entry[name] for entry in entries) / 3 for name in NAMES}
    assert log and log.take(alone) == pytest.approx(expected, rel=1e-5)


def test_a_log_that_was_taken_begins_anew():
    log, batch = LossLog(), batch_of(0)
    log.add(*batch_of(1))
    log.take(alone)
    assert not log
    log.add(*batch)
    assert log.take(alone) == pytest.approx(naive_entry(*batch), rel=1e-5)


def test_a_log_is_reduced_over_processes():
    log, batch = LossLog(), batch_of(0)
    log.add(*batch)
    other = torch.arange(len(NAMES), dtype=torch.float32)
    expected = {name: (naive_entry(*batch)[name] + i) / 2 for i, name in enumerate(NAMES)}
    assert log.take(lambda means: (means + other) / 2) == pytest.approx(expected, rel=1e-5)


def test_a_batch_without_tokens_is_no_division_by_zero():
    log = LossLog()
    nothing = torch.full((2, 3), NAN)
    atoms = Atoms.from_tokens(nothing.nan_to_num(), torch.zeros(2, 3, 2), torch.zeros(2, 3, dtype=torch.bool))
    log.add(torch.tensor(1.0, requires_grad=True), AtomLoss(*torch.zeros(4)), atoms, nothing)
    assert log.take(alone) == {**dict.fromkeys(NAMES, 0.0), "task_loss": 1.0}


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
    for name in LOGGED - {"atom_gradient_scale"}:
        expected = [(each[i][name] + each[i + 1][name]) / 2 for i in (0, 2)]
        assert [entry[name] for entry in pairs] == pytest.approx(expected, rel=1e-5)


def test_the_log_adds_up_under_accumulation(tmp_path):
    # With GPT-2 as in the tests of accumulation below; Trainer itself logs BERT's loss as a sum over the batches of a step.
    trainer = train("gpt2", tmp_path, **SUM, atom_weight=0.6, gradient_accumulation_steps=2, max_steps=2)
    plain = train("gpt2", tmp_path, gradient_accumulation_steps=2, max_steps=2)
    assert history(trainer)[0]["task_loss"] == pytest.approx(history(plain)[0]["loss"], rel=1e-5)
    for entry in history(trainer)[:2]:
        assert entry["loss"] == pytest.approx(entry["task_loss"] + 0.6 * entry["atom_loss"], rel=1e-5)
