"""docs/generation.md: its loop is short, trains, and saves a plain pipeline."""

import diffusers
import torch
from torch.utils.data import DataLoader

from atom_hf import load_atom_model
from helpers.documents import python_with, run_python
from helpers.models import digits

LOOP = python_with("docs/generation.md", "Accelerator")


def test_the_loop_is_short():
    assert LOOP.count("\n") <= 25


def test_the_loop_trains_and_saves_a_plain_pipeline(own_folder):
    torch.manual_seed(0)
    images = [2 * torch.from_numpy(image)[None] for image, _ in digits(60)] * 4
    names = run_python(LOOP, "docs/generation.md", loader=DataLoader(images, batch_size=16, shuffle=True))
    assert names["loss"] < 0.7  # of noise alone it is 1
    heads = names["model"].atom_heads
    assert (
        all(parameter.grad is None for parameter in heads.parameters())
        and names["optimizer"].state[heads.position.weight]
    )
    pipeline = diffusers.DDPMPipeline.from_pretrained("out")
    assert type(pipeline.unet) is diffusers.UNet2DModel
    inputs = {"sample": torch.stack(images[:4]), "timestep": torch.tensor([5, 100, 500, 900])}
    loaded = load_atom_model("out/unet")
    assert torch.equal(loaded(**inputs).sample, pipeline.unet(**inputs).sample)
    assert torch.equal(loaded.atom_heads.position.weight, heads.position.weight)
