"""Channels: what they are made from, and what cannot be one."""

import math

import numpy as np
import pytest
import torch

from atom_hf import AtomError
from atom_hf.fragments import Channel, bhattacharyya_distance, compare_channels
from helpers.fragments import random_channels


def test_lists_arrays_and_tensors_of_any_precision_are_kept_in_float64():
    values = [[0.1, 1e-60], [0.2, 0.3]]
    for given in (values, np.array(values), torch.tensor(values, dtype=torch.float64, requires_grad=True)):
        mean = Channel.deterministic(given, noise=1.0).mean
        assert mean.dtype == torch.float64 and not mean.requires_grad and mean.tolist() == values
    half = Channel.gaussian(torch.ones(3, 2, dtype=torch.bfloat16), np.zeros((3, 2), dtype=np.float32))
    assert half.mean.dtype == half.log_variance.dtype == torch.float64


def test_one_number_a_point_is_one_dimension():
    assert Channel.deterministic([1.0, 2.0], noise=1).mean.shape == (2, 1)
    assert Channel.gaussian([1.0, 2.0], [0.0, 0.0]).log_variance.shape == (2, 1)


def test_labels_are_any_whole_numbers():
    channel = Channel.hard(np.array([10, -2, 10, 7], dtype=np.int32))
    assert channel.labels.tolist() == [2, 0, 2, 1] and channel.is_discrete
    assert Channel.hard([True, False]).labels.tolist() == [1, 0]


def test_probabilities_are_divided_by_their_sum():
    channel = Channel.soft([[0.50004, 0.5], [0.0, 1.0]])
    torch.testing.assert_close(channel.probabilities.sum(1), torch.ones(2, dtype=torch.float64), rtol=0, atol=1e-15)


def test_a_channel_says_what_it_is():
    channel = Channel.soft(torch.full((4, 3), 1 / 3), name="classes", run="seed-1", ids=range(4))
    assert repr(channel) == "Channel(soft, [4, 3], name='classes', run='seed-1')"
    assert channel.ids == ("0", "1", "2", "3") and channel.points == 4


@pytest.mark.parametrize("name", random_channels(2))
def test_taking_points_takes_their_part_of_the_fingerprint(name):
    channel, points = random_channels(9)[name], torch.tensor([4, 0, 7])
    some = channel.take(points)
    whole = bhattacharyya_distance(channel)[points][:, points]
    torch.testing.assert_close(bhattacharyya_distance(some), whole, rtol=1e-9, atol=1e-12)


def test_deterministic_values_hold_the_bits_that_are_wanted():
    values = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    for options, bits in (({}, 1.0), ({"bits": 0.3}, 0.3), ({"bits": 4}, 4.0)):
        channel = Channel.deterministic(values, **options)
        assert compare_channels([channel]).information.item() == pytest.approx(bits, abs=1e-7)
    # Half of log2 N where that is below 1.
    assert compare_channels([Channel.deterministic(values[:3])]).information.item() == pytest.approx(math.log2(3) / 2)


