"""Kinds of data and the divergences by which two values of a kind are compared; types, which are kinds with a name."""

import math
from dataclasses import dataclass, replace

from ..errors import AtomError

BATCH = "batch"
"""The size of a class wire whose classes are the rows of the batch."""

MOST_VALUES = 2**24  # of one row: more fit no batch

_SQUARES = ("mse", "l1", "sse", "cosine")


@dataclass(frozen=True)
class Family:
    """What all kinds of one name have in common."""

    sizes: tuple[str, ...]
    divergences: tuple[str, ...]
    """Names of divergences, the default first."""
    about: str


FAMILIES = {
    "pixels": Family(("channels", "height", "width"), _SQUARES, "an image"),
    "vector": Family(("n",), _SQUARES, "n numbers"),
    "class": Family(("n",), ("cross_entropy", "kl"), "one of n classes, or probabilities of them"),
    "tokens": Family(("n",), ("cross_entropy",), "a text of ids below n"),
    "gaussian": Family(("n",), ("kl",), "means and log-variances of n independent normal distributions"),
    "logit": Family((), ("bce",), "the log-odds that something is true"),
    "scalar": Family((), ("square", "l1"), "a number"),
}

INEXACT = frozenset({"cosine"})
"""Divergences that are zero for values that differ."""

_OPTIONS = {"kl": {"temperature": (1e-3, 1e3)}}


@dataclass(frozen=True)
class Kind:
    """A kind of data, such as `pixels(1, 28, 28)`."""

    name: str
    sizes: tuple[int | str, ...] = ()

    def __post_init__(self) -> None:
        family = FAMILIES.get(self.name)
        if family is None:
            raise AtomError(f"no such kind: {self.name}; there are {', '.join(FAMILIES)}")
        if len(self.sizes) != len(family.sizes):
            wanted = f"{self.name}({', '.join(family.sizes)})" if family.sizes else self.name
            raise AtomError(f"{self} has {_count(len(self.sizes), 'size')}; write {wanted}")
        if self.sizes == (BATCH,) and self.name == "class":
            return
        for size in self.sizes:
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                raise AtomError(f"{self}: a size must be a whole number of at least 1, got {size}")
        if math.prod(self.sizes) > MOST_VALUES:
            raise AtomError(f"{self} has more than {MOST_VALUES:,} values; give smaller sizes")

    def __str__(self) -> str:
        return f"{self.name}({', '.join(map(str, self.sizes))})" if self.sizes else self.name

    @property
    def values(self) -> int:
        """The numbers in a row, as a module takes or gives it; 1 where a row has no fixed number."""
        if self.sizes == (BATCH,) or self.name == "tokens":
            return 1
        return math.prod(self.sizes) * (2 if self.name == "gaussian" else 1)


@dataclass(frozen=True)
class Type:
    """The type of a wire: a kind, and the name that a task gave it, if any."""

    kind: Kind
    name: str | None = None

    def __str__(self) -> str:
        return self.name or str(self.kind)

    def fits(self, other: "Type") -> bool:
        """Whether a wire of this type may go where `other` is asked for: two types with names must be the same one."""
        return self.kind == other.kind and (self.name == other.name or None in (self.name, other.name))


@dataclass(frozen=True)
class Divergence:
    """How two values of a type are compared, such as `kl(temperature=2)`."""

    name: str
    options: tuple[tuple[str, float], ...] = ()

    def __str__(self) -> str:
        return self.name + (f"({', '.join(f'{k}={number(v)}' for k, v in self.options)})" if self.options else "")

    def check(self, kind: Kind, where: str) -> None:
        """Raises `AtomError` if values of this kind are not compared so."""
        known = FAMILIES[kind.name].divergences
        if self.name not in known:
            every = sorted({name for family in FAMILIES.values() for name in family.divergences})
            what = "does not compare" if self.name in every else "is no divergence for"
            raise AtomError(f"{where}: {self.name} {what} {kind}; there is {' or '.join(known)}")
        bounds = _OPTIONS.get(self.name, {})
        for name, value in self.options:
            if name not in bounds:
                has = f"it has {', '.join(bounds)}" if bounds else "it has none"
                raise AtomError(f"{where}: {self.name} has no option {name}; {has}")
            low, high = bounds[name]
            if not low <= value <= high:
                raise AtomError(
                    f"{where}: {name} of {self.name} must be between {number(low)} and {number(high)}, got {number(value)}"
                )


def default_divergence(kind: Kind) -> Divergence:
    """The divergence that compares values of a kind where none is named."""
    return Divergence(FAMILIES[kind.name].divergences[0])


def number(value: float) -> str:
    """A number as it is written in a task: without a fraction if it has none."""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))


def unnamed(wire: Type) -> Type:
    """The type without the name that a task gave it."""
    return replace(wire, name=None)


def _count(many: int, what: str) -> str:
    return f"{many} {what}{'' if many == 1 else 's'}"
