"""The GAN: its losses written out, each player's gradient, saving, and configurations that do not fit."""

import copy

import pytest
import torch
from transformers import AutoModel

from atom_hf import AtomConfig, attach_atoms, load_atom_model
from atom_hf.generation.gan import GANModel, mode_seeking_loss
from helpers.error_messages import error_message
from helpers.gans import IMAGES, KINDS, gan, images_for


@pytest.mark.parametrize("name", KINDS)
def test_each_player_has_the_gradient_of_its_own_loss(name):
    model, images = gan(name), images_for(name)
    noise = model.draw_noise(6)
    outputs = model(images, noise)
    outputs.loss.backward()
    found = {key: value.grad for key, value in model.named_parameters()}

    other = gan(name)
    judge = other.discriminator
    fake = other.generator(noise)[0]
    fooling = -judge(fake).sigmoid().log().mean()
    real = images.clone().requires_grad_()
    logits = judge(real)
    telling = -(logits.sigmoid().log() + (1 - judge(fake).sigmoid()).log()).mean()
    slopes = torch.stack([torch.autograd.grad(logit, real, create_graph=True)[0][i] for i, logit in enumerate(logits)])
    penalty = 3.0 / 2 * (slopes**2).sum() / 6
    assert outputs.generator_loss.item() == pytest.approx(fooling.item(), rel=1e-4)
    assert outputs.discriminator_loss.item() == pytest.approx(telling.item(), rel=1e-4)
    assert outputs.penalty.item() == pytest.approx(penalty.item(), rel=1e-4) and penalty > 0
    for part, loss in (("generator", fooling), ("discriminator", telling + penalty)):
        parameters = {key: value for key, value in other.named_parameters() if key.startswith(part)}
        gradients = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True, allow_unused=True)
        for key, gradient in zip(parameters, gradients, strict=True):
            assert gradient is None or torch.allclose(found[key], gradient, rtol=1e-3, atol=1e-6), key


@pytest.mark.parametrize("name", KINDS)
def test_it_saves_and_loads_and_samples(name, tmp_path):
    model = gan(name).eval()
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert type(loaded) is GANModel and loaded.config.to_dict() == AutoModel.from_pretrained(tmp_path).config.to_dict()
    first, second = (one.sample(3, torch.Generator().manual_seed(1)) for one in (model, loaded))
    assert torch.equal(first, second) and first.shape == (3, *images_for(name).shape[1:])
    assert (first.abs().max() <= 1) == (name != "points") or name == "points"


@pytest.mark.parametrize("name", KINDS)
def test_the_energy_reads_the_hidden_states_of_the_generator(name, tmp_path):
    model, images = attach_atoms(gan(name), AtomConfig(weighting="absolute")), images_for(name)
    noise = model.draw_noise(6)
    outputs = model(images, noise, output_hidden_states=True)
    _, states = model.generator(noise)
    assert len(outputs.hidden_states) == 3
    assert all(torch.equal(*pair) for pair in zip(outputs.hidden_states, states, strict=True))
    assert outputs.atoms.shape == (6, 12 + 3)  # the first layer, 12 wide
    outputs.atoms.sum().backward()
    reached = {
        key.split(".")[0] for key, value in model.named_parameters() if value.grad is not None and value.grad.any()
    }
    assert reached == {"generator", "atom_heads"}
    model.save_pretrained(tmp_path)
    again = load_atom_model(tmp_path, AutoModel)
    assert torch.equal(
        again.atom_importance(pixel_values=images, noise=noise), model.atom_importance(pixel_values=images, noise=noise)
    )


@pytest.mark.parametrize("name", ["convolutional", "points"])
def test_mode_seeking_is_part_of_the_generators_loss(name):
    model, images = gan(name, mode_seeking=0.5), images_for(name)
    noise = model.draw_noise(5)  # the fifth has no partner
    outputs = model(images[:5], noise)
    outputs.loss.backward()
    found = {key: value.grad for key, value in model.named_parameters()}

    plain = gan(name)
    loss = plain(images[:5], noise).loss
    samples = plain.generator(noise)[0]
    moved = [(samples[i] - samples[i + 2]).abs().flatten() for i in range(2)]
    apart = [(noise[i] - noise[i + 2]).abs() for i in range(2)]
    ratio = torch.cat(moved).sum() / torch.cat(moved).numel() / (torch.cat(apart).sum() / 10)
    assert outputs.mode_seeking.item() == pytest.approx((1 / (ratio + 1e-5)).item(), rel=1e-4)
    (loss + 0.5 / (ratio + 1e-5)).backward()
    for key, value in plain.named_parameters():
        assert torch.allclose(found[key], value.grad, rtol=1e-3, atol=1e-6), key
    assert model.eval()(images).mode_seeking > 0
    with torch.no_grad():
        assert model(images).mode_seeking == 0
    one = mode_seeking_loss(noise[:1], samples[:1])
    assert one == 0 and one.requires_grad


def test_in_evaluation_there_is_no_penalty():
    model = gan().eval()
    with torch.no_grad():
        outputs = model(IMAGES)
    assert outputs.penalty == 0 and outputs.loss == outputs.generator_loss + outputs.discriminator_loss
    assert gan(gradient_penalty=0)(IMAGES).penalty == 0


def test_what_does_not_fit():
    error_message(lambda: gan(image_size=6), "image_size 6 cannot be halved 2 times", "multiple of 4")
    error_message(lambda: gan(latent_size=0), "latent_size must be at least 1")
    error_message(lambda: gan(hidden_sizes=[]), "hidden_sizes")
    error_message(lambda: gan(architecture="round"), "architecture must be 'dense' or 'convolutional'")
    error_message(lambda: gan(hidden_act="none"), "hidden_act 'none'")
    error_message(lambda: gan(gradient_penalty=-1), "gradient_penalty")
    error_message(lambda: gan(mode_seeking=float("nan")), "mode_seeking must be a finite number")
    error_message(lambda: gan(discriminator={"model_type": "bert"}), "discriminator: 'bert'", "no image classifier")
    error_message(lambda: gan(discriminator={"model_type": "nothing"}), "discriminator: 'nothing'")
    error_message(lambda: gan()(IMAGES[:, :, :4]), "pixel_values must be [B, 1, 8, 8]", "[6, 1, 4, 8]")
    broken = copy.deepcopy(gan())
    with torch.no_grad():
        broken.generator.last.bias.fill_(float("nan"))
    error_message(lambda: broken(IMAGES), "the losses of generator and discriminator are nan", "diverged")
