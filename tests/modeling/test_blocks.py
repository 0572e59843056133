"""Blocks of diffusers models: found by structure, and what they give as tokens."""

import pytest
import torch
from torch import nn

from atom_hf import AtomConfig, attach_atoms
from atom_hf.modeling.blocks import block_names, cells, find_block, reading_block, width_of_block
from helpers.denoisers import DENOISERS, denoiser, inputs_for
from helpers.error_messages import error_message

FOUND = {
    "unet": (["down_blocks.0", "down_blocks.1", "up_blocks.0", "up_blocks.1", "mid_block"], "down_blocks.0", 8),
    "unet-text": (["down_blocks.0", "down_blocks.1", "up_blocks.0", "up_blocks.1", "mid_block"], "down_blocks.0", 8),
    "unet-video": (None, "down_blocks.0", 8),
    "unet-signal": (["down_blocks.0", "down_blocks.1", "up_blocks.0", "mid_block"], "down_blocks.0", 8),
    "dit": ([f"transformer_blocks.{number}" for number in range(4)], "transformer_blocks.0", 16),
    "sd3": ([f"transformer_blocks.{number}" for number in range(3)], "transformer_blocks.0", 16),
}
CELLS = {"unet": 16, "unet-text": 16, "unet-video": 3 * 16, "unet-signal": 8, "dit": 16, "sd3": 16}


@pytest.mark.parametrize("name", DENOISERS)
def test_the_block_at_a_quarter_of_the_depth_is_found_with_its_width(name):
    model = denoiser(name)
    names, block, width = FOUND[name]
    assert names is None or block_names(model) == names
    assert find_block(model, None) == block and width_of_block(model, block) == width


def test_a_quarter_of_the_depth():
    sizes = dict(num_layers=12, sample_size=8, patch_size=2)
    assert find_block(denoiser("dit", **sizes), None) == "transformer_blocks.2"


@pytest.mark.parametrize("name", DENOISERS)
def test_tokens_are_the_cells_that_the_block_gives(name):
    model, inputs = denoiser(name).eval(), inputs_for(name)
    block = model.get_submodule(FOUND[name][1])
    seen = []
    block.register_forward_hook(lambda module, given, result: seen.append(result))
    with reading_block(model, FOUND[name][1]) as calls:
        model(**inputs)
    tokens = cells(model, FOUND[name][1], calls, 4)
    assert tokens.shape == (4, CELLS[name], FOUND[name][2])
    if name == "sd3":  # text, then image: 5 and 16 tokens
        assert torch.equal(tokens, seen[0][1])
    elif name == "dit":
        assert torch.equal(tokens, seen[0])
    else:
        result = seen[0][0]
        for sample in range(4):
            frames = range(3) if name == "unet-video" else [None]
            maps = [result[sample] if frame is None else result[3 * sample + frame] for frame in frames]
            naive = [one[(slice(None), *place)] for one in maps for place in _places(one.shape[1:])]
            assert torch.equal(tokens[sample], torch.stack(naive))


def _places(shape):
    return (
        [(i,) for i in range(shape[0])]
        if len(shape) == 1
        else [(i, j) for i in range(shape[0]) for j in range(shape[1])]
    )


def test_trying_a_model_computes_nothing_and_leaves_it_as_it_was():
    model = denoiser("unet")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    assert width_of_block(model, "up_blocks.1") == 8 and width_of_block(model, "mid_block") == 16
    assert model.training and not model.down_blocks[0]._forward_hooks and torch.equal(torch.get_rng_state(), state)
    assert all(
        torch.equal(value, before[name]) and value.device.type == "cpu" for name, value in model.state_dict().items()
    )


def test_models_and_blocks_that_do_not_fit():
    unet = denoiser("unet")
    error_message(
        lambda: find_block(unet, "blocks.7"), "block 'blocks.7' does not exist in UNet2DModel", "down_blocks.0"
    )
    error_message(lambda: find_block(nn.Linear(2, 2), None), "Linear has no blocks", "AtomConfig(block=...)")
    error_message(lambda: width_of_block(unet, "time_embedding"), "'time_embedding'", "gives [2, 32]", "another block")
    error_message(lambda: width_of_block(unet, "down_blocks"), "'down_blocks'", "did not run")
    error_message(lambda: attach_atoms(unet, AtomConfig(block="nowhere")), "does not exist")
    for block in ("", 3, ["x"]):
        error_message(lambda block=block: AtomConfig(block=block), "block must be the name of a module")


def test_a_model_whose_inputs_are_not_described_asks_for_the_width():
    model = denoiser("unet")
    model.register_to_config(in_channels=3)  # not what its first layer takes
    error_message(lambda: width_of_block(model, "mid_block"), "hidden_size=...", "UNet2DModel")
    given = attach_atoms(model, AtomConfig(block="mid_block", hidden_size=16))
    assert given(**inputs_for("unet")).atoms.shape == (4, 19)
