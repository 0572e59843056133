"""Networks that edit: their shapes, what strengths between classes are, and what they begin as."""

import pytest
import torch
from torch.nn import functional as F

from atom_hf import AtomError
from atom_hf.tasks.kinds import Kind
from atom_hf.tasks.manipulation.put import make_put


@pytest.mark.parametrize("sizes", [(1, 8, 8), (3, 7, 10), (1, 28, 28)], ids=str)
def test_an_edit_of_an_image_is_an_image(sizes):
    put = make_put("steer", Kind("pixels", sizes), 4, (4, 6))
    edited = put(torch.rand(3, *sizes), torch.eye(4)[:3])
    assert edited.shape == (3, *sizes) and edited.min() >= 0 and edited.max() <= 1


def test_a_strength_is_a_code_between_those_of_two_classes():
    put = make_put("steer", Kind("pixels", (1, 8, 8)), 3, (4, 6))
    images, hot = torch.rand(2, 1, 8, 8), torch.eye(3)
    mixed = 0.25 * hot[0] + 0.75 * hot[2]
    code = put.enc(images)
    steered = code + (0.25 * put.w.weight[:, 0] + 0.75 * put.w.weight[:, 2]).view(1, *code.shape[1:])
    torch.testing.assert_close(put(images, mixed.expand(2, 3)), put.dec(steered)[..., :8, :8])


def test_a_residual_begins_as_the_identity():
    put = make_put("residual", Kind("vector", (5,)), 2, (8,))
    vectors, target = torch.randn(4, 5), torch.eye(2)[[0, 1, 0, 1]]
    assert torch.equal(put(vectors, target), vectors)
    F.mse_loss(put(vectors, target), torch.zeros(4, 5)).backward()
    assert put.layers[-1].weight.grad.abs().sum() > 0


def test_an_editor_of_other_rows_is_refused():
    with pytest.raises(AtomError, match="--put steer does not edit vectors; give --put residual"):
        make_put("steer", Kind("vector", (5,)), 2, (8,))
    with pytest.raises(AtomError, match="--put residual does not edit images; give --put steer"):
        make_put("residual", Kind("pixels", (1, 8, 8)), 2, (8,))
    with pytest.raises(AtomError, match="--put 'nosuch' is unknown; give one of steer, residual"):
        make_put("nosuch", Kind("vector", (5,)), 2, (8,))
