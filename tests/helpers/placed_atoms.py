"""Random and placed atoms."""

import torch
from hypothesis import strategies as st

from atom_hf import Atoms, atomic_energy
from atom_hf.atoms.energy import pair_means

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
    # Positions come from a generator: hypothesis prefers equal values, and a distance that is only rounding has no value.
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


def energy_and_gradients(q, p, mask=None, **options):
    q, p = q.detach().clone().requires_grad_(), p.detach().clone().requires_grad_()
    energy = atomic_energy(q, p, mask, **options)
    return energy.detach(), *torch.autograd.grad(energy, (q, p))


def assert_same(a, b):
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
