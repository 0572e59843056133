"""Measures of channels against loops, 40-digit arithmetic and scikit-learn, and what must leave them as they are."""

import math

import mpmath
import numpy as np
import pytest
import torch
from sklearn.metrics import mutual_info_score, normalized_mutual_info_score

from atom_hf import AtomError
from atom_hf.fragments import Channel, compare_channels
from helpers.fragments import naive_measures, random_channels

PAIRS = ("shared", "nmi", "vi")
ALL = ("information", *PAIRS)


def same(one, other, names=ALL, **tolerance):
    for name in names:
        torch.testing.assert_close(
            getattr(one, name), getattr(other, name), **({"rtol": 1e-9, "atol": 1e-9} | tolerance)
        )


def compared(channels, others=None, **options):
    return compare_channels(list(channels), others, **({"estimator": "fingerprint"} | options))


# --- the definition -------------------------------------------------------------------------------------------------


def test_all_measures_are_those_of_the_loops():
    channels = list(random_channels(14).values())
    found, expected = compared(channels), naive_measures(channels, channels)
    for name in ALL:
        np.testing.assert_allclose(getattr(found, name).numpy(), expected[name], rtol=0, atol=1e-12)
    assert found.points == 14 and found.estimator == "fingerprint"
    joint = found.information.unsqueeze(1) + found.information - found.shared
    torch.testing.assert_close(found.joint, joint)


def test_others_are_the_columns():
    channels = list(random_channels(14).values())
    left, right = channels[:4], channels[3:]
    found, expected = compared(left, right), naive_measures(left, right)
    for name in ALL:
        np.testing.assert_allclose(getattr(found, name).numpy(), expected[name], rtol=0, atol=1e-12)
    torch.testing.assert_close(found.other_information, compared(right).information)


def exactly(channels, digits=40):
    """S_uu, S_vv, S_uv and I of one-dimensional Gaussians, in nats, as differences of logarithms of many digits."""
    mpmath.mp.dps = digits

    def fingerprint(channel):
        means = [mpmath.mpf(m) for m in channel.mean[:, 0].tolist()]
        variances = [mpmath.exp(mpmath.mpf(v)) for v in channel.log_variance[:, 0].tolist()]

        def entry(i, j):
            middle = (variances[i] + variances[j]) / 2
            logs = mpmath.log(middle) - (mpmath.log(variances[i]) + mpmath.log(variances[j])) / 2
            return mpmath.exp(-((means[i] - means[j]) ** 2 / middle / 8 + logs / 2))

        return [[entry(i, j) for j in range(len(means))] for i in range(len(means))]

    def mean(values):
        return mpmath.fsum(values) / len(values)

    def information(*prints):
        rows = zip(*prints, strict=True)
        return -mean([mpmath.log(mean([mpmath.fprod(b) for b in zip(*row, strict=True)])) for row in rows])

    u, v = map(fingerprint, channels)
    shared = {"uu": (u, u), "vv": (v, v), "uv": (u, v)}
    found = {name: information(a) + information(b) - information(a, b) for name, (a, b) in shared.items()}
    return found | {"information": information(u)}


@pytest.mark.parametrize("scale", [3.0, 1e-1, 6e-4])
def test_arithmetic_of_forty_digits(scale):
    draw = torch.Generator().manual_seed(1)
    shape = 12, 1
    channels = [
        Channel.gaussian(
            scale * torch.randn(shape, generator=draw, dtype=torch.float64),
            0.3 + scale * torch.randn(shape, generator=draw, dtype=torch.float64),
        )
        for _ in range(2)
    ]
    expected, found = exactly(channels), compared(channels)
    bit = float(mpmath.log(2))
    if scale < 1e-3:
        assert 1e-14 < float(expected["uu"]) / bit < 1e-12  # a collapsed channel
    for value, name in ((found.shared[0, 0], "uu"), (found.shared[1, 1], "vv"), (found.shared[0, 1], "uv")):
        assert value.item() * bit == pytest.approx(float(expected[name]), rel=1e-8, abs=1e-30)
    assert found.information[0].item() * bit == pytest.approx(float(expected["information"]), rel=1e-9)


