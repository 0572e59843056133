"""Streamed sums: nothing as large as a fingerprint is held, and no blocking changes them."""

import pytest
import torch
from torch.overrides import TorchFunctionMode

from atom_hf.fragments import Channel, compare_channels, fingerprint, streaming
from helpers.fragments import random_channels

NAMES = ("information", "shared", "nmi", "vi", "information_error", "shared_error", "nmi_error", "vi_error")


class Largest(TorchFunctionMode):
    """The most numbers that a tensor had which an operation gave."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        given = function(*args, **(kwargs or {}))
        if isinstance(given, torch.Tensor):
            self.numbers = max(self.numbers, given.numel())
        return given


@pytest.mark.parametrize("errors", [False, True])
def test_no_fingerprint_is_ever_whole(errors):
    points, draw = 270, torch.Generator().manual_seed(0)
    values = torch.randn(6, points, generator=draw)
    channels = [Channel.gaussian(v, v.flip(0)) for v in values[:3]] + [Channel.deterministic(v) for v in values[3:]]
    channels.append(Channel.deterministic(torch.randn(points, 50, generator=draw), noise=5.0))
    with Largest() as largest:
        compare_channels(channels, errors=errors)
    assert len(channels) * points <= largest.numbers <= fingerprint.BLOCK["cpu"] < points**2


@pytest.mark.parametrize("others", [False, True])
@pytest.mark.parametrize("errors", [False, True])
def test_blocks_change_nothing(monkeypatch, errors, others):
    channels = list(random_channels(17).values())
    arguments = (channels[:7], channels[2:]) if others else (channels,)
    whole = compare_channels(*arguments, estimator="fingerprint", errors=errors)
    monkeypatch.setitem(fingerprint.BLOCK, "cpu", 600)  # three rows, and few channels of a wide kind, at a time
    monkeypatch.setitem(streaming.PAIRS, "cpu", 3)
    monkeypatch.setattr(streaming, "SUMS", 50 * (11 if errors else 1))  # panels of five or six
    parts = compare_channels(*arguments, estimator="fingerprint", errors=errors)
    for name in NAMES[: 8 if errors else 4]:
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name), rtol=1e-12, atol=1e-13)


def test_progress_is_shown_where_it_takes_long(monkeypatch, capsys):
    channels = list(random_channels(17).values())
    compare_channels(channels)
    assert "comparing" not in capsys.readouterr().err
    monkeypatch.setattr(streaming, "LONG", 10)
    compare_channels(channels)
    assert "comparing" in capsys.readouterr().err


def test_products_are_of_full_precision_and_the_setting_is_left_as_it_was():
    torch.set_float32_matmul_precision("high")
    try:
        compare_channels(list(random_channels(5).values()), dtype=torch.float32)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
