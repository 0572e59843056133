"""The exactness table: what a run's gradients are compared with, and by how much they differ.

Tests marked `exactness` take the fixture `exact` and compare through it. `make exactness` runs them and writes what they
found into `recipes/cost/exactness.md`.
"""

import torch

LARGEST = 1e-5
ROWS = {}

HEADER = """\
# Exactness

Each row compares the gradients of all parameters, heads and backbone, of one run with those of another that must be the same.
The difference is the largest `||difference|| / ||reference||` of any parameter (relative to a thousandth of the whole gradient, for a parameter whose own is smaller than that).
Everything is in float32 unless a row says otherwise.
Each row is a test, which fails if the difference is above the bound; `make exactness` writes this page.

| what | against | largest relative difference | bound |
| --- | --- | --- | --- |
"""  # noqa: E501


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
