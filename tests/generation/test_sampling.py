"""Samples: those of diffusers' own loop; their grid; samples that are not numbers."""

import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, FlowMatchEulerDiscreteScheduler
from PIL import Image

from atom_hf.generation.sampling import BACKGROUND, GAP, image_grid, sample_images, write_grid
from helpers.denoisers import denoiser
from helpers.error_messages import error_message

SCHEDULERS = {"ddpm": DDPMScheduler, "flow": FlowMatchEulerDiscreteScheduler}


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_samples_are_those_of_the_pipeline(kind):
    unet, scheduler = denoiser("unet").eval(), SCHEDULERS[kind]()
    before = scheduler.timesteps.clone()
    found = sample_images(unet, scheduler, 5, steps=4, seed=11)
    assert torch.equal(scheduler.timesteps, before)
    pipeline = DDPMPipeline(unet, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(11 + number) for number in range(5)]
    expected = pipeline(5, generators, num_inference_steps=4, output_type="pt").images
    assert torch.equal(found, expected) and found.std() > 0.1


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_a_sample_does_not_depend_on_the_batch_size(kind):
    unet, scheduler = denoiser("unet"), SCHEDULERS[kind]()
    together = sample_images(unet, scheduler, 5, steps=4)
    apart = sample_images(unet, scheduler, 5, steps=4, batch_size=2)
    assert torch.allclose(together, apart, atol=1e-5) and unet.training
    assert torch.allclose(sample_images(unet, scheduler, 2, steps=4, seed=3), together[3:], atol=1e-5)


def test_a_transformer_is_given_a_time_for_each_sample():
    dit, scheduler = denoiser("dit"), FlowMatchEulerDiscreteScheduler()
    found = sample_images(dit, scheduler, 3, steps=2, labels=[0, 1, 0], batch_size=2)
    shape = (1, dit.config.in_channels, dit.config.sample_size, dit.config.sample_size)
    value = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    scheduler.set_timesteps(2)
    with torch.no_grad():
        for time in scheduler.timesteps:
            predicted = dit.eval()(value, time[None], class_labels=torch.tensor([0])).sample
            value = scheduler.step(predicted, time, value).prev_sample
    assert torch.allclose(found[2], (value[0] / 2 + 0.5).clamp(0, 1), atol=1e-5) and found.std() > 0.1


def test_classes_change_samples():
    unet = denoiser("unet", num_class_embeds=3)
    torch.nn.init.normal_(unet.class_embedding.weight, std=3.0)
    zero, two = (sample_images(unet, DDPMScheduler(), 2, steps=4, labels=[label] * 2) for label in (0, 2))
    assert not torch.allclose(zero, two, atol=1e-3)
    both = sample_images(unet, DDPMScheduler(), 2, steps=4, labels=[0, 2])
    assert torch.allclose(both, torch.stack([zero[0], two[1]]), atol=1e-5)


def test_samples_that_are_not_numbers_are_rejected():
    unet = denoiser("unet")
    with torch.no_grad():
        unet.conv_out.bias.fill_(float("nan"))
    error_message(
        lambda: sample_images(unet, DDPMScheduler(), 3, steps=2), "3 of 3 samples", "NaN", "number 0", "diverged"
    )


def test_the_grid_shows_each_sample_in_its_place(tmp_path):
    images = torch.rand(5, 3, 40, 50, generator=torch.Generator().manual_seed(0))
    sheet = np.asarray(image_grid(images))  # 3 columns, 2 rows, twice as large
    assert sheet.shape == (2 * (80 + GAP) + GAP, 3 * (100 + GAP) + GAP, 3)
    for number, image in enumerate(images):
        for y, x in ((0, 0), (79, 99), (31, 70)):
            place = GAP + number // 3 * (80 + GAP) + y, GAP + number % 3 * (100 + GAP) + x
            assert np.abs(sheet[place] / 255.0 - image[:, y // 2, x // 2].numpy()).max() < 0.003
    assert (sheet[-80:, -100:] == BACKGROUND).all()  # no sixth
    grey = np.asarray(image_grid(images[:, :1], columns=5))
    assert grey.shape[:2] == (80 + 2 * GAP, 5 * (100 + GAP) + GAP) and (grey[..., 0] == grey[..., 2]).all()
    with Image.open(write_grid(images, tmp_path / "grid.png")) as image:
        assert (np.asarray(image) == sheet).all()
