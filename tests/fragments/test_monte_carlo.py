"""Monte Carlo against exact measures and numerical integration; its errors against repeats."""

import numpy as np
import pytest
import torch

from atom_hf.fragments import Channel, compare_channels
from helpers.fragments import naive_covariance, random_channels


def test_discrete_channels_are_estimated_to_their_exact_measures():
    draw = torch.Generator().manual_seed(0)
    channels = [Channel.soft((3 * torch.randn(10, k, generator=draw)).softmax(1)) for k in (3, 4)]
    channels.append(Channel.hard(torch.arange(10) % 3))
    exact, found = (compare_channels(channels, estimator=e, samples=20_000) for e in ("exact", "monte_carlo"))
    for name in ("information", "shared", "nmi", "vi"):
        error, value = getattr(found, f"{name}_error"), getattr(found, name)
        assert ((value - getattr(exact, name)).abs() <= 4 * error + 1e-12).all(), name
        assert error.max() < 0.05
    # Labels have no noise: I and S_uu are the same at every draw of a point.
    assert found.vi[2, 2] == 0 and found.nmi[2, 2] == 1 and found.nmi_error[2, 2] == 0


def integrated(channels):
    """I and S in bits by sums over a grid of messages of one dimension."""
    u = np.linspace(-12, 12, 1201)
    step = u[1] - u[0]
    densities = []
    for channel in channels:
        variance = np.array([naive_covariance(channel, i)[0, 0] for i in range(channel.points)])[:, None]
        mean = channel.mean.numpy()
        densities.append(np.exp(-((u - mean) ** 2) / variance / 2) / np.sqrt(2 * np.pi * variance))

    def of(joint, product):
        return (joint * np.log2(joint / product, where=joint > 0, out=np.zeros_like(joint))).sum()

    mixtures = [density.mean(0) for density in densities]
    information = [of(p, np.broadcast_to(p.mean(0), p.shape)) * step / len(p) for p in densities]
    shared = [
        [of(p.T @ q / len(p), np.outer(a, b)) * step**2 for q, b in zip(densities, mixtures, strict=True)]
        for p, a in zip(densities, mixtures, strict=True)
    ]
    return np.array(information), np.array(shared)


def test_gaussian_channels_are_estimated_to_their_integrals():
    channels = [random_channels(8)[name] for name in ("one dimension", "unit")]
    information, shared = integrated(channels)
    found = compare_channels(channels, estimator="monte_carlo", samples=20_000)
    assert (np.abs(found.information.numpy() - information) <= 4 * found.information_error.numpy()).all()
    assert (np.abs(found.shared.numpy() - shared) <= 4 * found.shared_error.numpy()).all()
    assert found.shared_error.max() < 0.03
    # Fingerprints are estimates of the same, and lower.
    assert (compare_channels(channels).information < found.information).all()


def test_all_kinds_can_be_drawn_from_on_either_side():
    channels = random_channels(12)
    full, shared = channels["full"], channels["shared"]
    del channels["fingerprint"]
    # A full covariance that is diagonal, and one for all points, must give what the plainer kinds give.
    diagonal = Channel.gaussian(torch.zeros(12, 2), full.mean)
    same = Channel.gaussian(torch.zeros(12, 2), covariance=torch.diag_embed(full.mean.exp()))
    each = Channel.gaussian(shared.mean, covariance=shared.covariance.expand(12, 2, 2))
    for one, other in ((diagonal, same), (shared, each)):
        values = [compare_channels([c], estimator="monte_carlo", samples=4000).information for c in (one, other)]
        torch.testing.assert_close(*values, rtol=1e-9, atol=1e-9)
    found = compare_channels(list(channels.values()), [full, shared], estimator="monte_carlo", samples=4000)
    prints = compare_channels(list(channels.values()), [full, shared], estimator="fingerprint")
    assert np.corrcoef(found.shared.flatten(), prints.shared.flatten())[0, 1] > 0.9


def test_draws_are_repeated_by_the_seed():
    channels = list(random_channels(12).values())[:2]
    one, again, other = (
        compare_channels(channels, estimator="monte_carlo", samples=500, seed=seed).shared for seed in (1, 1, 2)
    )
    assert one.equal(again) and not one.equal(other)


def test_blocks_of_draws_are_averaged_rightly(monkeypatch):
    monkeypatch.setattr("atom_hf.fragments.monte_carlo.BLOCK", 700)
    channels = [random_channels(8)[name] for name in ("one dimension", "unit")]
    information, shared = integrated(channels)
    found = compare_channels(channels, estimator="monte_carlo", samples=3000)
    assert (np.abs(found.information.numpy() - information) <= 4 * found.information_error.numpy()).all()
    assert (np.abs(found.shared.numpy() - shared) <= 4 * found.shared_error.numpy()).all()


def test_errors_are_true_deviations():
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(10, 1, generator=draw, dtype=torch.float64)
    channels = [Channel.deterministic(hidden + 0.3 * torch.randn(10, 1, generator=draw), noise=0.4) for _ in range(2)]
    found = [compare_channels(channels, estimator="monte_carlo", samples=400, seed=seed) for seed in range(200)]
    for name, place in (("information", (0,)), ("shared", (0, 1)), ("shared", (0, 0)), ("nmi", (0, 1)), ("vi", (0, 1))):
        values = torch.stack([getattr(one, name)[place] for one in found])
        errors = torch.stack([getattr(one, f"{name}_error")[place] for one in found])
        ratio = (errors.square().mean().sqrt() / values.std()).item()
        assert ratio == pytest.approx(1, abs=0.15), f"{name}{place}"


def test_an_nmi_that_cannot_be_told_has_an_infinite_error():
    nearly_silent = Channel.deterministic(torch.arange(6.0), noise=300.0)
    found = [
        compare_channels(
            [nearly_silent, Channel.hard(torch.arange(6))], estimator="monte_carlo", samples=200, seed=seed
        )
        for seed in range(10)
    ]
    below = [one for one in found if one.shared[0, 0] <= 0]
    assert below and all(one.nmi[0, 1] == 0 and one.nmi_error[0, 1] == float("inf") for one in below)
