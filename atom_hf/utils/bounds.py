"""Bounds of numbers that a user gives, checked before anything is loaded."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import AtomError

LARGEST = 2**63 - 1  # what a number of 64 bits can be


@dataclass(frozen=True)
class Bound:
    """The values that a number may have; never NaN."""

    least: float = -math.inf
    most: float = math.inf
    whole: bool = False
    below: bool = False
    """Whether `most` itself is too large."""
    infinite: bool = False
    """Whether it may be infinite."""

    def holds(self, value: float) -> bool:
        """Whether a number may be this value."""
        if isinstance(value, float) and not (math.isfinite(value) or (self.infinite and math.isinf(value))):
            return False
        if isinstance(value, int) and abs(value) > LARGEST:
            return False
        return self.least <= value <= self.most and not (self.below and value == self.most)

    def asked(self, value: float) -> str:
        """What would do in place of a value that does not."""
        kind = "a whole number" if self.whole else "a number" if self.infinite else "a finite number"
        if value > self.least or self.least == -math.inf:
            if self.most < math.inf:
                return f"{kind} {'below' if self.below else 'of at most'} {self.most}"
            if isinstance(value, int):
                return f"{kind} of at most 64 bits"
        return kind if self.least == -math.inf else f"{kind} of at least {self.least}"


SEED = Bound(0, 2**32 - 1, whole=True)  # what NumPy takes

COUNT = Bound(1, 2**31 - 1, whole=True)

NOT_NEGATIVE = Bound(0)

_ANY = {int: Bound(whole=True), float: Bound(infinite=True)}


def check_bounds(values: Mapping[str, Any], bounds: Mapping[str, Bound], prefix: str = "") -> None:
    """Raise `AtomError` for a number outside its bounds, or that is NaN or of more than 64 bits.

    Args:
        values: by name; what is not a number is skipped.
        bounds: of some of them.
        prefix: of a name as the user gave it, such as "--".
    """
    for name, value in values.items():
        bound = bounds.get(name, _ANY.get(type(value)))
        if bound is not None and type(value) in _ANY and not bound.holds(value):
            shown = f"{value!r}"
            raise AtomError(
                f"{prefix}{name} must be {bound.asked(value)}; got {shown[:40] + '...' * (len(shown) > 40)}"
            )
