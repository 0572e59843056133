"""The energy against its definition, and the facts that the mathematics promises."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atom_hf import AtomError, Atoms, atomic_energy
from atom_hf.atoms.energy import pair_means
from helpers.naive import naive_energy, to_lists
from helpers.placed_atoms import assert_same, batches, energy_and_gradients, random_atoms, random_batch, slope

# --- the definition -------------------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None, derandomize=True)
@given(batches())
def test_the_closed_form_is_the_double_sum_over_tokens(batch):
    q, p, mask, softening, token_reduction = batch
    rows = None if mask is None else mask.tolist()
    expected, size = naive_energy(q.tolist(), p.tolist(), rows, softening=softening, token_reduction=token_reduction)
    energy = atomic_energy(q, p, mask, softening=softening, token_reduction=token_reduction)
    assert energy.dtype == torch.float64 and energy.shape == ()
    # Like and opposite charges cancel: what is left carries the rounding of the whole sum, hundreds of terms of 1e-16.
    assert abs(energy.item() - expected) <= 1e-9 * abs(expected) + 1e-13 * size


CASES = {
    "plain": {"shape": (3, 3, 2)},
    "softened": {"shape": (3, 3, 2), "softening": 0.3},
    "masked": {"shape": (4, 4, 3), "mask": True},
    "masked, softened, mean": {"shape": (4, 4, 3), "mask": True, "softening": 0.1, "token_reduction": "mean"},
    "one token each": {"shape": (3, 1, 3), "token_reduction": "mean"},
    "a sample without tokens": {"shape": (3, 3, 2), "mask": True, "empty": 1},
    "one sign": {"shape": (3, 2, 2), "sign": -1},
    "equal atoms": {"shape": (3, 2, 2), "softening": 0.5, "equal": True},
}


def case(name):
    options = dict(CASES[name])
    q, p, mask = random_batch(7, options.pop("shape"), mask=options.pop("mask", False))
    if "empty" in options:
        mask[options.pop("empty")] = False
    if "sign" in options:
        q = q.abs() * options.pop("sign")
    if options.pop("equal", False):
        q[1], p[1] = q[0], p[0]
    return q, p, mask, options


@pytest.mark.parametrize("name", CASES)
def test_gradcheck(name):
    q, p, mask, options = case(name)
    q.requires_grad_(), p.requires_grad_()
    assert torch.autograd.gradcheck(lambda q, p: atomic_energy(q, p, mask, **options), (q, p))


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_the_double_sum(name):
    q, p, mask, options = case(name)
    _, *gradients = energy_and_gradients(q, p, mask, **options)
    q.requires_grad_(), p.requires_grad_()
    rows = None if mask is None else mask.tolist()
    energy, _ = naive_energy(to_lists(q), to_lists(p), rows, **options)
    for ours, expected in zip(gradients, torch.autograd.grad(energy, (q, p)), strict=True):
        assert expected.abs().max() > 1e-3
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-13)


def test_the_documented_parts_of_an_atom():
    q, p, mask = random_batch(3, (3, 5, 4), mask=True)
    sums, means = Atoms.from_tokens(q, p, mask), Atoms.from_tokens(q, p, mask, token_reduction="mean")
    for a in range(3):
        charges, positions = q[a][mask[a]], p[a][mask[a]]
        n = len(charges)
        weight = 1 - (-charges).clamp(min=0)
        center = (weight.unsqueeze(1) * positions).sum(0) / n
        radius = ((1 - weight) * (positions - center).norm(dim=1)).sum() / n
        for atoms, divisor in ((sums, 1), (means, n)):
            torch.testing.assert_close(atoms.positive[a], charges[charges > 0].sum() / divisor)
            torch.testing.assert_close(atoms.negative[a], -charges[charges < 0].sum() / divisor)
            torch.testing.assert_close(atoms.center[a], center)
            torch.testing.assert_close(atoms.radius[a], radius)


def test_the_logged_distance_is_the_mean_over_pairs_and_detached():
    atoms = random_atoms(2, 4, 3)
    center = atoms.center.requires_grad_()
    distance = pair_means(atoms._replace(center=center)).distance
    assert not distance.requires_grad
    expected = [(center[a] - center[b]).norm() for a in range(4) for b in range(4) if a != b]
    torch.testing.assert_close(distance, torch.stack(expected).mean().detach())


# --- facts ----------------------------------------------------------------------------------------------------------


def test_like_minus_opposite_is_the_product_of_the_net_charges():
    q, p, mask = random_batch(1, (2, 6, 3), mask=True)
    # At one distance for all token pairs, which radii of 0 give, the energy is (like - opposite) / D.
    atoms = Atoms.from_tokens(q, p, mask)
    energy, distance = pair_means(atoms._replace(radius=torch.zeros(2, dtype=torch.float64)))
    net = (q * mask).sum(1)
    torch.testing.assert_close(energy * distance, net[0] * net[1], rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("charges", "radii"),
    [
        (((2.0, 0.5), (0.3, 1.5)), (0.7, 1.9)),
        (((0.9, 0.05), (0.2, 0.21)), (2.0, 0.0)),
        (((5.0, 1.0), (1.0, 4.0)), (0.1, 0.1)),
    ],
)
def test_the_rest_distance_is_a_minimum(charges, radii):
    (za, ya), (zb, yb) = charges
    like, opposite = za * zb + ya * yb, za * yb + ya * zb
    assert opposite > like
    rest = sum(radii) / 2 / ((opposite / like) ** 0.5 - 1)
    at_rest, derivative = slope(rest, charges, radii)
    assert abs(derivative) <= 1e-12 * like / rest**2
    for factor in (1e-3, 0.5, 0.99, 1.01, 2, 1e3):
        energy, derivative = slope(rest * factor, charges, radii)
        assert energy > at_rest
        assert derivative * (factor - 1) > 0, "the force points to the rest distance"


@pytest.mark.parametrize(
    "charges", [((1.0, 1.0), (2.0, 2.0)), ((1.0, 0.2), (0.7, 0.1)), ((1.0, 0.0), (0.4, 0.0)), ((0.1, 1.0), (0.3, 0.6))]
)
def test_other_pairs_repel_at_every_distance(charges):
    energies, slopes = zip(*(slope(10.0**k, charges, (0.5, 1.5)) for k in range(-6, 5)), strict=True)
    assert list(energies) == sorted(energies, reverse=True)
    assert all(s < 0 for s in slopes)


def test_neutral_pairs_hardly_feel_each_other_from_afar():
    charges, radii = ((1.0, 1.0), (2.0, 2.0)), (0.5, 1.5)
    energy, _ = slope(1e4, charges, radii)
    like, radius = 4.0, 1.0
    assert energy == pytest.approx(like * radius / 1e4**2, rel=1e-3)


INVARIANCES = settings(max_examples=50, deadline=None, derandomize=True)
SEEDS = st.integers(0, 2**20)


@INVARIANCES
@given(SEEDS, st.sampled_from([0.0, 0.1]))
def test_permuting_tokens_and_samples_changes_nothing(seed, softening):
    q, p, mask = random_batch(seed, (4, 5, 3), mask=True)
    energy = atomic_energy(q, p, mask, softening=softening)
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.stack([torch.randperm(5, generator=generator) for _ in range(4)])
    rows = torch.randperm(4, generator=generator)
    index = tokens.unsqueeze(-1).expand(-1, -1, 3)
    q, p, mask = q.gather(1, tokens)[rows], p.gather(1, index)[rows], mask.gather(1, tokens)[rows]
    assert_same(atomic_energy(q, p, mask, softening=softening), energy)


@INVARIANCES
@given(SEEDS, st.sampled_from([0.0, float("nan"), float("inf"), -float("inf")]), st.sampled_from(["sum", "mean"]))
def test_padding_is_never_read(seed, filler, token_reduction):
    q, p, mask = random_batch(seed, (3, 4, 3), mask=True)
    energy, dq, dp = energy_and_gradients(q, p, mask, token_reduction=token_reduction)
    wide_q = torch.nn.functional.pad(q.masked_fill(~mask, filler), (2, 3), value=filler)
    wide_p = torch.nn.functional.pad(p.masked_fill(~mask.unsqueeze(-1), filler), (0, 0, 2, 3), value=filler)
    wide_mask = torch.nn.functional.pad(mask, (2, 3))
    padded, wide_dq, wide_dp = energy_and_gradients(wide_q, wide_p, wide_mask, token_reduction=token_reduction)
    assert_same(padded, energy)
    assert_same(wide_dq, torch.nn.functional.pad(dq, (2, 3)))
    assert_same(wide_dp, torch.nn.functional.pad(dp, (0, 0, 2, 3)))
    assert (wide_dq[~wide_mask] == 0).all() and (wide_dp[~wide_mask] == 0).all()


@INVARIANCES
@given(SEEDS, st.sampled_from([0.0, 0.1]))
def test_turning_all_positions_together_changes_nothing(seed, softening):
    q, p, mask = random_batch(seed, (4, 5, 3), mask=True)
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))
    assert_same(atomic_energy(q, p @ turn, mask, softening=softening), atomic_energy(q, p, mask, softening=softening))


@INVARIANCES
@given(SEEDS, st.floats(0.01, 100))
def test_scaling_positions_divides_the_energy(seed, c):
    q, p, mask = random_batch(seed, (4, 5, 3), mask=True)
    assert_same(atomic_energy(q, c * p, mask) * c, atomic_energy(q, p, mask))
    # Softening is in the units of the positions, so it scales with them.
    assert_same(atomic_energy(q, c * p, mask, softening=0.1 * c) * c, atomic_energy(q, p, mask, softening=0.1))


@INVARIANCES
@given(SEEDS)
def test_a_common_shift_moves_centres_by_their_nuclear_weight(seed):
    q, p, mask = random_batch(seed, (4, 5, 3), mask=True)
    q[0], q[1] = q[0].abs(), -q[1].abs()  # so that mean nuclear weights differ
    shift = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    before, after = atomic_energy(q, p, mask), atomic_energy(q, p + shift, mask)
    assert abs(after - before) > 1e-6 * abs(before)
    # Where every charge is positive all weights are 1, all centres move alike, and nothing changes.
    assert_same(atomic_energy(q.abs(), p + shift, mask), atomic_energy(q.abs(), p, mask))


def test_the_other_reading_of_the_signs_is_unbounded_below():
    q = torch.tensor([[0.9, -0.6, 0.4], [-0.8, 0.7, 0.3]], dtype=torch.float64)
    _, start, _ = random_batch(5, (2, 3, 3))

    def energies(printed_signs):
        """The energy while the centres come from 1 to 1e-6 of each other, the radii staying what they are."""
        # Each reading has its own nuclear weights, and a centre moves by the shift of its tokens times their mean.
        weight = 1 - (q if printed_signs else -q).clamp(min=0)
        center = (weight.unsqueeze(-1) * start).mean(1)
        values = []
        for distance in (10.0**-k for k in range(7)):
            p = start.clone()
            p[1] += (center[0] + distance * torch.tensor([0.0, 0.6, 0.8]) - center[1]) / weight[1].mean()
            energy, _ = naive_energy(q.tolist(), p.tolist(), printed_signs=printed_signs)
            if not printed_signs:
                assert atomic_energy(q, p).item() == pytest.approx(energy, rel=1e-9)
            values.append(energy)
        return values

    printed, ours = energies(True), energies(False)
    assert printed == sorted(printed, reverse=True) and printed[-1] < -1e5
    assert ours == sorted(ours) and ours[-1] > 1e5


# --- errors ---------------------------------------------------------------------------------------------------------

Q, P = torch.zeros(2, 3), torch.zeros(2, 3, 4)


@pytest.mark.parametrize(
    ("arguments", "options", "named"),
    [
        ((torch.zeros(2), P), {}, "importance"),
        ((torch.zeros(2, 3, 1), P), {}, "importance"),
        ((torch.zeros(2, 4), P), {}, "importance"),
        ((Q, torch.zeros(2, 3)), {}, "position"),
        ((Q, torch.zeros(3, 3, 4)), {}, "position"),
        ((Q, P, torch.ones(2, 3)), {}, "mask"),
        ((Q, P, torch.ones(2, 3, dtype=torch.long)), {}, "mask"),
        ((Q, P, torch.ones(2, 4, dtype=torch.bool)), {}, "mask"),
        ((Q, P, torch.ones(6, dtype=torch.bool)), {}, "mask"),
        ((Q, P), {"token_reduction": "max"}, "token_reduction"),
        ((Q, P), {"softening": -0.1}, "softening"),
    ],
)
def test_bad_arguments_are_named(arguments, options, named):
    with pytest.raises(AtomError, match=named):
        atomic_energy(*arguments, **options)
