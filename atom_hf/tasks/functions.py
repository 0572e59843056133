"""The built-in functions of the language: what they take and give, and which of them draw.

`function_modules.py` computes them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..errors import AtomError
from .kinds import BATCH, Kind, Type, number, unnamed

Rule = Callable[[Sequence[Type]], Type | None]
"""From the types of the inputs to that of the output; None for inputs that the function does not take."""


@dataclass(frozen=True)
class Maker:
    """What makes a function or a noise, with its options, such as `mask(0.4)` or `marginal(D.2)`."""

    name: str
    plain: tuple[float, ...] = ()
    options: tuple[tuple[str, float], ...] = ()
    column: tuple[str, int] | None = None
    """A source, and one of its columns, counted from 1."""

    def __str__(self) -> str:
        inner = [number(value) for value in self.plain]
        inner += [f"{name}={number(value)}" for name, value in self.options]
        inner += [f"{self.column[0]}.{self.column[1]}"] if self.column else []
        return self.name + (f"({', '.join(inner)})" if inner else "")

    def values(self, known: dict[str, tuple[float, float, float]], where: str) -> dict[str, float]:
        """The options by name, with their defaults. `known` has the default, least and most of each. Raises `AtomError`."""
        if self.column is not None:
            raise AtomError(f"{where}: {self.name} takes numbers, not a column of a source")
        if len(self.plain) > len(known):
            raise AtomError(f"{where}: {self.name} takes {len(known)} options, got {len(self.plain)}")
        given = dict(zip(known, self.plain, strict=False))
        for name, value in self.options:
            if name not in known:
                has = f"it has {', '.join(known)}" if known else "it has none"
                raise AtomError(f"{where}: {self.name} has no option {name}; {has}")
            if name in given:
                raise AtomError(f"{where}: {name} of {self.name} is given twice")
            given[name] = value
        for name, value in given.items():
            _, low, high = known[name]
            if not low <= value <= high:
                raise AtomError(
                    f"{where}: {name} of {self.name} must be between {number(low)} and {number(high)}, got {number(value)}"
                )
        return {name: given.get(name, default) for name, (default, _, _) in known.items()}


@dataclass(frozen=True)
class BuiltIn:
    """A function that a task may use by its name, or under another by `function NAME : ... = BUILTIN(options)`."""

    takes: str
    rule: Rule
    about: str
    noisy: bool = False
    options: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    """The default, least and most of each."""


def _numbers(wires: Sequence[Type]) -> bool:
    return all(wire.kind.name in ("pixels", "vector") for wire in wires)


def _one(*kinds: str) -> Rule:
    def rule(wires: Sequence[Type]) -> Type | None:
        return wires[0] if len(wires) == 1 and wires[0].kind.name in kinds else None

    return rule


def _pair(wires: Sequence[Type]) -> Type | None:
    is_pair = len(wires) == 2 and _numbers(wires) and (wires[0].fits(wires[1]) or wires[1].fits(wires[0]))
    if not is_pair:
        return None
    return wires[0] if wires[0].name else wires[1]


def _draw(wires: Sequence[Type]) -> Type | None:
    found = _one("gaussian")(wires)
    return None if found is None else Type(Kind("vector", found.kind.sizes))


def _error(wires: Sequence[Type]) -> Type | None:
    return None if _pair(wires) is None else Type(Kind("scalar"))


def _entropy(wires: Sequence[Type]) -> Type | None:
    found = _one("class")(wires)
    return None if found is None or found.kind.sizes == (BATCH,) else Type(Kind("scalar"))


def _against(wires: Sequence[Type]) -> Type | None:
    return None if _pair(wires) is None else Type(Kind("class", (BATCH,)))


_IMAGES, _ANY = "pixels -> pixels", "T -> T for pixels or vector"

BUILT_IN = {
    "draw": BuiltIn("gaussian(n) -> vector(n)", _draw, "a point of each normal distribution", noisy=True),
    "mask": BuiltIn(_ANY, _one("pixels", "vector"), "sets each value to 0 by chance", True, {"share": (0.5, 0.0, 1.0)}),
    "jitter": BuiltIn(
        _ANY, _one("pixels", "vector"), "adds normal noise to each value", True, {"sigma": (0.1, 0.0, 1e3)}
    ),
    "shift": BuiltIn(_IMAGES, _one("pixels"), "moves an image by up to so many pixels", True, {"most": (1, 0, 1e3)}),
    "flip": BuiltIn(_IMAGES, _one("pixels"), "mirrors every second image", True),
    "add": BuiltIn("T, T -> T for pixels or vector", _pair, "the sum"),
    "error": BuiltIn("T, T -> scalar for pixels or vector", _error, "the squared distance"),
    "entropy": BuiltIn("class(n) -> scalar", _entropy, "the entropy of the probabilities"),
    "hard": BuiltIn("class(n) -> class(n)", _one("class"), "the likeliest class, its gradient passed straight through"),
    "against": BuiltIn(
        "T, T -> class(batch) for pixels or vector",
        _against,
        "for each row of the first its similarity to every row of the second",
        options={"temperature": (0.1, 1e-3, 1e3)},
    ),
}


def built_in(name: str, where: str) -> BuiltIn:
    """A built-in function. Raises `AtomError` if there is none of this name."""
    if name not in BUILT_IN:
        raise AtomError(f"{where}: no such function: {name}; built in are {', '.join(BUILT_IN)}")
    return BUILT_IN[name]


def check_signature(name: str, inputs: Sequence[Type], outputs: Sequence[Type], where: str) -> None:
    """Raises `AtomError` if a function that is declared with these wires cannot be this built-in one."""
    found = built_in(name, where)
    made = found.rule([unnamed(wire) for wire in inputs])
    fits = made is not None and len(outputs) == 1
    if fits and name == "draw":  # a code may be an image too
        fits = outputs[0].kind.name in ("pixels", "vector") and outputs[0].kind.values == made.kind.values
    elif fits:
        fits = made.kind == outputs[0].kind
    if not fits:
        given = f"{', '.join(map(str, inputs))} -> {', '.join(map(str, outputs))}"
        raise AtomError(f"{where}: {name} is {found.takes}; it cannot be {given}")
