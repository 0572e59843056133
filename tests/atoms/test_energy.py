"""The energy against its definition, the facts that the mathematics promises, and the numerics."""

import json
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import atom_hf.closed_form
from atom_hf import AtomError, Atoms, atomic_energy
from atom_hf.energy import atom_loss, pair_means
from helpers.naive import naive_constraint, naive_energy, to_lists

CONSTRAINTS = {"neutrality": 1.0, "charge_floor": 0.5, "charge_floor_weight": 10.0}


def random_batch(seed, shape, *, dtype=torch.float64, mask=False):
    """Importance away from the kinks at 0 and +-1, positions, and a mask (or None)."""
    generator = torch.Generator().manual_seed(seed)
    sign = torch.randint(0, 2, shape[:2], generator=generator) * 2 - 1
    q = sign * (0.1 + 0.85 * torch.rand(shape[:2], generator=generator, dtype=torch.float64))
    p = torch.randn(shape, generator=generator, dtype=torch.float64)
    kept = torch.rand(shape[:2], generator=generator) < 0.7
    kept[:, 0] = True
    return q.to(dtype), p.to(dtype), kept if mask else None


def random_atoms(seed, size, width, dtype=torch.float64):
    q, p, mask = random_batch(seed, (size, 4, width), dtype=dtype, mask=True)
    return Atoms.from_tokens(q, p, mask, token_reduction="mean")


def placed_pair(distance, charges, radii):
    """Two atoms whose centres are `distance` apart, of given (Z+, Z-) and radii."""
    distance = torch.as_tensor(distance, dtype=torch.float64)
    direction = torch.tensor([2 / 3, -1 / 3, 2 / 3], dtype=torch.float64)
    (positive_a, negative_a), (positive_b, negative_b) = charges
    return Atoms(
        torch.tensor([positive_a, positive_b], dtype=torch.float64),
        torch.tensor([negative_a, negative_b], dtype=torch.float64),
        torch.stack([torch.zeros(3, dtype=torch.float64), distance * direction]),
        torch.tensor(radii, dtype=torch.float64),
    )


def slope(distance, charges, radii):
    """(energy, its derivative along the distance) of a placed pair."""
    distance = torch.tensor(distance, dtype=torch.float64, requires_grad=True)
    energy = pair_means(placed_pair(distance, charges, radii)).energy
    (derivative,) = torch.autograd.grad(energy, distance)
    return float(energy.detach()), float(derivative)


def energy_and_gradients(q, p, mask=None, **options):
    q, p = q.detach().clone().requires_grad_(), p.detach().clone().requires_grad_()
    energy = atomic_energy(q, p, mask, **options)
    return energy.detach(), *torch.autograd.grad(energy, (q, p))


# --- the definition -------------------------------------------------------------------------------------------------


@st.composite
def batches(draw):
    """(importance, position, mask, softening, token_reduction) with the corner cases mixed in."""
    size, length, width = draw(st.integers(1, 4)), draw(st.integers(1, 4)), draw(st.integers(1, 4))
    charge = {
        "mixed": st.floats(-1, 1),
        "positive": st.floats(0.001, 1),
        "negative": st.floats(-1, -0.001),
        "zero": st.just(0.0),
        "corners": st.sampled_from([-1.0, 0.0, 1.0]),
    }[draw(st.sampled_from(["mixed", "mixed", "positive", "negative", "zero", "corners"]))]

    def table(entry):
        return draw(st.lists(st.lists(entry, min_size=length, max_size=length), min_size=size, max_size=size))

    q = torch.tensor(table(charge), dtype=torch.float64)
    # Positions come from a generator: hypothesis prefers ties, and a distance that is only rounding has no value.
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    p = torch.randn(size, length, width, generator=generator, dtype=torch.float64) * draw(
        st.sampled_from([0.01, 1, 100])
    )
    mask = torch.tensor(table(st.booleans())) if draw(st.booleans()) else None
    softening = draw(st.sampled_from([0.0, 0.1, 2.0]))
    if softening and size > 1 and draw(st.booleans()):
        q[1], p[1] = q[0], p[0]
        if mask is not None:
            mask[1] = mask[0]
    return q, p, mask, softening, draw(st.sampled_from(["sum", "mean"]))


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


