"""The loss of a denoiser, against the formulas written out."""

import pytest
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler

from atom_hf import AtomConfig, attach_atoms
from atom_hf.generation.objective import DenoisingObjective
from atom_hf.modeling.unwrap import inner_model
from helpers.denoisers import denoiser
from helpers.error_messages import error_message
from helpers.models import digits

IMAGES = torch.stack([2 * torch.from_numpy(image)[None] for image, _ in digits(60)[:6]])


def drawn():
    """The noise and the steps that a forward pass draws first."""
    torch.manual_seed(3)
    noise, steps = torch.randn_like(IMAGES), torch.randint(1000, (len(IMAGES),))
    torch.manual_seed(3)
    return noise, steps


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_ddpm(kind):
    unet = denoiser("unet")
    noise, steps = drawn()
    found = DenoisingObjective(unet, DDPMScheduler(prediction_type=kind)).train()(IMAGES)["loss"]
    total = 0.0
    for image, one, step in zip(IMAGES, noise, steps, strict=True):
        left = torch.prod(1 - torch.linspace(1e-4, 0.02, 1000)[: step + 1])  # the share of the variance of the image
        noisy = left.sqrt() * image + (1 - left).sqrt() * one
        velocity = left.sqrt() * one - (1 - left).sqrt() * image
        target = {"epsilon": one, "sample": image, "v_prediction": velocity}[kind]
        total += (unet(noisy[None], step).sample[0] - target).square().mean() / len(IMAGES)
    assert found.item() == pytest.approx(total.item(), rel=1e-4)


def test_flow_matching():
    unet = denoiser("unet")
    noise, steps = drawn()
    found = DenoisingObjective(unet, FlowMatchEulerDiscreteScheduler()).train()(IMAGES)["loss"]
    total = 0.0
    for image, one, step in zip(IMAGES, noise, steps, strict=True):
        sigma = (1000 - step) / 1000
        noisy = (1 - sigma) * image + sigma * one
        total += (unet(noisy[None], 1000 * sigma).sample[0] - (one - image)).square().mean() / len(IMAGES)
    assert found.item() == pytest.approx(total.item(), rel=1e-4)


def test_in_evaluation_the_noise_depends_on_the_batch_alone():
    objective = DenoisingObjective(denoiser("unet"), DDPMScheduler()).eval()
    torch.manual_seed(0)
    first, state = objective(IMAGES)["loss"], torch.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(objective(IMAGES)["loss"], first) and not torch.equal(objective(IMAGES.flip(0))["loss"], first)
    torch.manual_seed(0)
    assert torch.equal(torch.get_rng_state(), state)  # nothing was drawn from it
    objective.train()
    assert not torch.equal(objective(IMAGES)["loss"], objective(IMAGES)["loss"])


def test_classes_reach_a_conditional_denoiser():
    objective = DenoisingObjective(denoiser("dit"), DDPMScheduler()).eval()
    for block in objective.denoiser.transformer_blocks:  # at the start a DiT is the same for all classes
        torch.nn.init.normal_(block.norm1.linear.weight, std=0.2)
    zeros = torch.zeros(6, dtype=torch.long)
    losses = [objective(IMAGES, labels)["loss"].item() for labels in (zeros, zeros + 3)]
    assert losses[0] != losses[1]


def test_atoms_are_attached_to_the_denoiser():
    objective = DenoisingObjective(denoiser("unet"), DDPMScheduler()).train()
    attach_atoms(objective, AtomConfig(block="mid_block"))
    assert inner_model(objective) is objective.denoiser and objective.denoiser.atom_config.block == "mid_block"
    assert objective(IMAGES)["atoms"].shape == (6, 19) and set(objective.eval()(IMAGES)) == {"loss"}


def test_a_scheduler_that_adds_no_noise():
    error_message(
        lambda: DenoisingObjective(denoiser("unet"), torch.nn.Identity()), "scheduler: a Identity adds no noise"
    )
