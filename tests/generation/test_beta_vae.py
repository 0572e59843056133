"""The beta-VAE: its bound against loops over pixels, its condition, training by Trainer, saving and pushing."""

import math

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel, Trainer, TrainingArguments

from atom_hf.generation.beta_vae import BetaVAEConfig, BetaVAEModel
from helpers.error_messages import error_message
from helpers.models import digits

SMALL = {"image_size": 8, "latent_size": 3}
DENSE = {**SMALL, "hidden_sizes": [32, 16]}
CONVOLUTIONAL = {**SMALL, "architecture": "convolutional", "hidden_sizes": [8, 16]}
KINDS = pytest.mark.parametrize("sizes", [DENSE, CONVOLUTIONAL], ids=["dense", "convolutional"])


def made(seed=0, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BetaVAEModel(BetaVAEConfig(**options)).eval()


def images(count):
    return torch.from_numpy(np.stack([image for image, _ in digits(count)]))[:, None] + 0.5


def classes(count):
    return torch.tensor([label for _, label in digits(count)])


@KINDS
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_the_bound_is_that_of_the_formulas(sizes, likelihood):
    model = made(**sizes, beta=2.5, likelihood=likelihood, noise_std=0.3).double()
    pixels, noise = images(5).double(), torch.randn(5, 3, generator=torch.Generator().manual_seed(1)).double()
    found = model(pixels, noise=noise)
    assert found.reconstruction.shape == pixels.shape
    assert torch.equal(found.reconstruction, model.decode(found.latents))
    reconstruction = kl = 0.0
    for n in range(5):
        for seen, expected in zip(
            pixels[n].flatten().tolist(), found.reconstruction[n].flatten().tolist(), strict=True
        ):
            if likelihood == "bernoulli":
                reconstruction -= seen * math.log(expected) + (1 - seen) * math.log(1 - expected)
            else:
                reconstruction -= math.log(
                    math.exp(-((seen - expected) ** 2) / (2 * 0.09)) / (0.3 * math.sqrt(2 * math.pi))
                )
        mean, variance = found.posterior_mean[n].tolist(), found.posterior_log_variance[n].exp().tolist()
        for m, v, z, e in zip(mean, variance, found.latents[n].tolist(), noise[n].tolist(), strict=True):
            assert z == pytest.approx(m + math.sqrt(v) * e)
            kl += (m * m + v) / 2 - 0.5 - math.log(math.sqrt(v))
    assert found.reconstruction_loss.item() == pytest.approx(reconstruction / 5, rel=1e-9)
    assert found.kl.item() == pytest.approx(kl / 5, rel=1e-9)
    assert found.loss.item() == pytest.approx(reconstruction / 5 + 2.5 * kl / 5, rel=1e-9)


def test_it_bounds_the_evidence():
    # One latent: the evidence is an integral that a fine grid gives.
    model = made(**{**DENSE, "latent_size": 1}).double()
    pixels = images(4).double()
    grid = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    with torch.no_grad():
        shown = model.decode(grid[:, None])
        prior = -grid.square() / 2 - math.log(2 * math.pi) / 2
        like = [(x * shown.log() + (1 - x) * (1 - shown).log()).flatten(1).sum(1) for x in pixels]
        evidence = torch.stack([(one + prior).logsumexp(0) + math.log(16 / 4000) for one in like])
        generator = torch.Generator().manual_seed(0)
        drawn = [model(pixels, noise=torch.randn(4, 1, generator=generator).double()).loss for _ in range(200)]
    assert torch.stack(drawn).mean() >= -evidence.mean()


@KINDS
@pytest.mark.parametrize("condition", [0, 10], ids=["", "conditional"])
def test_saved_and_loaded_it_is_the_same_to_the_bit(sizes, condition, tmp_path):
    model = made(**sizes, num_classes=condition, beta=4)
    labels = classes(6) if condition else None
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert type(loaded) is BetaVAEModel and type(AutoConfig.from_pretrained(tmp_path)) is BetaVAEConfig
    assert loaded.config.to_dict().items() >= {"beta": 4, "hidden_sizes": sizes["hidden_sizes"]}.items()
    noise = torch.zeros(6, 3)
    for one, other in zip(*(m(images(6), labels, noise).to_tuple() for m in (model, loaded)), strict=True):
        assert torch.equal(one, other)


@KINDS
def test_the_condition_reaches_encoder_and_decoder(sizes):
    model = made(**sizes, num_classes=10)
    some, other = classes(6), (classes(6) + 1) % 10
    assert not torch.equal(model.encode(images(6), some)[0], model.encode(images(6), other)[0])
    latents = torch.zeros(6, 3)
    assert not torch.equal(model.decode(latents, some), model.decode(latents, other))
    generator = torch.Generator()
    drawn = [model.sample(6, some, generator=generator.manual_seed(3)) for _ in range(2)]
    assert torch.equal(*drawn) and drawn[0].shape == (6, 1, 8, 8)
    assert drawn[0].min() >= 0 and drawn[0].max() <= 1


@KINDS
def test_hidden_states_are_those_of_the_encoder(sizes):
    model = made(**sizes)
    states = model(images(2), output_hidden_states=True).hidden_states
    expected = [(2, 1, 64), (2, 1, 32), (2, 1, 16)] if sizes is DENSE else [(2, 1, 8, 8), (2, 8, 4, 4), (2, 16, 2, 2)]
    assert [tuple(state.shape) for state in states] == expected
    assert torch.equal(states[0].flatten(), images(2).flatten())
    values = model(images(2), return_dict=False)
    assert isinstance(values, tuple) and len(values) == 7


class Rows(torch.utils.data.Dataset):
    def __init__(self, count, labelled):
        self.pixels, self.labels, self.labelled = images(count), classes(count), labelled

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, i):
        return {"pixel_values": self.pixels[i]} | ({"labels": self.labels[i]} if self.labelled else {})