def test_quantiles_do_not_change_under_increasing_maps():
    values = torch.randn(50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    channels = [Channel.deterministic(v, quantile=True) for v in (values, values.exp() + 3, values**3)]
    for channel in channels[1:]:
        torch.testing.assert_close(channel.mean, channels[0].mean, rtol=0, atol=0)
        assert channel.noise == channels[0].noise
    other = Channel.deterministic(torch.randn(50, 3), quantile=True)
    assert other.noise == channels[0].noise
    assert compare_channels(channels).information.tolist() == pytest.approx([1.0] * 3, abs=1e-7)
    assert Channel.deterministic(values, quantile=True, noise=0.7).noise == 0.7


def test_ties_share_a_quantile_and_hold_less():
    values = torch.tensor([0.0] * 40 + [1.0] * 10)
    channel = Channel.deterministic(values, quantile=True)
    assert len(channel.mean.unique()) == 2
    entropy = -(0.8 * math.log2(0.8) + 0.2 * math.log2(0.2))
    assert compare_channels([channel]).information.item() < entropy


FLAT = torch.zeros(3, 2)

BAD = [
    (lambda: Channel.gaussian(FLAT), "a gaussian channel takes either log_variance or covariance, got neither"),
    (
        lambda: Channel.gaussian(FLAT, FLAT, covariance=torch.eye(2)),
        "takes either log_variance or covariance, got both",
    ),
    (lambda: Channel.gaussian(FLAT, FLAT[:2]), "log_variance must have the shape of mean, (3, 2); got (2, 2)"),
    (lambda: Channel.gaussian(FLAT, FLAT + 301), "log_variance must be from -300 to 300"),
    (lambda: Channel.gaussian(FLAT[None], FLAT), "mean must be [N, d], a row for each data point; got (1, 3, 2)"),
    (lambda: Channel.gaussian(FLAT[:, :0], FLAT), "mean must be [N, d], a row for each data point; got (3, 0)"),
    (lambda: Channel.gaussian(FLAT / 0, FLAT), "mean must be finite numbers, got 6 that are NaN or infinite"),
    (lambda: Channel.gaussian(FLAT, FLAT - math.inf), "log_variance must be finite numbers, got 6"),
    (lambda: Channel.gaussian(FLAT[:1], FLAT[:1]), "a channel needs at least 2 data points, got 1"),
    (lambda: Channel.gaussian(FLAT, FLAT, ids=["a"]), "ids must name each of the 3 data points, got 1"),
    (lambda: Channel.gaussian("text", FLAT), "mean must be a tensor, an array or nested lists of numbers"),
    (lambda: Channel.gaussian([[1.0], [2.0, 3.0]], FLAT), "mean must be a tensor, an array or nested lists of numbers"),
    (lambda: Channel.gaussian(FLAT + 1j, FLAT), "mean must be real numbers, got torch.complex64"),
    (lambda: Channel.gaussian(FLAT, covariance=torch.eye(3)), "covariance must be [3, 2, 2] or [2, 2], got (3, 3)"),
    (lambda: Channel.gaussian(FLAT, covariance=-torch.eye(2)), "covariance must be positive definite; the one is not"),
    (
        lambda: Channel.gaussian(FLAT, covariance=torch.stack([torch.eye(2), torch.ones(2, 2), torch.eye(2)])),
        "covariance must be positive definite; the one of point 1 is not",
    ),
    (lambda: Channel.gaussian(FLAT, covariance=torch.tensor([[1.0, 0.5], [0, 1]])), "covariance must be symmetric"),
    (lambda: Channel.deterministic(FLAT, noise=0), "noise must be a finite number above 0, got 0"),
    (lambda: Channel.deterministic(FLAT, noise=-1.0), "noise must be a finite number above 0, got -1.0"),
    (lambda: Channel.deterministic(FLAT, noise=math.nan), "noise must be a finite number above 0, got nan"),
    (lambda: Channel.deterministic(FLAT, noise=1, bits=1), "takes either noise or bits, got noise=1 and bits=1"),
    (lambda: Channel.deterministic(FLAT, bits=math.log2(3)), "bits must be above 0 and below log2 N = 1.585"),
    (lambda: Channel.deterministic(FLAT, bits=0), "bits must be above 0 and below log2 N = 1.585"),
    (lambda: Channel.deterministic(FLAT, bits=math.nan), "bits must be above 0 and below log2 N = 1.585"),
    (lambda: Channel.soft([[0.5, 0.5], [0.5, 0.6]]), "must sum to 1 (to 0.0001); those of point 1 sum to 1.1"),
    (lambda: Channel.soft([[1.5, -0.5], [0.5, 0.5]]), "probabilities must not be negative, got -0.5"),
    (lambda: Channel.hard([0.0, 1.0]), "labels must be whole numbers [N], got torch.float64 (2,)"),
    (lambda: Channel.hard([[0], [1]]), "labels must be whole numbers [N], got torch.int64 (2, 1)"),
    (lambda: Channel.hard([1]), "a channel needs at least 2 data points, got 1"),
    (lambda: Channel.hard(["a", "b"]), "labels must be a tensor, an array or nested lists of numbers"),
    (lambda: Channel.from_fingerprint(FLAT), "difference must be [N, N], got (3, 2)"),
    (
        lambda: Channel.from_fingerprint(torch.ones(2, 2)),
        "difference must be B - 1: from -1 to 0, and 0 on the diagonal",
    ),
    (lambda: Channel.from_fingerprint([[0, -0.5], [-0.4, 0]]), "difference must be symmetric"),
]


@pytest.mark.parametrize(("make", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_input(make, message):
    with np.errstate(all="ignore"), pytest.raises(AtomError) as error:
        make()
    assert message in str(error.value) and "\n" not in str(error.value)
