"""Training of denoisers: the moving average, and runs that are resumed to the bit."""

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler
from transformers import TrainerCallback, default_data_collator, set_seed

from atom_hf import AtomTrainingArguments
from atom_hf.generation.objective import DenoisingObjective
from atom_hf.generation.trainer import AVERAGE_NAME, DenoisingTrainer
from helpers.denoisers import denoiser
from helpers.error_messages import error_message
from helpers.models import digits
from helpers.training import equal

ROWS = [{"pixel_values": 2 * torch.from_numpy(image)[None]} for image, _ in digits(60)[:32]]


def make(folder, *, ema_decay=0.5, kind=DenoisingTrainer, **options):
    options = {
        "learning_rate": 1e-2,
        "per_device_train_batch_size": 8,
        "max_steps": 4,
        "save_steps": 2,
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
        "label_names": [],
        "prediction_loss_only": True,
        **options,
    }
    set_seed(0)
    return kind(
        model=DenoisingObjective(denoiser("unet"), DDPMScheduler()),
        args=AtomTrainingArguments(str(folder), **options),
        train_dataset=ROWS,
        eval_dataset=ROWS[:8],
        data_collator=default_data_collator,
        ema_decay=ema_decay,
    )


def weights(trainer):
    return {name: value.clone() for name, value in trainer.objective.denoiser.state_dict().items()}


class Record(TrainerCallback):
    def __init__(self):
        self.seen = []

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.seen.append({name: value.detach().clone() for name, value in model.denoiser.named_parameters()})


@pytest.mark.parametrize("atom", [False, True])
def test_the_average_is_that_of_the_steps(atom, tmp_path):
    trainer, record = make(tmp_path, atom=atom, save_strategy="no"), Record()
    average = dict(trainer.objective.denoiser.named_parameters())
    average = {name: value.detach().clone() for name, value in average.items() if not name.startswith("atom_heads")}
    trainer.add_callback(record)
    trainer.train()
    for step, values in enumerate(record.seen):
        decay = min(0.5, (1 + step) / (10 + step)) if step else 0.0
        average = {name: decay * old + (1 - decay) * values[name] for name, old in average.items()}
    before = weights(trainer)
    with trainer.averaged():
        found = weights(trainer)
    assert all(torch.allclose(found[name], value, atol=1e-6) for name, value in average.items())
    assert any(not torch.allclose(before[name], value, atol=1e-4) for name, value in average.items())
    assert all(torch.equal(value, before[name]) for name, value in weights(trainer).items())  # restored
    trainer.save_model()
    saved = DDPMPipeline.from_pretrained(tmp_path).unet.state_dict()
    assert set(saved) == set(average) and all(torch.equal(value, found[name]) for name, value in saved.items())
    assert (tmp_path / "unet" / "atom_heads.safetensors").exists() == atom
    loss = trainer.evaluate()["eval_loss"]
    trainer.average = None
    assert loss != trainer.evaluate()["eval_loss"]


@pytest.mark.parametrize("atom", [False, True])
def test_a_resumed_run_ends_as_one_that_was_not_interrupted(atom, tmp_path):
    whole = make(tmp_path / "whole", atom=atom)
    whole.train()
    resumed = make(tmp_path / "resumed", atom=atom)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert all(torch.equal(value, weights(resumed)[name]) for name, value in weights(whole).items())
    assert resumed.average.optimization_step == whole.average.optimization_step == 4
    pairs = zip(whole.average.shadow_params, resumed.average.shadow_params, strict=True)
    assert all(torch.equal(*pair) for pair in pairs)


def test_a_checkpoint_without_the_average(tmp_path):
    make(tmp_path / "a", ema_decay=0.0).train()
    assert not (tmp_path / "a" / "checkpoint-2" / AVERAGE_NAME).exists()
    again = make(tmp_path / "b")
    error_message(lambda: again.train(str(tmp_path / "a" / "checkpoint-2")), AVERAGE_NAME, "give the ema_decay")


def test_with_a_weight_of_0_the_energy_changes_nothing(tmp_path):
    """But for the heads' part in the norm that is clipped."""
    options = {"save_strategy": "no", "max_grad_norm": 0.0}
    plain = make(tmp_path / "a", **options)
    plain.train()
    zero = make(tmp_path / "b", atom=True, atom_weight=0.0, **options)
    zero.train()
    others = weights(zero)
    assert all(torch.allclose(value, others[name], atol=1e-5) for name, value in weights(plain).items())


class Noise(TrainerCallback):
    """The first number of each noise that is drawn."""

    def __init__(self):
        self.drawn = []

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        objective = getattr(model, "module", model)
        draw = objective._noisy
        objective._noisy = lambda images, noise, steps: (
            self.drawn.append(noise.flatten()[0].item()) or draw(images, noise, steps)
        )


def run(folder):
    trainer, noise = make(folder, atom=True, save_strategy="no", max_steps=2), Noise()
    trainer.add_callback(noise)
    trainer.train()
    return weights(trainer), trainer.average.shadow_params, noise.drawn


def test_two_processes_draw_noise_of_their_own_and_stay_alike(two_processes, tmp_path):
    (first, average, noise), (second, other_average, other_noise) = two_processes(run, str(tmp_path))
    assert len(noise) == 2 and len({*noise, *other_noise}) == 4
    assert equal(first, second) and all(map(torch.equal, average, other_average))
    start = denoiser("unet").state_dict()
    assert all(not torch.equal(first[name], value) for name, value in start.items() if name.endswith("weight"))


def test_a_subclass_may_have_a_loss_of_its_own_beside_the_energy(tmp_path):
    class Doubled(DenoisingTrainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            loss, outputs = super().compute_loss(model, inputs, return_outputs=True)
            return (2 * loss, outputs) if return_outputs else 2 * loss

    plain = make(tmp_path / "plain", atom=True, save_strategy="no", max_steps=1, logging_steps=1)
    plain.train()
    doubled = make(tmp_path / "doubled", atom=True, save_strategy="no", max_steps=1, logging_steps=1, kind=Doubled)
    doubled.train()
    first, second = (next(entry for entry in one.state.log_history if "loss" in entry) for one in (plain, doubled))
    assert second["atom_energy"] == pytest.approx(first["atom_energy"], rel=1e-5)
    assert second["loss"] > first["loss"] + 0.1