def test_hard_labels_are_compared_as_by_scikit_learn():
    draw = torch.Generator().manual_seed(0)
    labels = torch.stack([torch.randint(0, k, (200,), generator=draw) for k in (2, 5, 9)])
    labels[2] = labels[1] * (torch.rand(200, generator=draw) < 0.8)
    channels = [Channel.hard(row - 3) for row in labels]
    for estimator in ("auto", "exact"):
        found = compare_channels(channels, estimator=estimator)
        for i in range(3):
            for j in range(3):
                one, other = labels[i].numpy(), labels[j].numpy()
                nmi = normalized_mutual_info_score(one, other, average_method="geometric")
                assert found.nmi[i, j].item() == pytest.approx(nmi, abs=1e-12)
                assert found.shared[i, j].item() == pytest.approx(
                    mutual_info_score(one, other) / math.log(2), abs=1e-12
                )
        torch.testing.assert_close(found.information, found.shared.diagonal())


def test_hard_labels_have_the_same_measures_by_fingerprint():
    draw = torch.Generator().manual_seed(0)
    channels = [Channel.hard(torch.arange(60).remainder(k)[torch.randperm(60, generator=draw)]) for k in (2, 3, 5)]
    # Of classes of equal size, H(U) is ln K by fingerprints too, and so is S_uu.
    found = compared(channels)
    torch.testing.assert_close(found.information, torch.tensor([2.0, 3.0, 5.0], dtype=torch.float64).log2())
    torch.testing.assert_close(found.shared.diagonal(), found.information)


def test_nmi_may_exceed_1_and_vi_be_negative():
    one, other = Channel.soft([[0.0, 1.0], [0.5, 0.5]]), Channel.soft([[0.5, 0.5], [0.0, 1.0]])
    exact = compare_channels([one], [other])
    assert exact.nmi.item() == pytest.approx(1.66, abs=0.005) and exact.vi.item() == pytest.approx(-0.098, abs=5e-4)
    prints = compared([one], [other])
    assert prints.nmi.item() == pytest.approx(1) and prints.vi.item() == pytest.approx(0, abs=1e-12)


def test_auto_is_exact_where_both_sides_are_discrete():
    channels = random_channels(30)
    some = [channels[name] for name in ("soft", "unit", "hard", "full")]
    auto, exact, prints = compare_channels(some), compare_channels(some[::2], estimator="exact"), compared(some)
    same(auto.take(torch.tensor([0, 2])), exact)
    for i, j in ((0, 1), (1, 2), (1, 3), (3, 3)):
        for name in PAIRS:
            assert getattr(auto, name)[i, j] == getattr(prints, name)[i, j]
    assert auto.nmi[0, 2] != pytest.approx(prints.nmi[0, 2].item(), abs=1e-3)
    torch.testing.assert_close(auto.information[[1, 3]], prints.information[[1, 3]])
    same(compare_channels(some, some[:1]), compare_channels(some[:1], some), ())
    torch.testing.assert_close(compare_channels(some, some[:1]).nmi, auto.nmi[:, :1])


# --- what changes nothing -------------------------------------------------------------------------------------------


def signs(channels):
    flip = torch.tensor([-1.0, 1.0, -1.0], dtype=torch.float64)
    return Channel.gaussian(channels["three dimensions"].mean * flip, channels["three dimensions"].log_variance)


def scaled(channels):
    scale, shift = torch.tensor([[0.1, 3.0, 50.0], [7.0, -2.0, 0.5]], dtype=torch.float64)
    old = channels["three dimensions"]
    return Channel.gaussian(old.mean * scale + shift, old.log_variance + 2 * scale.log())


def sheared(channels):
    matrix, old = torch.tensor([[2.0, 0.7], [-1.0, 0.4]], dtype=torch.float64), channels["full"]
    return Channel.gaussian(old.mean @ matrix.T + 5, covariance=_symmetric(matrix @ old.covariance @ matrix.T))


def sheared_shared(channels):
    matrix, old = torch.tensor([[2.0, 0.7], [-1.0, 0.4]], dtype=torch.float64), channels["shared"]
    return Channel.gaussian(old.mean @ matrix.T + 5, covariance=_symmetric(matrix @ old.covariance @ matrix.T))


