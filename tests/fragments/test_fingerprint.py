"""Fingerprints against the integral that defines them, and against their formulas in loops."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from atom_hf.fragments import Channel, bhattacharyya_distance
from atom_hf.fragments.fingerprint import Fingerprints
from helpers.fragments import naive_covariance, naive_distance, random_channels

NAMES = list(random_channels(2))


@pytest.mark.parametrize("name", NAMES)
def test_the_distance_is_that_of_the_loops(name):
    channel = random_channels(12)[name]
    expected = [[naive_distance(channel, i, j) for j in range(12)] for i in range(12)]
    distance = bhattacharyya_distance(channel)
    assert distance.dtype == torch.float64 and not distance.isnan().any()
    np.testing.assert_allclose(distance.numpy(), expected, rtol=1e-9, atol=1e-12)


def overlap(channel, i, j):
    """The integral of sqrt(p(u|x_i) p(u|x_j)) over messages of one or two dimensions, by quadrature."""
    one, other = (
        stats.multivariate_normal(channel.mean[point].numpy(), naive_covariance(channel, point)) for point in (i, j)
    )
    reach, points = 12.0, 601
    axes = np.meshgrid(*[np.linspace(-reach, reach, points)] * channel.mean.shape[1], indexing="ij")
    u = np.stack(axes, -1)
    return np.sqrt(one.pdf(u) * other.pdf(u)).sum() * (2 * reach / (points - 1)) ** channel.mean.shape[1]


@pytest.mark.parametrize("name", ["one dimension", "unit", "full", "shared"])
def test_a_fingerprint_is_the_integral_over_messages(name):
    channel = random_channels(4)[name]
    rows = Fingerprints([channel], device="cpu").rows(0, 4)[:, 0]
    for i, j in ((0, 1), (1, 2), (2, 3)):
        assert 1 + rows[i, j].item() == pytest.approx(overlap(channel, i, j), abs=1e-6)


def test_one_dimension_by_adaptive_quadrature():
    channel = Channel.gaussian([[0.3], [-1.1]], [[0.4], [-1.7]])
    one, other = (
        stats.norm(float(m), math.exp(v / 2))
        for m, v in zip(channel.mean[:, 0], channel.log_variance[:, 0], strict=True)
    )
    value, _ = integrate.quad(lambda u: math.sqrt(one.pdf(u) * other.pdf(u)), -20, 20, epsabs=1e-13, points=[-1, 0])
    assert math.exp(-bhattacharyya_distance(channel)[0, 1]) == pytest.approx(value, abs=1e-10)


def test_concatenating_independent_channels_multiplies_their_fingerprints():
    one, other = random_channels(9)["one dimension"], random_channels(9)["three dimensions"]
    both = Channel.gaussian(torch.cat([one.mean, other.mean], 1), torch.cat([one.log_variance, other.log_variance], 1))
    torch.testing.assert_close(
        bhattacharyya_distance(both), bhattacharyya_distance(one) + bhattacharyya_distance(other)
    )


def test_a_diagonal_covariance_is_a_full_one_too():
    diagonal = random_channels(9)["three dimensions"]
    full = Channel.gaussian(diagonal.mean, covariance=torch.diag_embed(diagonal.log_variance.exp()))
    torch.testing.assert_close(bhattacharyya_distance(full), bhattacharyya_distance(diagonal))


def test_rows_of_channels_of_all_kinds_are_those_of_each_alone():
    channels = list(random_channels(9).values())
    together = Fingerprints(channels, device="cpu")
    rows = together.rows(2, 7)
    assert sorted(together.order) == list(range(len(channels)))
    for place, index in enumerate(together.order):
        alone = Fingerprints([channels[index]], device="cpu").rows(2, 7)[:, 0]
        torch.testing.assert_close(rows[:, place], alone, rtol=0, atol=0)


def test_far_and_near_points_keep_their_digits():
    # Nearly equal points: B itself would be 1. Far points: B itself would be 0.
    channel = Channel.deterministic([0.0, 1e-9, 1e3], noise=1.0)
    distance = bhattacharyya_distance(channel)
    assert distance[0, 1].item() == pytest.approx(1e-18 / 8, rel=1e-12)
    assert distance[0, 2].item() == pytest.approx(1e6 / 8, rel=1e-12)
    # Of equal means, D = 1/2 ln cosh(x/2) with x the difference of the log variances.
    spread = bhattacharyya_distance(Channel.gaussian(torch.zeros(3, 1), [[0.0], [1e-8], [300.0]]))
    assert spread[0, 1].item() == pytest.approx(1e-16 / 16, rel=1e-7)
    assert spread[0, 2].item() == pytest.approx((150 - math.log(2)) / 2, rel=1e-12)


def test_soft_clusters_that_share_almost_nothing_have_a_finite_distance():
    channel = Channel.soft([[1.0, 0.0, 1e-60], [0.0, 1.0, 1e-60], [0.0, 1.0, 0.0]])
    distance = bhattacharyya_distance(channel)
    assert distance[0, 1].item() == pytest.approx(-math.log(1e-60), rel=1e-12)
    assert distance[0, 2].item() == math.inf
