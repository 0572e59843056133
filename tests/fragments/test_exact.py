"""Exact measures against the definition of mutual information, in loops."""

import math

import pytest
import torch

from atom_hf.fragments import Channel, compare_channels, exact


def entropy(values):
    return -sum(v * math.log2(v) for v in values if v > 0)


def mutual_information(p, q):
    """Of the table p'q/N, in bits."""
    table = [
        [sum(a[k] * b[m] for a, b in zip(p, q, strict=True)) / len(p) for m in range(len(q[0]))]
        for k in range(len(p[0]))
    ]
    rows, columns = (entropy(sum(line) for line in lines) for lines in (table, zip(*table, strict=True)))
    return rows + columns - entropy(value for line in table for value in line)


@pytest.fixture(scope="module")
def channels():
    draw = torch.Generator().manual_seed(0)
    soft = [Channel.soft((2 * torch.randn(20, k, generator=draw, dtype=torch.float64)).softmax(1)) for k in (2, 5, 3)]
    sparse = torch.tensor([[0.0, 0.5, 0.5], [1.0, 0.0, 0.0]], dtype=torch.float64).repeat(10, 1)
    return [*soft, Channel.soft(sparse), Channel.hard(torch.randint(0, 4, (20,), generator=draw))]


def rows(channel):
    if channel.kind == "soft":
        return channel.probabilities.tolist()
    return [[float(label == k) for k in range(4)] for label in channel.labels]


def test_measures_are_those_of_the_table(channels):
    found = compare_channels(channels)
    for i, one in enumerate(channels):
        p = rows(one)
        mean = [sum(column) / 20 for column in zip(*p, strict=True)]
        information = entropy(mean) - sum(map(entropy, p)) / 20
        assert found.information[i].item() == pytest.approx(information, abs=1e-12)
        for j, other in enumerate(channels):
            assert found.shared[i, j].item() == pytest.approx(mutual_information(p, rows(other)), abs=1e-12)
    own = found.shared.diagonal()
    torch.testing.assert_close(found.nmi, found.shared / torch.outer(own, own).sqrt())
    torch.testing.assert_close(found.vi, own.unsqueeze(1) + own - 2 * found.shared, rtol=1e-9, atol=1e-12)


def test_blocks_of_columns_change_nothing(channels, monkeypatch):
    whole = compare_channels(channels, channels[1:])
    for columns in (1, 4, 8):
        monkeypatch.setattr(exact, "COLUMNS", columns)
        parts = compare_channels(channels, channels[1:])
        torch.testing.assert_close(parts.shared, whole.shared, rtol=1e-12, atol=1e-14)


def test_probabilities_that_hardly_differ_keep_their_digits():
    # S_uu of p = 1/2 +- e is ln 2 - H_2(1/2 + 2 e^2) = 8 e^4 nats and a little more.
    small = 1e-3
    channel = Channel.soft([[0.5 + small, 0.5 - small], [0.5 - small, 0.5 + small]])
    found = compare_channels([channel])
    assert found.shared.item() == pytest.approx(8 * small**4 / math.log(2), rel=1e-5)
    assert found.information.item() == pytest.approx(2 * small**2 / math.log(2), rel=1e-5)