def trained(model, folder, *, labelled=False, steps=60, **options):
    args = TrainingArguments(
        str(folder), max_steps=steps, per_device_train_batch_size=20, learning_rate=5e-3, use_cpu=True, report_to="none",
        disable_tqdm=True, save_strategy="no", label_names=None if labelled else [], dataloader_pin_memory=False, **options,
    )  # fmt: skip
    trainer = Trainer(model=model, args=args, train_dataset=Rows(40, labelled), eval_dataset=Rows(40, labelled))
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    return before, trainer.evaluate()["eval_loss"], trainer


@KINDS
@pytest.mark.parametrize("condition", [0, 10], ids=["", "conditional"])
def test_training_lowers_the_loss(sizes, condition, tmp_path):
    model = made(**sizes, num_classes=condition)
    before, after, trainer = trained(model, tmp_path, labelled=bool(condition))
    assert after < 0.8 * before
    trainer.save_model(tmp_path / "saved")
    noise = torch.zeros(40, 3)
    labels = classes(40) if condition else None
    loaded = AutoModel.from_pretrained(tmp_path / "saved")
    assert torch.equal(loaded(images(40), labels, noise).loss, model.eval()(images(40), labels, noise).loss)


def test_at_a_huge_beta_it_collapses(tmp_path):
    kl = {}
    for beta in (0.1, 1000):
        model = made(**DENSE, beta=beta)
        trained(model, tmp_path, steps=150)
        kl[beta] = model(images(40)).kl.item()
    assert kl[1000] < 1e-2 < 1 < kl[0.1]


@pytest.mark.parametrize(
    "options, words",
    [
        ({"latent_size": 0}, "latent_size must be at least 1, got 0"),
        ({"hidden_sizes": []}, "hidden_sizes must be one or more widths"),
        ({"architecture": "deep"}, "architecture must be 'dense' or 'convolutional', got 'deep'"),
        ({"likelihood": "poisson"}, "likelihood must be 'bernoulli' or 'gaussian'"),
        ({"hidden_act": "rulu"}, "hidden_act 'rulu'"),
        ({"beta": -1.0}, "beta must be a finite number that is not negative, got -1.0"),
        ({"beta": math.inf}, "beta must be a finite number"),
        ({"noise_std": 0.0}, "noise_std must be a finite number above 0"),
        ({"num_classes": -1}, "num_classes must be 0 (no condition) or more"),
        ({"architecture": "convolutional", "image_size": 30}, "image_size 30 cannot be halved 2 times (hidden_sizes)"),
    ],
)
def test_sizes_that_cannot_be(options, words):
    error_message(lambda: BetaVAEConfig(**options), words)


def test_inputs_that_do_not_fit():
    model, conditional = made(**DENSE), made(**DENSE, num_classes=10)
    error_message(lambda: model(torch.zeros(2, 1, 28, 28)), "pixel_values must be [B, 1, 8, 8]", "[2, 1, 28, 28]")
    error_message(lambda: model(images(2) - 0.5), "in [0, 1]", "image_mean 0", "-0.5 to 0.5", "likelihood 'gaussian'")
    error_message(lambda: conditional(images(2)), "labels must be one class [2] each", "num_classes 10", "got none")
    error_message(lambda: conditional.sample(3, classes(2)), "labels must be one class [3] each", "got [2]")
    assert made(**DENSE, likelihood="gaussian")(images(2) - 0.5).loss.isfinite()


PUSH = """
from transformers import AutoModel
from atom_hf.generation.beta_vae import BetaVAEConfig, BetaVAEModel
model = BetaVAEModel(BetaVAEConfig(image_size=8, hidden_sizes=[8], latent_size=2))
model.push_to_hub("org/vae")
loaded = AutoModel.from_pretrained("org/vae")
pairs = zip(model.state_dict().values(), loaded.state_dict().values(), strict=True)
found = [type(loaded).__name__, all(torch.equal(a, b) for a, b in pairs)]
"""


@pytest.mark.slow
def test_it_is_pushed_and_loaded_from_the_hub(hub, tmp_path):
    from helpers.hub_client import client, succeeded
    from helpers.hub_server import TOKEN

    answers = client(hub, tmp_path, {"push": {"python": PUSH, "environment": {"HF_TOKEN": TOKEN}}})
    assert succeeded(answers["push"])["found"] == ["BetaVAEModel", True]
