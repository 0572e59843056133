"""What a manipulator is compared with: of equal size, trained alike, and compared at an equal judge."""

import pytest
import torch

from atom_hf.generation.beta_vae import BetaVAEModel
from atom_hf.tasks.manipulation.baselines import (
    at_equal_judge,
    mean_difference_editor,
    same_size_vae,
    train_vae,
    vae_editor,
)
from atom_hf.tasks.manipulation.rows import LabelledRows
from helpers.manipulators import digit_rows, small


@pytest.mark.parametrize("parameters", [20_000, 300_000])
@pytest.mark.parametrize("sizes", [(1, 8, 8), (3, 10, 10)], ids=str)
def test_a_vae_has_about_as_many_parameters(sizes, parameters):
    config = same_size_vae(parameters, sizes, 10, 1.0)
    count = sum(parameter.numel() for parameter in BetaVAEModel(config).parameters())
    assert count == pytest.approx(parameters, rel=0.05)
    assert config.architecture == ("convolutional" if sizes[1] == 8 else "dense")


def test_a_vae_edits_what_its_own_class_keeps(tmp_path):
    train, _, test = digit_rows()
    model = train_vae(
        same_size_vae(20_000, (1, 8, 8), 10, 0.3), train, small(tmp_path, max_steps=250).with_rate("pixels")
    )
    edit, some = vae_editor(model), test.draw(100)
    kept = edit(some.floats, some.labels, some.labels)
    moved = edit(some.floats, some.labels, (some.labels + 1) % 10)
    assert (kept - some.floats).square().mean() < 0.85 * (moved - some.floats).square().mean()
    mean, _ = model.encode(some.floats, some.labels)
    assert torch.equal(moved, model.decode(mean, (some.labels + 1) % 10).detach())


def test_the_mean_difference():
    rows = LabelledRows(torch.tensor([[0.0, 1], [2, 3], [10, 0], [20, 0]]), torch.tensor([0, 0, 1, 1]))
    edit = mean_difference_editor(rows, 2)
    found = edit(torch.tensor([[1.0, 1.0]]), torch.tensor([0]), torch.tensor([1]), 0.5)
    assert found.tolist() == [[8.0, 0.0]]


def test_an_equal_judge_lies_between_two_betas():
    measured = {
        beta: {"judge": judge, "identity": judge / 2, "undo": 1.0, "move": beta, "energy": 0.0}
        for beta, judge in ((1.0, 0.8), (2.0, 1.0), (0.5, 0.6))
    }
    found = at_equal_judge(measured, 0.85)
    assert found["judge"] == pytest.approx(0.85) and found["identity"] == pytest.approx(0.425)
    assert found["move"] == pytest.approx(1.25)
    assert at_equal_judge(measured, 0.5) is None and at_equal_judge({}, 0.5) is None
