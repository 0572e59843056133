"""Training of a GAN's two players: what each learns, runs that are resumed to the bit, and runs that diverge."""

import copy

import pytest
import torch
from transformers import TrainerCallback, set_seed

from atom_hf import AtomTrainingArguments
from atom_hf.errors import DivergedError
from atom_hf.generation.gan import PLAYERS
from atom_hf.generation.gan_trainer import LOSSES, GANArguments, GANTrainer
from helpers.error_messages import error_message
from helpers.gans import IMAGES, gan
from helpers.models import tiny
from helpers.training import SUM, arguments, equal

ROWS = [{"pixel_values": image} for image in IMAGES.repeat(4, 1, 1, 1)]


def make(folder, *, model=None, **options):
    set_seed(0)
    args = arguments(folder, GANArguments, **{"max_steps": 4, "per_device_train_batch_size": 8, **options})
    return GANTrainer(model or gan(), args, train_dataset=ROWS)


def weights(trainer):
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def changed(before, after):
    return {name.split(".")[0] for name, value in before.items() if not torch.equal(value, after[name])}


def test_both_players_learn_as_in_a_loop(tmp_path):
    """One step by SGD: each player's weights move against the gradient of its own loss, clipped by itself."""
    model = gan()
    expected = copy.deepcopy(model)
    trainer = make(
        tmp_path,
        model=model,
        optim="sgd",
        learning_rate=0.1,
        max_steps=1,
        max_grad_norm=0.05,
        players={"generator": {"lr": 0.2}},
    )
    noises = []
    model.generator.register_forward_pre_hook(lambda module, given: noises.append(given[0].detach().clone()))
    trainer.train()
    expected(torch.stack([row["pixel_values"] for row in ROWS[:8]]), noises[0]).loss.backward()
    for part, rate in (("generator", 0.2), ("discriminator", 0.1)):
        some = dict(getattr(expected, part).named_parameters())
        norm = torch.stack([value.grad.norm() for value in some.values()]).norm()
        for name, value in getattr(model, part).named_parameters():
            step = rate * some[name].grad * min(1, 0.05 / (norm + 1e-6))
            assert torch.allclose(value, some[name] - step, atol=1e-6), name


@pytest.mark.parametrize("atom", [False, True])
def test_a_resumed_run_ends_as_one_that_was_not_interrupted(atom, tmp_path):
    options = {
        "atom": atom,
        "save_strategy": "steps",
        "save_steps": 2,
        "players": {"discriminator": {"lr": 5e-3, "every": 2}},
    }
    whole = make(tmp_path / "whole", **options)
    whole.train()
    resumed = make(tmp_path / "resumed", **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert all(torch.equal(value, weights(resumed)[name]) for name, value in weights(whole).items())
    players = {"generator", "discriminator", *(["atom_heads"] if atom else [])}
    assert {group["player"] for group in whole.optimizer.param_groups} == players
    logged = [entry for entry in whole.state.log_history if "loss" in entry]
    assert len(logged) == 4 and all(set(LOSSES) <= set(entry) for entry in logged)
    total = sum(logged[-1][name] for name in LOSSES)
    assert logged[-1]["task_loss" if atom else "loss"] == pytest.approx(total, abs=2e-4)
    assert ("atom_energy" in logged[-1]) == atom


class Steps(TrainerCallback):
    def __init__(self):
        self.seen = []

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.seen.append({name: value.detach().clone() for name, value in model.named_parameters()})


def run_with_given_noise(folder, size):
    """The weights after two steps by SGD, with the energy, on batches of `size` in each process."""
    noise = torch.randn(24, 5, generator=torch.Generator().manual_seed(1))
    rows = [{**row, "noise": one} for row, one in zip(ROWS, noise, strict=True)]
    options = {"optim": "sgd", "learning_rate": 0.1, "max_steps": 2, "per_device_train_batch_size": size}
    args = arguments(folder, GANArguments, **{**SUM, **options})
    trainer = GANTrainer(gan(), args, train_dataset=rows)
    trainer.train()
    found = {name.removeprefix("module."): value for name, value in weights(trainer).items()}
    return found, trainer.state.log_history[0]


def test_two_processes_end_as_one_with_the_whole_batch(two_processes, tmp_path):
    (first, logged), (second, _) = two_processes(run_with_given_noise, str(tmp_path / "two"), 4)
    assert equal(first, second)
    alone, expected = run_with_given_noise(str(tmp_path / "one"), 8)
    assert changed(gan().state_dict(), {name: alone[name] for name in gan().state_dict()}) == {*PLAYERS}
    for name, value in alone.items():
        assert torch.allclose(first[name], value, atol=1e-6), name
    assert [logged[name] for name in LOSSES] == pytest.approx([expected[name] for name in LOSSES], rel=1e-5)


def test_a_player_may_learn_at_every_other_step_alone(tmp_path):
    trainer, steps = make(tmp_path, players={"discriminator": {"every": 2}}), Steps()
    trainer.add_callback(steps)
    before = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
    trainer.train()
    moves = [changed(*pair) for pair in zip([before, *steps.seen], steps.seen, strict=False)]
    assert moves == [{"generator"}, {"generator", "discriminator"}] * 2


def test_with_a_weight_of_0_the_energy_changes_nothing(tmp_path):
    plain = make(tmp_path)
    plain.train()
    zero = make(tmp_path, atom=True, atom_weight=0.0)
    zero.train()
    others = weights(zero)
    assert all(torch.allclose(value, others[name], atol=1e-6) for name, value in weights(plain).items())
    far = make(tmp_path, atom=True, atom_weighting="absolute", atom_weight=10.0)
    far.train()
    others = weights(far)
    assert not all(torch.allclose(value, others[name], atol=1e-4) for name, value in weights(plain).items())


def test_a_run_that_diverges_is_stopped_with_its_step_and_the_last_checkpoint(tmp_path):
    class Break(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            if state.global_step == 3:
                with torch.no_grad():
                    model.generator.last.bias.fill_(float("nan"))

    trainer = make(tmp_path, save_strategy="steps", save_steps=2)
    trainer.add_callback(Break())
    with pytest.raises(DivergedError) as caught:
        trainer.train()
    assert "step 4: the losses of generator" in str(caught.value) and str(tmp_path / "checkpoint-2") in str(
        caught.value
    )


def test_what_does_not_fit(tmp_path):
    error_message(lambda: make(tmp_path, players={"critic": {"lr": 1e-4}}), "players: critic is no player of a GAN")
    error_message(lambda: make(tmp_path, players={"generator": {"rate": 1}}), "players: generator has lr and every")
    error_message(lambda: make(tmp_path, model=tiny("vit")), "trains a GANModel, got a ViTForImageClassification")
    args = arguments(tmp_path, AtomTrainingArguments)
    error_message(lambda: GANTrainer(gan(), args, train_dataset=ROWS), "takes GANArguments, got AtomTrainingArguments")