def assert_same(a, b):
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


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


# --- numerics -------------------------------------------------------------------------------------------------------

HALVES = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])


def half_batch(kind, dtype):
    if kind == "large":  # sums of squares of 300 x 768 values of this size pass fp16's range by far
        q, p, _ = random_batch(0, (4, 300, 768))
        return q.to(dtype), (100 * p).to(dtype)
    q, p, _ = random_batch(0, (4, 6, 8))
    if kind == "coincident":
        q[:], p[:] = q[0], p[0]
    elif kind == "tokens coincide":
        p[:] = p[:, :1]
    elif kind == "all at the origin":
        p.zero_()
    return q.to(dtype), p.to(dtype)


@HALVES
@pytest.mark.parametrize("softening", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["ordinary", "coincident", "tokens coincide", "all at the origin", "large"])
def test_half_precision_is_finite_and_computed_in_float32(kind, softening, dtype):
    q, p = half_batch(kind, dtype)
    energy, dq, dp = energy_and_gradients(q, p, softening=softening)
    assert energy.dtype == torch.float32
    assert torch.equal(energy, atomic_energy(q.float(), p.float(), softening=softening))
    assert energy.isfinite() and dq.isfinite().all() and dp.isfinite().all()
    assert dq.dtype == dp.dtype == dtype
    assert dq.count_nonzero() > 0


@pytest.mark.parametrize("softening", [0.0, 1e-4])
def test_a_gradient_beyond_fp16_saturates(softening):
    q = torch.full((2, 2), 0.75, dtype=torch.float16)
    p = torch.zeros(2, 2, 2, dtype=torch.float16)
    p[1, :, 0] = 2.0**-14  # close, not coincident: 1/D^2 is 2^28, far above 65504
    _, _, dp = energy_and_gradients(q, p, softening=softening)
    _, _, wide = energy_and_gradients(q.float(), p.float(), softening=softening)
    limit = torch.finfo(torch.float16).max
    assert wide.abs().max() > 100 * limit
    assert torch.equal(dp, wide.clamp(-limit, limit).half())
    assert dp[0, 0, 0] == limit and dp[1, 0, 0] == -limit, "the two are pushed apart"


