"""How channels are read: their kind, and what makes a distribution of deterministic values."""

import math
from dataclasses import dataclass

from ..errors import AtomError
from .kinds import KINDS, NOISED, OF_SAMPLES

FEWEST_PASSES = 20

SIZE = 8  # dimensions of a subspace


@dataclass(frozen=True)
class ChannelOptions:
    """Options of `read_channels`, which documents them."""

    kind: str
    of: str = "samples"
    noise: float | None = None
    bits: float | None = None
    quantile: bool = False
    dropout: int | None = None
    augment: int | None = None
    size: int = SIZE
    principal: bool = False
    temperature: float = 1.0

    def check(self, flag: str = "", kind: str = "kind") -> None:
        """Raise `AtomError` for values that cannot be, or do not go together.

        Args:
            flag: before the name of each option, as the user gave it.
            kind: the name under which the kind was given.
        """
        if self.kind not in KINDS:
            raise AtomError(f"{flag}{kind} must be one of {', '.join(KINDS)}; got {self.kind!r}")
        of_kind = f"{flag}{kind} {self.kind!r}"
        if self.of not in ("samples", "tokens"):
            raise AtomError(f"{flag}of must be samples or tokens, got {self.of!r}")
        if self.of == "tokens" and self.kind in OF_SAMPLES:
            raise AtomError(f"{flag}of tokens: {of_kind} is of whole samples; leave it out")
        ways = {name: getattr(self, name) for name in ("noise", "bits", "dropout", "augment")}
        chosen = [f"{flag}{name}" for name, value in ways.items() if value is not None]
        if self.kind not in NOISED and (chosen or self.quantile):
            raise AtomError(f"{[*chosen, f'{flag}quantile'][0]}: {of_kind} is a distribution as it is; leave it out")
        if len(chosen) > 1:
            raise AtomError(f"{' and '.join(chosen)}: each makes a distribution of values; give one of them")
        for name in ("noise", "temperature"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise AtomError(f"{flag}{name} must be a finite number above 0, got {value}")
        for name in ("dropout", "augment"):
            passes = ways[name]
            if passes is not None and passes < FEWEST_PASSES:
                raise AtomError(
                    f"{flag}{name} must be at least {FEWEST_PASSES} passes, whose mean and variance are taken; got {passes}"
                )
            for other in ("quantile", "principal"):
                if passes is not None and getattr(self, other):
                    raise AtomError(f"{flag}{name} and {flag}{other}: give one of them")
        if self.principal and self.kind != "subspaces":
            raise AtomError(f"{flag}principal is for {flag}{kind} subspaces; leave it out for {self.kind!r}")
        if self.size < 1:
            raise AtomError(f"{flag}size must be at least 1, got {self.size}")
