"""The measure of the exactness table, and the table that is committed."""

import re

import pytest
import torch

from helpers import exactness
from helpers.paths import ROOT

TABLE = ROOT / "recipes" / "cost" / "exactness.md"
ROW = re.compile(
    r"^\| (?P<what>.+) \| (?P<against>.+) \| (?P<difference>\d\.\de[+-]\d\d) \| (?P<bound>\de[+-]\d\d) \|$"
)


@pytest.fixture
def gradients():
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(5, 4, generator=generator) for name in ("backbone", "heads")}


def test_equal_gradients_differ_by_nothing(gradients):
    assert exactness.relative_difference(gradients, gradients) == 0


@pytest.mark.parametrize("factor", [0.5, 0.999, 1.001, 2.0, 4.0])
def test_a_gradient_of_another_size_is_seen_in_either_tensor(gradients, factor):
    for name in gradients:
        scaled = {**gradients, name: factor * gradients[name]}
        assert exactness.relative_difference(scaled, gradients) == pytest.approx(abs(factor - 1), rel=1e-4)


def test_a_small_tensor_counts_by_its_own_size(gradients):
    expected = {**gradients, "heads": 1e-2 * gradients["heads"]}
    wrong = {**expected, "heads": 1.1 * expected["heads"]}
    assert exactness.relative_difference(wrong, expected) == pytest.approx(0.1, rel=1e-3)


def test_a_tensor_of_rounding_errors_does_not_count(gradients):
    # As the gradient of a key's bias in attention, which is 0 but for rounding.
    expected = {**gradients, "heads": 1e-9 * gradients["heads"]}
    assert exactness.relative_difference({**expected, "heads": -expected["heads"]}, expected) < 1e-5


def test_a_missing_or_a_vanished_gradient_is_no_agreement(gradients):
    with pytest.raises(AssertionError, match="heads"):
        exactness.relative_difference({"backbone": gradients["backbone"]}, gradients)
    nothing = {name: torch.zeros(5, 4) for name in gradients}
    with pytest.raises(AssertionError, match="nothing has a gradient"):
        exactness.relative_difference(nothing, nothing)


def test_the_committed_table_is_whole_and_within_its_bounds():
    lines = [line for line in TABLE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")][2:]
    rows = [ROW.match(line) for line in lines]
    assert all(rows), [line for line, row in zip(lines, rows, strict=True) if not row]
    assert all(float(row["difference"]) <= float(row["bound"]) for row in rows)
    assert [
        row["what"] for row in rows if float(row["bound"]) > exactness.LARGEST and "autocast" not in row["what"]
    ] == []
    whats = "\n".join(row["what"] for row in rows)
    for name in ("DDP, 2", "DDP, 4", "FSDP2, 2", "DeepSpeed ZeRO-2", "DeepSpeed ZeRO-3", "torch.compile", "clipping"):
        assert name in whats
    for name in ("bert", "distilbert", "roberta", "gpt2-classifier", "vit", "gpt2"):
        for batches in (1, 2, 4):
            assert f"accumulation, {name}, {batches} of" in whats
