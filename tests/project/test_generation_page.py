"""docs/generation.md: its loop is short, trains, and saves a plain pipeline."""

import diffusers
import pytest
import torch
from torch.utils.data import DataLoader

from atom_hf import load_atom_model
from helpers.commands import command
from helpers.documents import commands, python_with, run_python
from helpers.models import digits

SMALL = '{"block_out_channels": [8, 16], "layers_per_block": 1, "norm_num_groups": 4}'
BRIEF = {
    "train": ["--max_steps", "2", "--max_eval_samples", "8", "--use_cpu", "--config_overrides", SMALL],
    "sample": ["--steps", "2"],
}
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


def test_the_commands_run(own_folder, monkeypatch):
    monkeypatch.setattr("atom_hf.generation.run.SHOWN_STEPS", 2)
    for line in commands("docs/generation.md"):
        if line.startswith("atom-hf "):
            arguments = line.split()[1:]
            status, _, err = command([*arguments, *BRIEF[arguments[0]]])
            assert status in (0, None), err


@pytest.mark.filterwarnings("ignore:.*pin_memory")
def test_the_gan_runs(own_folder):
    from transformers import AutoModel

    rows = [{"pixel_values": 2 * torch.from_numpy(image)[None]} for image, _ in digits(60)]
    names = run_python(python_with("docs/generation.md", "GANModel"), "docs/generation.md", rows=rows)
    loaded = AutoModel.from_pretrained("gan").state_dict()
    assert names["images"].shape == (16, 1, 8, 8)
    assert all(torch.equal(value, names["model"].state_dict()[name]) for name, value in loaded.items())


def test_the_measures_run():
    names = run_python(python_with("docs/generation.md", "fidelity"), "docs/generation.md")
    assert names["fidelity"](names["real"], names["generated"]).precision > 0.5
