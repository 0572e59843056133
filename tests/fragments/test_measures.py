"""NMI and VI of pairs, and the jackknife."""

import math

import pytest
import torch

from atom_hf.fragments.measures import jackknife, nmi_and_vi


def test_nmi_and_vi():
    shared = torch.tensor([[0.5, 0.1, 0.0]], dtype=torch.float64)
    own, other = torch.tensor([0.5], dtype=torch.float64), torch.tensor([0.5, 0.02, 0.0], dtype=torch.float64)
    nmi, vi = nmi_and_vi(shared, own, other, torch.zeros(1, 3, dtype=torch.bool))
    assert nmi.tolist() == [pytest.approx([1, 1, 0])]  # the last says nothing
    assert vi.tolist() == [pytest.approx([0, 0.32, 0.5])]
    silent = torch.tensor([[True, False, False]])
    assert nmi_and_vi(shared, own, other, silent)[0].tolist() == [pytest.approx([0, 1, 0])]


def test_nmi_of_what_is_hardly_there_does_not_underflow():
    tiny = torch.tensor([1e-200], dtype=torch.float64)
    assert nmi_and_vi(tiny.unsqueeze(0), tiny, tiny, torch.zeros(1, 1, dtype=torch.bool))[0].item() == pytest.approx(1)


def test_the_jackknife_of_a_mean_is_its_standard_error():
    values = torch.randn(12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    without = [(values.sum() - value) / 11 for value in values]
    (error,) = jackknife(12, lambda group: (without[group],), (values.mean(),))
    assert error.item() == pytest.approx((values.std() / math.sqrt(12)).item())