@pytest.mark.parametrize("position", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("importance", [torch.float16, torch.float32, torch.float64], ids=str)
def test_importance_and_position_may_differ_in_precision(importance, position):
    q, p, mask = random_batch(0, (4, 5, 3), mask=True)
    q, p = q.to(importance), p.to(position)
    energy, dq, dp = energy_and_gradients(q, p, mask, softening=0.1)
    assert dq.dtype == importance and dp.dtype == position
    torch.testing.assert_close(
        energy.double(), atomic_energy(q.double(), p.double(), mask, softening=0.1), rtol=1e-5, atol=0
    )


@pytest.mark.parametrize("block_entries", [2**24, 10], ids=["differences", "blocks of matrix products"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_autocast_changes_nothing(dtype, block_entries, monkeypatch):
    monkeypatch.setattr(atom_hf.closed_form, "BLOCK_ENTRIES", block_entries)
    q, p, mask = random_batch(0, (4, 6, 8), dtype=dtype, mask=True)
    q.requires_grad_(), p.requires_grad_()

    def results(enabled):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            assert (p[0] @ p[0].T).dtype == (torch.bfloat16 if enabled else dtype)
            energy = atomic_energy(q, p, mask, softening=0.1, token_reduction="mean")
            atoms = Atoms.from_tokens(q, p, mask)
            loss = atom_loss(atoms, softening=0.1, **CONSTRAINTS)
        # Outside, as torch asks for: the backward pass of any matrix product inside would be cast too.
        return [energy, *atoms, *loss, *torch.autograd.grad(energy + loss.loss, (q, p))]

    for ours, expected in zip(results(True), results(False), strict=True):
        assert ours.dtype == expected.dtype and torch.equal(ours, expected)


@pytest.mark.parametrize("block_entries", [2**24, 100], ids=["differences", "matrix products"])
def test_a_large_common_offset_costs_no_precision(block_entries, monkeypatch):
    monkeypatch.setattr(atom_hf.closed_form, "BLOCK_ENTRIES", block_entries)
    atoms = random_atoms(4, 6, 16, dtype=torch.float32)
    atoms = atoms._replace(center=atoms.center + 1e4)
    # A sample without tokens stays at the origin, where it must not pull the reference point to.
    atoms.center[2], atoms.radius[2] = 0, -1
    wide = Atoms(*(part.double() for part in atoms))
    for ours, expected in zip(pair_means(atoms), pair_means(wide), strict=True):
        assert ours.item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("token_reduction", ["sum", "mean"])
def test_a_large_common_offset_of_the_positions_costs_no_precision(token_reduction):
    q, p, mask = random_batch(4, (6, 20, 16), dtype=torch.float32, mask=True)
    # Charges of one sign leave all centres at 1e4, some 0.3 from each other in each coordinate, and there neighbouring
    # float32 numbers are 1e-3 apart: no more than this can be asked.
    for charges, tolerance in ((q, 1e-4), (q.abs(), 2e-3)):
        energy = atomic_energy(charges, p + 1e4, mask, token_reduction=token_reduction)
        expected = atomic_energy(charges.double(), (p + 1e4).double(), mask, token_reduction=token_reduction)
        assert energy.item() == pytest.approx(expected.item(), rel=tolerance)


@pytest.mark.parametrize(
    ("size", "usable"),
    [(1, 1), (3, 1), (3, 0), (0, 0)],
    ids=["one sample", "one of three", "none of three", "no sample"],
)
@pytest.mark.parametrize("softening", [0.0, 0.1])
def test_fewer_than_two_atoms_give_zero_with_a_graph(size, usable, softening):
    q, p, _ = random_batch(0, (size, 3, 2), dtype=torch.float32)
    mask = torch.zeros(size, 3, dtype=torch.bool)
    mask[:usable] = True
    q.requires_grad_(), p.requires_grad_()
    energy = atomic_energy(q, p, mask, softening=softening)
    assert energy.item() == 0
    energy.backward()
    assert torch.equal(q.grad, torch.zeros_like(q)) and torch.equal(p.grad, torch.zeros_like(p))


def test_a_sample_without_tokens_takes_part_in_no_pair():
    q, p, _ = random_batch(0, (4, 3, 2))
    mask = torch.ones(4, 3, dtype=torch.bool)
    mask[2] = False
    atoms = Atoms.from_tokens(q, p, mask)
    assert atoms.exists.tolist() == [True, True, False, True]
    left = [0, 1, 3]
    for ours, expected in zip(
        atom_loss(atoms, softening=0.1, **CONSTRAINTS),
        atom_loss(Atoms.from_tokens(q[left], p[left]), softening=0.1, **CONSTRAINTS),
        strict=True,
    ):
        assert_same(ours, expected)


def test_a_sample_without_tokens_divides_by_nothing():
    # Its mark, a radius of -1, would cancel a distance of 1/2 to an atom of radius 0.
    zeros, charges = torch.zeros(3), torch.tensor([1.0, 1.0, 0.0])
    atoms = Atoms(charges, zeros, torch.tensor([[0.5], [-0.5], [0.0]]), torch.tensor([0.0, 0.0, -1.0]))
    assert pair_means(atoms) == (1.0, 1.0)


@pytest.mark.parametrize("seed", range(5))
def test_softening_is_the_smallest_distance(seed, monkeypatch):
    """Also where the rounding of a matrix product leaves the squared distance of coincident atoms below 0."""
    monkeypatch.setattr(atom_hf.closed_form, "BLOCK_ENTRIES", 1)
    center = 10 * torch.randn(2, 64, generator=torch.Generator().manual_seed(seed)).repeat(20, 1)
    atoms = Atoms(torch.ones(40), torch.zeros(40), center, torch.ones(40))
    assert pair_means(atoms, softening=1e-3).energy <= 1e3


@pytest.mark.parametrize("block_entries", [2**24, 10], ids=["differences", "blocks of matrix products"])
@pytest.mark.parametrize("softening", [0.0, 0.1])
def test_repeated_samples_are_finite(softening, block_entries, monkeypatch):
    monkeypatch.setattr(atom_hf.closed_form, "BLOCK_ENTRIES", block_entries)
    q, p, _ = random_batch(0, (3, 4, 8), dtype=torch.float32)
    energy, dq, dp = energy_and_gradients(q.repeat(2, 1), p.repeat(2, 1, 1), softening=softening)
    assert energy.isfinite() and dq.isfinite().all() and dp.isfinite().all()


# 7 atoms of width `width`: (BLOCK_ENTRIES, blocks of rows, whether distances come from a matrix product)
PATHS = {
    "one block of matrix products": (3, 100, 1, True),
    "blocks of matrix products": (3, 20, 4, True),
    "blocks of differences": (1, 20, 4, False),
    "a row at a time": (3, 1, 7, True),
}


@pytest.mark.parametrize("softening", [0.0, 0.1])
@pytest.mark.parametrize("path", PATHS)
def test_every_path_gives_the_same(path, softening, monkeypatch):
    width, block_entries, blocks, product = PATHS[path]
    packed = random_atoms(1, 7, width).pack()
    packed[3] = torch.tensor([0.0, 0.0, -1.0] + [0.0] * width)  # a sample without tokens
    if softening:
        packed[5] = packed[2]
    packed.requires_grad_()

    expected = pair_means(Atoms.unpack(packed), softening)
    (expected_gradient,) = torch.autograd.grad(expected.energy, packed)

    calls = {"rows": 0, "addmm": 0}

    def count(name, function):
        def counted(*args, **kwargs):
            calls[name] += kwargs.get("alpha", -2) == -2  # not the product of a gradient
            return function(*args, **kwargs)

        return counted

    monkeypatch.setattr(atom_hf.closed_form, "BLOCK_ENTRIES", block_entries)
    monkeypatch.setattr(atom_hf.closed_form, "_row_sums", count("rows", atom_hf.closed_form._row_sums))
    monkeypatch.setattr(torch, "addmm", count("addmm", torch.addmm))
    means = pair_means(Atoms.unpack(packed), softening)
    assert calls == {"rows": blocks, "addmm": blocks * product}, "the path that this case is about"
    (gradient,) = torch.autograd.grad(means.energy, packed)

    torch.testing.assert_close(tuple(means), tuple(expected), rtol=1e-10, atol=0)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-9, atol=1e-12)


def test_pack_and_unpack_are_inverse():
    q, p, mask = random_batch(0, (4, 3, 5), dtype=torch.float32, mask=True)
    mask[1] = False
    atoms = Atoms.from_tokens(q, p, mask)
    packed = atoms.pack()
    assert packed.shape == (4, 8) and packed.dtype == torch.float32
    again = Atoms.unpack(packed)
    for name, part, expected in zip(Atoms._fields, again, atoms, strict=True):
        assert part.shape == expected.shape and torch.equal(part, expected), name
    assert again.exists.tolist() == [True, False, True, True]


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


# --- the loss -------------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None, derandomize=True)
@given(batches(), st.floats(0, 3), st.floats(0, 1), st.floats(0, 20))
def test_the_loss_is_the_energy_and_the_constraints(batch, neutrality, charge_floor, charge_floor_weight):
    q, p, mask, softening, token_reduction = batch
    mask = torch.ones_like(q, dtype=torch.bool) if mask is None else mask
    constraints = {
        "neutrality": neutrality,
        "charge_floor": charge_floor,
        "charge_floor_weight": charge_floor_weight,
    }
    atoms = Atoms.from_tokens(q, p, mask, token_reduction=token_reduction)
    parts = atom_loss(atoms, softening=softening, **constraints)
    assert torch.equal(parts.loss, parts.energy + parts.constraint)
    expected = naive_constraint(q.tolist(), mask.tolist(), token_reduction=token_reduction, **constraints)
    assert parts.constraint.item() == pytest.approx(expected, rel=1e-9, abs=1e-13)
    means = pair_means(atoms, softening)
    assert torch.equal(parts.energy, means.energy) and torch.equal(parts.distance, means.distance)


@pytest.mark.parametrize("energy_weight", [0.0, 0.5, 3.0])
def test_the_energy_has_a_weight_of_its_own(energy_weight):
    q, p, mask = random_batch(0, (4, 3, 2), mask=True)
    atoms = Atoms.from_tokens(q.requires_grad_(), p.requires_grad_(), mask, token_reduction="mean")
    parts = atom_loss(atoms, softening=0.1, energy_weight=energy_weight, **CONSTRAINTS)
    whole = atom_loss(atoms, softening=0.1, **CONSTRAINTS)
    assert torch.equal(parts.energy, whole.energy) and torch.equal(parts.constraint, whole.constraint)
    torch.testing.assert_close(parts.loss, energy_weight * whole.energy + whole.constraint)
    # At 0 the constraints alone act on the importance, and nothing on the positions.
    (gradient,) = torch.autograd.grad(parts.loss, p)
    assert (gradient.abs().max() > 0) == (energy_weight > 0)


@pytest.mark.parametrize("blocks", [2**24, 4], ids=["at once", "in blocks"])
def test_gradcheck_of_the_whole_loss(blocks, monkeypatch):
    monkeypatch.setattr(atom_hf.closed_form, "BLOCK_ENTRIES", blocks)
    packed = random_atoms(3, 5, 3).pack()
    packed[1] = torch.tensor([0.0, 0.0, -1.0] + [0.0] * 3)  # a sample without tokens
    packed.requires_grad_()
    options = {**CONSTRAINTS, "charge_floor": 0.9, "neutrality": 2.0, "energy_weight": 0.7}
    loss = lambda packed: atom_loss(Atoms.unpack(packed), softening=0.2, **options).loss  # noqa: E731
    assert torch.autograd.gradcheck(loss, (packed,))


def test_the_constraints_wake_dead_charges_and_balance_them():
    dead = torch.tensor([[0.1, -0.1], [0.05, -0.05]], dtype=torch.float64, requires_grad=True)
    one_sided = torch.tensor([[0.9, 0.8], [0.7, 0.9]], dtype=torch.float64, requires_grad=True)
    _, p, _ = random_batch(0, (2, 2, 3))
    for q in (dead, one_sided):
        atoms = Atoms.from_tokens(q, p, token_reduction="mean")
        atom_loss(atoms, softening=0.1, **CONSTRAINTS, energy_weight=0.0).loss.backward()
    assert (dead.grad * dead.detach() < 0).all(), "below the floor a step down the gradient grows every charge"
    assert (one_sided.grad > 0).all(), "a net charge shrinks"


# --- memory ---------------------------------------------------------------------------------------------------------

MEASURE = """
import json, resource, torch
from atom_hf.energy import Atoms, atom_loss

torch.set_num_threads(1)
packed = torch.randn(16384, 771).abs_().requires_grad_()
options = {"softening": 0.1, "neutrality": 1.0, "charge_floor": 0.5, "charge_floor_weight": 10.0}


def resident():  # now, in bytes; the peak of getrusage starts from what the parent process had
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


# Once in small, so that what torch allocates for itself is there before the measurement.
atom_loss(Atoms.unpack(packed[:64]), **options).loss.backward()
packed.grad = None
before = resident()
parts = atom_loss(Atoms.unpack(packed), **options)
parts.loss.backward()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
finite = bool(parts.loss.isfinite() and packed.grad.isfinite().all())
alive = bool((packed.grad != 0).any(1).all())
print(json.dumps({"additional": peak - before, "finite": finite, "alive": alive}))
"""


@pytest.mark.slow
def test_memory_of_16384_atoms():
    run = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, timeout=1800)
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout)
    print(f"additional peak: {result['additional'] / 1e9:.3f} GB")
    assert result["finite"] and result["alive"]
    # One pair matrix is 1.07 GB, and autograd would keep some ten of them.
    assert result["additional"] < 1.5e9
