"""The energy in numbers: precision, overflow, empty samples, blocks and memory."""

import json
import subprocess
import sys

import pytest
import torch

import atom_hf.atoms.closed_form
from atom_hf import Atoms, atomic_energy
from atom_hf.atoms.energy import pair_means
from atom_hf.atoms.loss import atom_loss
from helpers.placed_atoms import CONSTRAINTS, assert_same, energy_and_gradients, random_atoms, random_batch

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
    monkeypatch.setattr(atom_hf.atoms.closed_form, "BLOCK_ENTRIES", block_entries)
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
    monkeypatch.setattr(atom_hf.atoms.closed_form, "BLOCK_ENTRIES", block_entries)
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
    monkeypatch.setattr(atom_hf.atoms.closed_form, "BLOCK_ENTRIES", 1)
    center = 10 * torch.randn(2, 64, generator=torch.Generator().manual_seed(seed)).repeat(20, 1)
    atoms = Atoms(torch.ones(40), torch.zeros(40), center, torch.ones(40))
    assert pair_means(atoms, softening=1e-3).energy <= 1e3


@pytest.mark.parametrize("block_entries", [2**24, 10], ids=["differences", "blocks of matrix products"])
@pytest.mark.parametrize("softening", [0.0, 0.1])
def test_repeated_samples_are_finite(softening, block_entries, monkeypatch):
    monkeypatch.setattr(atom_hf.atoms.closed_form, "BLOCK_ENTRIES", block_entries)
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

    calls = {"rows": 0, "baddbmm": 0}

    def count(name, function):
        def counted(*args, **kwargs):
            calls[name] += kwargs.get("alpha", -2) == -2  # not the product of a gradient
            return function(*args, **kwargs)

        return counted

    monkeypatch.setattr(atom_hf.atoms.closed_form, "BLOCK_ENTRIES", block_entries)
    monkeypatch.setattr(atom_hf.atoms.closed_form, "_row_sums", count("rows", atom_hf.atoms.closed_form._row_sums))
    monkeypatch.setattr(torch, "baddbmm", count("baddbmm", torch.baddbmm))
    means = pair_means(Atoms.unpack(packed), softening)
    assert calls == {"rows": blocks, "baddbmm": blocks * product}, "the path that this case is about"
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


# --- memory ---------------------------------------------------------------------------------------------------------

MEASURE = """
import json, resource, torch
from atom_hf.atoms.energy import Atoms
from atom_hf.atoms.loss import atom_loss

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
