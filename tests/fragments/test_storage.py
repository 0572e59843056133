"""Channels that are kept in a file: the same when read again, and read anew where something has changed."""

import pytest
import torch

from atom_hf.fragments import Channel
from atom_hf.fragments.storage import load_channels, save_channels, settings_of

IDS = [f"{n}:ab" for n in range(6)]
ABOUT = {"run": "one", "ids": IDS}
VALUES = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
KINDS = {
    "deterministic": [
        Channel.deterministic(VALUES[:, :1], noise=0.3, name="a", **ABOUT),
        Channel.deterministic(VALUES[:, 1:], noise=0.5, name="b", **ABOUT),
    ],
    "gaussian": [Channel.gaussian(VALUES, VALUES.abs(), name="c", **ABOUT)],
    "soft": [Channel.soft(VALUES.softmax(1), name="d", **ABOUT)],
}


@pytest.mark.parametrize("kind", KINDS)
def test_they_come_back_to_the_bit(kind, tmp_path):
    path = save_channels(tmp_path / "deep" / "0.npz", KINDS[kind], "settings")
    loaded = load_channels(path, "settings")
    assert len(loaded) == len(KINDS[kind])
    for one, other in zip(KINDS[kind], loaded, strict=True):
        assert (one.kind, one.name, one.run, one.ids, one.noise) == (
            other.kind,
            other.name,
            other.run,
            other.ids,
            other.noise,
        )
        for part in ("mean", "log_variance", "probabilities"):
            a, b = getattr(one, part), getattr(other, part)
            assert (a is None and b is None) or torch.allclose(a, b, rtol=1e-15, atol=0)


def test_what_does_not_fit_is_read_anew(tmp_path):
    path = save_channels(tmp_path / "0.npz", KINDS["soft"], "settings")
    assert load_channels(path, "others") is None and load_channels(tmp_path / "1.npz", "settings") is None
    path.write_bytes(path.read_bytes()[:100])
    assert load_channels(path, "settings") is None
    path.write_text("no archive", encoding="utf-8")
    assert load_channels(path, "settings") is None


def test_settings_know_the_files_of_a_model(tmp_path):
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    before = settings_of(str(tmp_path), kind="units")
    assert before == settings_of(str(tmp_path), kind="units") != settings_of(str(tmp_path), kind="space")
    (tmp_path / "config.json").write_text("{ }", encoding="utf-8")
    assert settings_of(str(tmp_path), kind="units") != before
    assert settings_of("org/model", kind="units") == settings_of("org/model", kind="units")
