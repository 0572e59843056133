"""What is important to a classifier and what an edit changes, where both are known."""

import pytest
import torch
from torch import nn
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from atom_hf.tasks.manipulation.agreement import (
    edit_agreement,
    fitted_importance,
    occlusion,
    patch_changes,
    patch_side,
)
from atom_hf.tasks.manipulation.evaluation import Edits
from atom_hf.tasks.manipulation.rows import LabelledRows
from helpers.explained import fitted, with_heads
from helpers.models import tiny


class Corner(nn.Module):
    """Class 1 where the upper left quarter is light."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(9.0))

    def forward(self, pixels):
        light = self.weight * (pixels[:, 0, :4, :4].mean((1, 2)) - 0.5)
        return torch.stack([-light, light], 1)


@pytest.fixture(scope="module")
def rows():
    pixels = 0.2 * torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    pixels[::2, :, :4, :4] += 0.7
    return LabelledRows(pixels, torch.tensor([1, 0] * 3))


def test_sides_of_patches():
    assert [patch_side(*sides) for sides in ((8, 8), (28, 28), (12, 8), (13, 13), (64, 64))] == [2, 4, 2, 13, 16]


def test_what_is_hidden_is_what_loops_hide(rows):
    module, fill = Corner(), torch.full((1, 8, 8), 0.5)
    found = occlusion(module, rows.floats, rows.labels, 4, fill)
    assert found.shape == (6, 4)
    for row in range(6):
        whole = module(rows.floats[row : row + 1]).softmax(1)[0, rows.labels[row]]
        for number, (top, left) in enumerate(((0, 0), (0, 4), (4, 0), (4, 4))):
            hidden = rows.floats[row : row + 1].clone()
            hidden[:, :, top : top + 4, left : left + 4] = 0.5
            drop = whole - module(hidden).softmax(1)[0, rows.labels[row]]
            assert found[row, number].item() == pytest.approx(drop.item(), abs=1e-6)
    assert (found[:, 0] > 0.2).all() and found[:, 1:].abs().max() < 1e-6


def test_a_fitted_importance_is_read_where_there_is_one(tmp_path, few_steps):
    model = with_heads("vit")
    fitted(model, "vit", samples=16)
    model.save_pretrained(tmp_path)
    processor = ViTImageProcessorPil(do_resize=False, image_mean=[0.5], image_std=[1.0])
    processor.save_pretrained(tmp_path)
    pixels = LabelledRows((torch.rand(3, 1, 8, 8) * 255).to(torch.uint8), torch.arange(3))
    found = fitted_importance(str(tmp_path), pixels, 2)
    assert found.shape == (3, 16)
    expected = model.eval().atom_importance(pixel_values=pixels.floats - 0.5)
    torch.testing.assert_close(found, expected[:, -16:].detach(), rtol=1e-4, atol=1e-5)
    tiny("vit").save_pretrained(tmp_path / "plain")
    assert fitted_importance(str(tmp_path / "plain"), pixels, 2) is None


def test_the_share_is_1_for_what_matters_0_for_what_does_not(rows):
    def edited(place):
        values = rows.floats.clone()
        values[(..., *place)] = 1 - values[(..., *place)]
        return Edits(torch.arange(6), 1 - rows.labels, values)

    corner, other = (slice(0, 4), slice(0, 4)), (slice(4, 8), slice(4, 8))
    found = edit_agreement(Corner(), rows, edited(corner), rows)
    assert (found["agreement"], found["chance"], found["patches"], found["top"]) == (1.0, 0.25, 16, 4)
    assert edit_agreement(Corner(), rows, edited(other), rows)["agreement"] == 0
    changes = patch_changes(rows.floats, edited(corner).values, 4)
    assert changes[:, 0].min() > 0.3 and changes[:, 1:].max() == 0