def turned(channels):
    turn, old = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))[0], channels["space"]
    return Channel.deterministic(3 * (old.mean @ turn), noise=3 * old.noise)


def renamed(channels):
    return Channel.soft(channels["soft"].probabilities[:, [2, 0, 3, 1]])


def relabelled(channels):
    return Channel.hard(torch.tensor([7, -3, 5])[channels["hard"].labels])


def _symmetric(matrix):
    return (matrix + matrix.mT) / 2


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("three dimensions", signs),
        ("three dimensions", scaled),
        ("full", sheared),
        ("shared", sheared_shared),
        ("space", turned),
        ("soft", renamed),
        ("hard", relabelled),
    ],
)
def test_a_map_of_the_messages_changes_nothing(name, change):
    channels = random_channels(25)
    before, after = (dict(channels) for _ in range(2))
    after[name] = change(channels)
    for estimator in ("fingerprint", "auto"):
        same(*(compare_channels(list(c.values()), estimator=estimator) for c in (before, after)))


@pytest.mark.parametrize("estimator", ["fingerprint", "auto"])
def test_the_order_of_the_points_changes_nothing(estimator):
    channels, order = random_channels(25), torch.randperm(25, generator=torch.Generator().manual_seed(1))
    permuted = [channel.take(order) for channel in channels.values()]
    same(*(compare_channels(list(c), estimator=estimator) for c in (channels.values(), permuted)))


@pytest.mark.parametrize("estimator", ["fingerprint", "auto"])
def test_points_that_are_there_three_times_change_nothing(estimator):
    channels = random_channels(20)
    tripled = [channel.take(torch.arange(20).repeat(3)) for channel in channels.values()]
    same(*(compare_channels(list(c), estimator=estimator) for c in (channels.values(), tripled)))


def test_the_order_of_the_channels_changes_nothing():
    channels = list(random_channels(20).values())
    there, back = compared(channels, errors=True), compared(channels[::-1], errors=True)
    for name in (*ALL, *(f"{name}_error" for name in ALL)):
        one, other = getattr(there, name), getattr(back, name)
        torch.testing.assert_close(one, other.flip(list(range(other.dim()))))


# --- edges ----------------------------------------------------------------------------------------------------------


def edge_cases():
    draw = torch.Generator().manual_seed(0)
    noise = torch.randn(20, 1, generator=draw, dtype=torch.float64)
    return [
        Channel.gaussian(torch.zeros(20, 1), torch.zeros(20, 1)),
        Channel.gaussian(1e-9 * noise, torch.zeros(20, 1)),
        Channel.gaussian(1e9 * noise, torch.full((20, 1), -300.0)),
        Channel.gaussian(noise, 250 * noise.flip(0).clamp(-1, 1)),
        Channel.deterministic(torch.zeros(20)),
        Channel.soft(torch.full((20, 3), 1 / 3)),
        Channel.soft(torch.eye(20)),
        Channel.hard(torch.zeros(20, dtype=torch.int64)),
        Channel.hard(torch.arange(20)),
        Channel.gaussian(noise, torch.zeros(20, 1)),
    ]


