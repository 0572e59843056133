"""Expressions: what a diagram is when it is written as a term over variables."""

from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import AtomError

DEEPEST = 60
"""How deep expressions may be nested: so deep is no task that somebody wrote."""


@dataclass(frozen=True)
class Name:
    """A variable or a constant."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Call:
    """A box applied to expressions, whose wires are its inputs in order."""

    box: str
    arguments: tuple["Expression", ...]

    def __post_init__(self) -> None:
        check_depth(self)

    def __str__(self) -> str:
        return f"{self.box}({', '.join(map(str, self.arguments))})"


@dataclass(frozen=True)
class Group:
    """Several expressions side by side: a tensor product."""

    parts: tuple["Expression", ...]

    def __post_init__(self) -> None:
        check_depth(self)

    def __str__(self) -> str:
        return f"({', '.join(map(str, self.parts))})"


@dataclass(frozen=True)
class Part:
    """One of the wires of an expression, counted from 1; the others are discarded."""

    whole: "Expression"
    index: int

    def __post_init__(self) -> None:
        check_depth(self)

    def __str__(self) -> str:
        return f"{self.whole}.{self.index}"


Expression = Name | Call | Group | Part


def inner(expression: Expression) -> tuple[Expression, ...]:
    """The expressions that one is made of."""
    match expression:
        case Call():
            return expression.arguments
        case Group():
            return expression.parts
        case Part():
            return (expression.whole,)
    return ()


def walk(expression: Expression) -> Iterator[Expression]:
    """An expression and all within it, from left to right."""
    yield expression
    for part in inner(expression):
        yield from walk(part)


def boxes_in(expression: Expression) -> list[str]:
    """The names of boxes, in the order in which they first come."""
    return list(dict.fromkeys(part.box for part in walk(expression) if isinstance(part, Call)))


def check_depth(expression: Expression) -> None:
    """Raise `AtomError` for an expression that is nested too deeply. Its parts have been checked already."""
    depth, level = 0, [expression]
    while level:
        depth, level = depth + 1, [part for one in level for part in inner(one)]
        if depth > DEEPEST:
            raise AtomError(f"an expression is nested more than {DEEPEST} deep; name parts of it by let")
