"""What a comparison says of itself."""

import torch

from atom_hf.fragments import Comparison


def comparison(nmi, chance=None, information=(1.0, 1.0), points=16):
    information, nmi = torch.tensor(information, dtype=torch.float64), torch.tensor(nmi, dtype=torch.float64)
    chance = None if chance is None else torch.tensor(chance, dtype=torch.float64)
    shared = torch.full_like(nmi, 0.25)
    return Comparison(information, shared, nmi, 2 - 2 * shared, information, points, "auto", chance=chance)


def test_informative_and_saturated():
    found = comparison(torch.eye(3).tolist(), information=(0.0099, 0.01, 2.1))
    assert found.informative.tolist() == [False, True, True]
    assert found.saturated.tolist() == [False, False, True]  # half of log2 16 is 2


def test_adjusted_by_chance():
    found = comparison(
        [[1.0, 0.7, 0.4], [0.7, 1.0, 1.3], [0.4, 1.3, 1.0]], [[1, 0.4, 0.4], [0.4, 1, 0.1], [0.4, 0.1, 1]]
    )
    expected = torch.tensor([[1, 0.5, 0], [0.5, 1, 1.2 / 0.9], [0, 1.2 / 0.9, 1]], dtype=torch.float64)
    torch.testing.assert_close(found.adjusted, expected)


def test_chance_of_1_leaves_nothing_to_say():
    found = comparison([[1.0, 0.9], [0.9, 1.0]], [[1.0, 1.0], [1.0, 1.0]])
    assert found.adjusted.tolist() == [[1, 0], [0, 1]]


def test_joint_information_and_parts():
    found = comparison(torch.eye(3).tolist(), information=(1.0, 2.0, 4.0))
    assert found.joint[0].tolist() == [1.75, 2.75, 4.75]
    part = found.take(torch.tensor([2, 0]))
    assert part.information.tolist() == [4, 1] and part.joint.tolist() == [[7.75, 4.75], [4.75, 1.75]]
    assert part.points == 16 and part.nmi_error is None