@pytest.mark.parametrize("estimator", ["fingerprint", "auto", "monte_carlo"])
def test_nothing_is_ever_nan(estimator):
    found = compare_channels(edge_cases(), estimator=estimator, errors=True, chance=True, samples=500)
    for name in (*ALL, "chance", "adjusted", *(f"{name}_error" for name in ALL)):
        value = getattr(found, name)
        assert value.dtype == torch.float64 and value.device.type == "cpu" and not value.isnan().any(), name
    silent, all_apart = [0, 1, 4, 5, 7], [6, 8]
    assert found.informative.tolist() == [index not in silent for index in range(10)]
    assert found.saturated[all_apart].all() and not found.saturated[silent].any()
    if estimator != "monte_carlo":
        expected = torch.eye(10, dtype=torch.float64)[silent]
        torch.testing.assert_close(found.nmi[silent], expected, rtol=0, atol=0)
        torch.testing.assert_close(found.nmi[:, silent], expected.T, rtol=0, atol=0)
        assert (found.nmi_error[silent] == 0).all()
        own = found.shared.diagonal()
        torch.testing.assert_close(found.vi[0], own, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(found.vi.diagonal(), torch.zeros(10, dtype=torch.float64), rtol=0, atol=1e-12)
    assert (found.nmi.diagonal() == 1).all()


def test_two_points():
    channels = [
        Channel.deterministic([0.0, 1.0], noise=0.5),
        Channel.hard([0, 1]),
        Channel.deterministic([[2.0], [2.0]]),
    ]
    found = compare_channels(channels, errors=True, chance=True)
    assert not any(getattr(found, name).isnan().any() for name in (*ALL, "chance", *(f"{name}_error" for name in ALL)))
    assert found.information[1].item() == pytest.approx(1)


def test_float32_is_close():
    channels = list(random_channels(40).values())
    same(compared(channels, dtype=torch.float32), compared(channels), rtol=1e-4, atol=1e-5)


def test_float32_says_what_it_cannot_hold():
    wide = Channel.gaussian(torch.zeros(3, 1), [[-290.0], [0.0], [290.0]])
    assert compared([wide]).information.item() > 1
    with pytest.raises(AtomError, match=r"Channel\(gaussian, \[3, 1\]\) spans more than torch.float32 can hold"):
        compared([wide], dtype=torch.float32)


# --- chance and errors ----------------------------------------------------------------------------------------------


def test_chance_is_the_nmi_of_independent_channels(caplog):
    draw = torch.Generator().manual_seed(0)
    values = torch.randn(2, 200, 50, generator=draw, dtype=torch.float64)
    # Design numbers at N = 300 are 0.44 at 2.4 bits and 0.98 at 5.9 (0.73 of log2 N).
    for bits, expected in ((2.4, 0.5), (5.6, 0.98)):
        one, other = (Channel.deterministic(v, bits=bits) for v in values)
        found = compared([one, other], chance=True)
        assert found.information.tolist() == pytest.approx([bits, bits], abs=1e-6)
        assert found.nmi[0, 1].item() == pytest.approx(found.chance[0, 1].item(), abs=0.02)
        assert found.chance[0, 1].item() == pytest.approx(expected, abs=0.06)
        assert abs(found.adjusted[0, 1].item()) < 0.2 and found.adjusted[0, 0] == 1
        assert found.saturated.tolist() == [bits > 4] * 2
    assert "2 of 2 channels hold more than half of log2 N = 7.64 bits" in caplog.text
    assert "chance alone gives 2 pairs of channels an NMI above 0.5" in caplog.text
    copy = Channel.deterministic(values[0], bits=5.6)
    assert compared([one, copy], chance=True).nmi[0, 1].item() == pytest.approx(1)


def test_chance_leaves_no_room_where_all_points_are_told_apart():
    found = compare_channels([Channel.hard(torch.arange(30)), Channel.hard(torch.arange(30).flip(0))], chance=True)
    torch.testing.assert_close(found.chance, torch.ones(2, 2, dtype=torch.float64))
    assert found.adjusted is not None and not found.adjusted.isnan().any()


def test_without_chance_nothing_is_adjusted():
    found = compared(list(random_channels(10).values())[:2])
    assert (
        found.chance is None and found.adjusted is None and found.nmi_error is None and found.information_error is None
    )


@pytest.mark.parametrize("estimator", ["fingerprint", "exact"])
def test_the_jackknife_leaves_out_groups_of_points(estimator):
    names = ("unit", "three dimensions", "full", "soft") if estimator == "fingerprint" else ("soft", "hard")
    channels = [random_channels(23)[name] for name in names]
    found = compare_channels(channels, estimator=estimator, errors=True, seed=5)
    order = torch.randperm(23, generator=torch.Generator().manual_seed(5))
    groups = order.tensor_split(10)
    without = [
        compare_channels(
            [channel.take(torch.cat([g for g in groups if g is not group])) for channel in channels],
            estimator=estimator,
        )
        for group in groups
    ]
    for name in ALL:
        replicates = torch.stack([getattr(one, name) for one in without])
        error = (9 / 10 * (replicates - replicates.mean(0)).square().sum(0)).sqrt()
        torch.testing.assert_close(getattr(found, f"{name}_error"), error, rtol=1e-6, atol=1e-9)
    columns = compare_channels(channels, channels[:2], estimator=estimator, errors=True, seed=5)
    torch.testing.assert_close(columns.vi_error, found.vi_error[:, :2], rtol=1e-6, atol=1e-9)


def population(points, draw):
    """Two noisy views of a hidden number, of points drawn anew."""
    hidden = torch.randn(points, 1, generator=draw, dtype=torch.float64)
    views = hidden + 0.5 * torch.randn(points, 2, generator=draw, dtype=torch.float64)
    return [Channel.deterministic(view, noise=0.6) for view in views.T]


@pytest.mark.parametrize(
    ("points", "repeats", "tolerance"),
    [
        (50, 60, 0.3),
        pytest.param(30, 400, 0.15, marks=pytest.mark.slow),
        pytest.param(300, 400, 0.15, marks=pytest.mark.slow),
    ],
)
def test_jackknife_errors_are_true_deviations(points, repeats, tolerance):
    draw = torch.Generator().manual_seed(0)
    found = [compared(population(points, draw), errors=True) for _ in range(repeats)]
    # Of 60 repeats, a deviation is known to 9 %, of 400 to 4 %; the jackknife is within 10 % of it.
    for name, place in (("information", (0,)), ("shared", (0, 1)), ("nmi", (0, 1)), ("vi", (0, 1))):
        values = torch.stack([getattr(one, name)[place] for one in found])
        errors = torch.stack([getattr(one, f"{name}_error")[place] for one in found])
        ratio = errors.square().mean().sqrt() / values.std()
        assert 1 - tolerance < ratio < 1 + tolerance, f"{name}: {ratio}"


# --- bad input ------------------------------------------------------------------------------------------------------


def test_bad_input():
    channel = Channel.deterministic(torch.arange(5.0), name="a")
    shorter = Channel.deterministic(torch.arange(4.0), name="b")
    for channels, others, options, message in (
        ([], None, {}, "channels must be one or more of Channel, got none"),
        ([torch.zeros(3)], None, {}, "channels must be one or more of Channel, got Tensor"),
        (
            [channel, shorter],
            None,
            {},
            "channels must be of the same data points; Channel(deterministic, [5, 1], name='a') has 5 and "
            "Channel(deterministic, [4, 1], name='b') 4",
        ),
        ([channel], [shorter], {}, "channels must be of the same data points"),
        (
            [channel],
            None,
            {"estimator": "knn"},
            "estimator must be one of auto, fingerprint, monte_carlo, exact; got 'knn'",
        ),
        (
            [channel],
            None,
            {"estimator": "exact"},
            "estimator 'exact' needs soft or hard channels, got Channel(deterministic",
        ),
        (
            [Channel.from_fingerprint(torch.zeros(5, 5))],
            None,
            {"estimator": "monte_carlo"},
            "estimator 'monte_carlo' cannot draw from Channel(fingerprint, [5, 5]); use 'fingerprint'",
        ),
        ([channel], None, {"samples": 1}, "samples must be a whole number of at least 2; got 1"),
        ([channel], None, {"seed": -1}, "seed must be a whole number of at least 0; got -1"),
        ([channel], None, {"dtype": torch.float16}, "dtype must be torch.float64 or torch.float32, got torch.float16"),
    ):
        with pytest.raises(AtomError) as error:
            compare_channels(channels, others, **options)
        assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_points_must_be_the_same_and_in_the_same_order():
    values, ids = torch.arange(4.0), ["p", "q", "r", "s"]
    channels = [
        Channel.deterministic(values, ids=ids, name="a"),
        Channel.deterministic(values, name="without"),
        Channel.deterministic(values, ids=["p", "r", "q", "s"], name="b"),
    ]
    compare_channels(channels[:2])
    with pytest.raises(AtomError, match=r"in the same order; point 1 is 'q' in .*name='a'.* and 'r' in .*name='b'"):
        compare_channels(channels)
