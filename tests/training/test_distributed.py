"""How a batch is split: over accumulation steps, and over processes, where two end as one with the whole batch."""

import pytest
import torch

from atom_hf import Atoms, AtomTrainer
from atom_hf.atoms.loss import atom_loss
from helpers.models import batch_for, rows_for
from helpers.own_models import Around, Dict, own
from helpers.training import SUM, Gradients, equal, history, make, mean_loss

# Accumulation


@pytest.mark.parametrize(
    ("name", "how"), [("bert", ""), ("gpt2", ""), ("vit", ""), ("bert", "loss function"), ("bert", "unscaled")]
)
def test_accumulation_averages_the_atom_term_over_batches(name, how, tmp_path):
    # Twelve rows are two updates, of two batches and of one. At learning rates of 0 the same weights meet all batches, so
    # that what a run of weight 0 has can be taken away.
    seen = []
    for weight in (0.0, 30.0):
        flags = {**SUM, "atom_weight": weight, "atom_head_learning_rate": 0.0}
        gradients = Gradients()
        pieces = {"callbacks": [gradients], **({"compute_loss_func": mean_loss} if how == "loss function" else {})}
        options = {"gradient_accumulation_steps": 2, "max_steps": -1, "num_train_epochs": 1.0, "learning_rate": 0.0}
        trainer = make(name, tmp_path, pieces=pieces, rows=rows_for(name)[:12], max_grad_norm=0.0, **options, **flags)
        if how == "unscaled":  # a trainer that leaves the division to Trainer
            trainer.model_accepts_loss_kwargs = False
        trainer.train()
        seen.append(gradients.steps)

    model = trainer.model.train()
    parameters = dict(model.named_parameters())
    config = model.atom_config
    options = {key: getattr(config, key) for key in ("softening", "neutrality", "charge_floor", "charge_floor_weight")}
    each = []
    for start in (0, 4, 8):
        atoms = Atoms.unpack(model(**batch_for(name, 4, start=start)).atoms)
        loss = 30 * atom_loss(atoms, **options).loss
        each.append(torch.autograd.grad(loss, list(parameters.values()), allow_unused=True, materialize_grads=True))
    for update, batches in enumerate(((0, 1), (2,))):
        for position, key in enumerate(parameters):
            expected = torch.stack([each[batch][position] for batch in batches]).mean(0)
            found = seen[1][update].get(key, torch.zeros_like(expected))
            found = found - seen[0][update].get(key, torch.zeros_like(expected))
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert max(gradient.abs().max() for gradient in each[0]) > 0.1


# Processes

# SGD, so that weights differ by what gradients do; without clipping and dropout. Every run sees batches of eight rows.
SGD = {"optim": "sgd", "learning_rate": 0.05, "atom_head_learning_rate": 0.5, "max_grad_norm": 0.0}
ABSOLUTE = {**SUM, "atom_weight": 3.0}
RELATIVE = {**ABSOLUTE, "atom_weighting": "relative"}


class InEvalMode(AtomTrainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        self.model.eval()
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)


RUNS = {
    "bert": ("bert", {**ABSOLUTE, "max_steps": 1}),
    "vit": ("vit", {**ABSOLUTE, "max_steps": 1}),
    "gpt2": ("gpt2", {**ABSOLUTE, "max_steps": 1}),
    "bert, relative": ("bert", {**RELATIVE, "max_steps": 2}),
    "gpt2, relative": ("gpt2", {**RELATIVE, "max_steps": 2}),
    "a tuple": ("bert", {**ABSOLUTE, "max_steps": 1, "model": Around}),
    "a dict": ("bert", {**RELATIVE, "max_steps": 2, "model": Dict}),
    "eval mode": ("bert", {**ABSOLUTE, "max_steps": 1, "cls": InEvalMode}),
}


def run(key, folder, processes):
    """What a run ends with."""
    name, options = RUNS[key]
    if "model" in options:
        options = {**options, "model": own(options["model"])}
    trainer = make(name, folder, per_device_train_batch_size=8 // processes, **SGD, **options)
    trainer.train()
    return result(trainer)


def run_uneven(folder):
    # Thirteen rows: the second batch of the second process is filled up with rows of the first, even the same ones.
    trainer = make("bert", folder, rows=rows_for("bert")[:13], max_steps=-1, num_train_epochs=1.0, **SUM)
    trainer.train()
    return result(trainer)


def result(trainer):
    return {
        "weights": trainer.model.state_dict(),
        "balancer": trainer.model.atom_balancer.state(),
        "log": history(trainer),
    }


@pytest.mark.parametrize("key", RUNS)
def test_two_processes_end_as_one_with_the_whole_batch(key, two_processes, tmp_path):
    first, second = two_processes(run, key, tmp_path / "two", 2)
    assert equal(first["weights"], second["weights"]) and first["balancer"] == second["balancer"]
    alone = run(key, tmp_path, processes=1)
    start = make(RUNS[key][0], tmp_path, **SUM).model.state_dict()
    for name, value in alone["weights"].items():
        torch.testing.assert_close(first["weights"][name], value, rtol=0, atol=1e-5)
    moved = {name: (value - start[name]).abs().max().item() for name, value in alone["weights"].items()}
    assert max(moved.values()) > 1e-3 and moved["atom_heads.position.weight"] > 1e-3

    balancers = first["balancer"], alone["balancer"]
    assert balancers[0]["scale"] == pytest.approx(balancers[1]["scale"], rel=1e-3)
    if RUNS[key][1]["atom_weighting"] == "relative":
        # The global norms are those of the whole batch, up to the number of processes, which both have in common.
        ratio = [balancer["task_norm"] / balancer["atom_norm"] for balancer in balancers]
        assert ratio[0] == pytest.approx(ratio[1], rel=1e-3)
    else:  # nothing is measured where the weight is absolute
        assert {balancer[norm] for balancer in balancers for norm in ("task_norm", "atom_norm")} == {0}
    for name in ("loss", "task_loss", "atom_loss", "atom_energy", "atom_constraint", "atom_distance", "atom_radius"):
        assert first["log"][0][name] == pytest.approx(alone["log"][0][name], rel=1e-4), name


def test_an_uneven_end_leaves_both_processes_alike(two_processes, tmp_path):
    first, second = two_processes(run_uneven, tmp_path)
    assert equal(first["weights"], second["weights"]) and len(first["log"]) == 3
    assert all(value.isfinite().all() for value in first["weights"].values())
