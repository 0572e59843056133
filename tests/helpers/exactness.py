"""The exactness table: what a run's gradients are compared with, and by how much they differ.

Tests marked `exactness` take the fixture `exact` and compare through it. `make exactness` runs them and writes what they
found into `recipes/cost/exactness.md`.
"""

import torch

LARGEST = 1e-5
ROWS = {}

HEADER = """\
# Exactness

The gradients of all parameters, heads and backbone, of one run against those of another that must be the same: for each
parameter `||difference|| / ||reference||` (a parameter whose own gradient is under a thousandth of the whole is taken relative
to that thousandth), and of these the largest. Float32 unless it says otherwise. Each row is a test; a difference above its
bound fails it. Written by `make exactness`.

| what | against | largest relative difference | bound |
| --- | --- | --- | --- |
"""


def relative_difference(found, expected):
    """The largest, over the tensors of two dictionaries of the same names, of ||found - expected|| / ||expected||."""
    assert set(found) == set(expected), sorted(set(found) ^ set(expected))
    norms = {name: tensor.double().norm() for name, tensor in expected.items()}
    least = 1e-3 * torch.stack(list(norms.values())).norm()
    assert least > 0, "nothing has a gradient"
    differences = [
        (found[name].double() - expected[name].double()).norm() / torch.maximum(norms[name], least) for name in expected
    ]
    return torch.stack(differences).max().item()


def compare(what, against, found, expected, bound=LARGEST):
    """Asserts that two sets of gradients agree, and keeps the row for the table."""
    difference = relative_difference(found, expected)
    ROWS[what] = f"| {what} | {against} | {difference:.1e} | {bound:.0e} |"
    assert difference <= bound, f"{what} against {against}: {difference:.2e} is more than {bound:.0e}"


def not_run(what, against, why):
    """Keeps a row that says why there is no comparison."""
    ROWS[what] = f"| {what} | {against} | not run: {why} | |"


def write(file):
    file.write_text(HEADER + "\n".join(ROWS[what] for what in sorted(ROWS)) + "\n", encoding="utf-8")
