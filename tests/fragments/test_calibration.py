"""The noise at which values hold the wanted bits."""

import math

import pytest
import torch
from scipy import stats

from atom_hf import AtomError
from atom_hf.fragments.calibration import calibrate_noise, noise_information, normal_scores, score_noise


def naive_information(values, noise):
    rows = ((torch.exp(-(a - b).square().sum() / (8 * noise**2)).item() for b in values) for a in values)
    return -sum(math.log2(sum(row) / len(values)) for row in rows) / len(values)


@pytest.mark.parametrize("dimensions", [1, 3])
def test_information_is_that_of_the_loops_and_falls_with_noise(dimensions):
    values = torch.randn(15, dimensions, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noises = [0.05, 0.2, 0.7, 3.0, 50.0]
    found = [noise_information(values, noise) for noise in noises]
    assert found == pytest.approx([naive_information(values, noise) for noise in noises], abs=1e-12)
    assert found == sorted(found, reverse=True)


@pytest.mark.parametrize("bits", [1e-4, 0.5, 1.0, 3.0, 6.2])
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e9])
def test_the_noise_is_the_one_that_is_wanted(bits, scale):
    values = 5 * scale + scale * torch.randn(80, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert noise_information(values, calibrate_noise(values, bits)) == pytest.approx(bits, abs=1e-7)


def test_an_outlier_does_not_hide_the_rest():
    values = torch.randn(80, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values[0] = 1e6
    assert noise_information(values, calibrate_noise(values, 2.0)) == pytest.approx(2.0, abs=1e-7)


def test_blocks_of_rows_change_nothing(monkeypatch):
    values = torch.randn(30, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole = noise_information(values, 0.5)
    monkeypatch.setattr("atom_hf.fragments.calibration._BLOCK", 100)
    assert noise_information(values, 0.5) == pytest.approx(whole, abs=1e-14)


def test_ties_hold_all_but_a_thousandth_of_what_they_can():
    values = torch.tensor([0.0] * 25 + [1.0] * 25, dtype=torch.float64).unsqueeze(1)
    for bits in (1.0, 3.0):  # two values tell 1 bit at most
        assert noise_information(values, calibrate_noise(values, bits)) == pytest.approx(0.999, abs=1e-6)
    assert calibrate_noise(torch.ones(10, 2, dtype=torch.float64), 1.0) == 1.0


def test_normal_scores():
    values = torch.tensor([[3.0, 0.0], [-1.0, 0.0], [8.0, 5.0], [3.5, -2.0]], dtype=torch.float64)
    first, second = normal_scores(values).T.tolist()
    assert first == pytest.approx(stats.norm.ppf([0.375, 0.125, 0.875, 0.625]))
    assert second == pytest.approx(stats.norm.ppf([0.5, 0.5, 0.875, 0.125]))
    noise = score_noise(40, 1.5)
    scores = normal_scores(torch.arange(40.0).unsqueeze(1))
    assert noise_information(scores, noise) == pytest.approx(1.5, abs=1e-7)


@pytest.mark.parametrize("bits", [0, -1, math.log2(10), math.inf, math.nan])
def test_bits_that_no_points_can_hold(bits):
    with pytest.raises(
        AtomError, match=r"bits must be above 0 and below log2 N = 3\.322, the most that N = 10 data points"
    ):
        calibrate_noise(torch.arange(10.0).unsqueeze(1), bits)
