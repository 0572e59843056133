"""Numbers that cannot be, and the line that says what would do."""

import math

import pytest

from atom_hf import AtomError
from atom_hf.utils.bounds import COUNT, NOT_NEGATIVE, SEED, Bound, check_bounds

pytestmark = pytest.mark.promise(
    "A number out of range is rejected as a flag, before anything is built.",
    "negative, infinite, huge and missing numbers, on the command line and in YAML",
)


BOUNDS = {"seed": SEED, "count": COUNT, "rate": NOT_NEGATIVE, "beta": Bound(0, 1, below=True)}


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("seed", -1, "--seed must be a whole number of at least 0; got -1"),
        ("seed", 2**32, "--seed must be a whole number of at most 4294967295; got 4294967296"),
        ("count", 0, "--count must be a whole number of at least 1; got 0"),
        ("rate", math.nan, "--rate must be a finite number of at least 0; got nan"),
        ("rate", math.inf, "--rate must be a finite number of at least 0; got inf"),
        ("rate", -1e-9, "--rate must be a finite number of at least 0; got -1e-09"),
        ("beta", 1.0, "--beta must be a finite number below 1; got 1.0"),
        ("other", math.nan, "--other must be a number; got nan"),
        ("other", 10**30, f"--other must be a whole number of at most 64 bits; got 1{'0' * 30}"),
        ("other", -(10**90), f"--other must be a whole number of at most 64 bits; got -1{'0' * 38}..."),
    ],
)
def test_a_number_that_cannot_be_is_named_with_what_would_do(name, value, says):
    with pytest.raises(AtomError) as caught:
        check_bounds({name: value}, BOUNDS, prefix="--")
    assert str(caught.value) == says


def test_what_may_be_passes():
    check_bounds({"seed": 0, "count": 1, "rate": 0, "beta": 0.0, "other": -math.inf, "text": "nan", "is": True}, BOUNDS)
    check_bounds({"seed": 2**32 - 1, "count": None, "rate": 1e300, "beta": 0.999}, BOUNDS)
