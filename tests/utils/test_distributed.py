"""Gathering atoms over processes: two real ones, holding different numbers of rows."""

import pytest
import torch
import torch.distributed as dist

from atom_hf.atoms.energy import Atoms, pair_means
from atom_hf.utils.distributed import gather_rows

SAMPLES, LENGTH, WIDTH = 5, 3, 4
# How many of the five samples each of the two processes holds.
SPLITS = [(3, 2), (1, 4), (5, 0), (0, 5)]


def data():
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(SAMPLES, LENGTH, WIDTH, generator=generator, dtype=torch.float64)
    parameter = torch.randn(WIDTH, WIDTH + 1, generator=generator, dtype=torch.float64)
    return tokens, parameter


def atoms_of(tokens, parameter):
    read = tokens @ parameter
    return Atoms.from_tokens(torch.tanh(read[..., 0]), read[..., 1:], token_reduction="mean").pack()


def gather(split):
    """What one of two processes finds that holds its part of the samples."""
    tokens, parameter = data()
    own = tokens.split(split)[dist.get_rank()]
    parameter.requires_grad_()
    rows = atoms_of(own, parameter)
    gathered = gather_rows(rows)
    energy = pair_means(Atoms.unpack(gathered), 0.1).energy
    row_gradient, gradient = torch.autograd.grad(energy, (rows, parameter))
    # What DDP and FSDP do to the gradients of the parameters.
    dist.all_reduce(gradient)
    return {
        "gathered": gathered.detach(),
        "energy": energy.detach(),
        "row_gradient": row_gradient / 2,
        "gradient": gradient / 2,
    }


@pytest.mark.parametrize("split", SPLITS, ids=[f"{a} and {b} rows" for a, b in SPLITS])
def test_rows_and_gradients_are_those_of_one_process(split, two_processes):
    tokens, parameter = data()
    parameter.requires_grad_()
    rows = atoms_of(tokens, parameter)
    energy = pair_means(Atoms.unpack(rows), 0.1).energy
    row_gradient, gradient = torch.autograd.grad(energy, (rows, parameter))
    assert gradient.abs().max() > 1e-3

    found = two_processes(gather, split)
    for result in found:
        torch.testing.assert_close(result["gathered"], rows.detach(), rtol=1e-12, atol=0)
        torch.testing.assert_close(result["energy"], energy.detach(), rtol=1e-12, atol=0)
        torch.testing.assert_close(result["gradient"], gradient, rtol=1e-6, atol=1e-9)
    assert tuple(len(result["row_gradient"]) for result in found) == split
    both = torch.cat([result["row_gradient"] for result in found])
    torch.testing.assert_close(both, row_gradient, rtol=1e-6, atol=1e-9)


def test_one_process_keeps_its_rows():
    rows = torch.randn(3, 2, requires_grad=True)
    assert gather_rows(rows) is rows


def test_a_group_of_one_process_keeps_its_rows(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        rows = torch.randn(3, 2)
        assert gather_rows(rows) is rows
    finally:
        dist.destroy_process_group()
