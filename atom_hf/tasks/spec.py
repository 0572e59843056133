"""`TaskSpec`: a set of equations between diagrams, with what they are made of."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import InitVar, dataclass, field, fields, replace

from ..errors import AtomError
from .functions import BUILT_IN, Maker
from .kinds import Divergence, Kind, Type, number
from .syntax import Expression

KEYWORDS = (
    *("type", "data", "noise", "const", "learner", "fixed", "function", "noisy", "let", "for", "in", "by", "trains"),
    "minimize",
)

LARGEST_WEIGHT = 1e12


@dataclass(frozen=True)
class Source:
    """What variables are drawn from: a data set's columns, or a noise."""

    name: str
    types: tuple[Type, ...]
    maker: Maker | None = None
    """What draws a noise; None for data."""

    @property
    def is_data(self) -> bool:
        return self.maker is None


@dataclass(frozen=True)
class Const:
    """A constant: a number, or `standard` (the standard normal distribution), or `own` (each row is its own class)."""

    name: str
    type: Type
    value: float | str


@dataclass(frozen=True)
class Box:
    """A function of wires: a learner, a fixed module, or a function without parameters."""

    name: str
    role: str
    """learner, fixed or function."""
    inputs: tuple[Type, ...]
    outputs: tuple[Type, ...]
    path: str | None = None
    """The folder or Hub id of a fixed one's model, if the task names it."""
    maker: Maker | None = None
    """The built-in function that a function is; None if a module is bound to its name."""
    noisy: bool = False

    @property
    def signature(self) -> str:
        return f"{', '.join(map(str, self.inputs))} -> {', '.join(map(str, self.outputs))}"


@dataclass(frozen=True)
class Let:
    """A box made of others."""

    name: str
    parameters: tuple[str, ...]
    inputs: tuple[Type, ...]
    outputs: tuple[Type, ...]
    body: Expression


@dataclass(frozen=True)
class Binding:
    """Variables bound to one draw of a source; `_` for one that is not used."""

    names: tuple[str, ...]
    source: str

    def __str__(self) -> str:
        return f"{', '.join(self.names)} in {self.source}"


@dataclass(frozen=True)
class Atom:
    """An equation between two diagrams (or a cost), and how it becomes part of a loss."""

    name: str
    relation: str
    """`==` row by row, `~` in law, or `minimize`."""
    left: Expression
    right: Expression | None
    over: tuple[Binding, ...]
    weight: float = 1.0
    divergence: Divergence | None = None
    """None for the default of each wire."""
    trains: tuple[str, ...] | None = None
    """The learners that it trains; None for all in it."""

    @property
    def equation(self) -> str:
        return f"minimize {self.left}" if self.right is None else f"{self.left} {self.relation} {self.right}"

    def __str__(self) -> str:
        weight = "" if self.weight == 1 else f" {number(self.weight)}"
        by = f" by {self.divergence}" if self.divergence else ""
        trains = f" trains {', '.join(self.trains)}" if self.trains else ""
        return f"{self.name}{weight}: {self.equation}{by}{trains}"


@dataclass
class TaskSpec:
    """A task. `read_task` makes one of a text; `str` gives a text that reads back to an equal one.

    `TaskSpec(text)` reads declarations, to which `atom` adds equations one by one:

        task = TaskSpec("type image = pixels(1, 8, 8), label = class(10)\\n"
                        "data D : image, label\\nlearner f : image -> label")
        task.atom("fit", "f(x) == y", over="x, y in D")
    """

    text: InitVar[str] = ""
    types: dict[str, Kind] = field(default_factory=dict)
    sources: dict[str, Source] = field(default_factory=dict)
    consts: dict[str, Const] = field(default_factory=dict)
    boxes: dict[str, Box] = field(default_factory=dict)
    lets: dict[str, Let] = field(default_factory=dict)
    atoms: dict[str, Atom] = field(default_factory=dict)

    def __post_init__(self, text: str) -> None:
        if text:
            self.declare(text)

    @property
    def learners(self) -> dict[str, Box]:
        """The learners by name, without those that a `let` defines."""
        return {n: box for n, box in self.boxes.items() if box.role == "learner" and n not in self.lets}

    @property
    def fixed(self) -> dict[str, Box]:
        """The fixed boxes by name."""
        return {name: box for name, box in self.boxes.items() if box.role == "fixed"}

    @property
    def functions(self) -> dict[str, Box]:
        """The functions that are declared, by name."""
        return {name: box for name, box in self.boxes.items() if box.role == "function"}

    def declare(self, text: str) -> "TaskSpec":
        """Add what a text says, atoms too, and return the task itself. Raises `AtomError`; the task is then unchanged."""
        from .reader import read_into

        before = {f.name: dict(getattr(self, f.name)) for f in fields(self)}
        try:
            read_into(self, text)
        except AtomError:
            for name, value in before.items():
                setattr(self, name, value)
            raise
        return self

    def atom(
        self,
        name: str,
        equation: str,
        weight: float = 1.0,
        trains: Sequence[str] | None = None,
        over: str | None = None,
    ) -> "TaskSpec":
        """Add an atom, and return the task itself.

        Args:
            name: its name, which no other atom has.
            equation: as in a text, such as "get(put(x, a)) == a" or "enc(x) == unit by kl".
            weight: what its loss is multiplied by.
            trains: the learners that it trains; all in it by default.
            over: where its variables are drawn, such as "x, y in D; a in A"; by default as those of the atom before.

        Raises:
            AtomError: whatever is wrong with it.
        """
        if over is None:
            if not self.atoms:
                raise AtomError(f"{name}: give over, such as 'x, y in D': there is no atom before it")
            over = "; ".join(map(str, next(reversed(self.atoms.values())).over))
        trained = f" trains {', '.join(trains)}" if trains is not None else ""
        if not isinstance(weight, int | float) or isinstance(weight, bool):
            raise AtomError(f"{name}: the weight must be a number, got {weight!r}")
        text = f"for {over}:\n    {name}: {equation}{trained}\n"
        if text.count("\n") != 2:
            raise AtomError(f"{name}: an equation is one line")
        before = set(self.atoms)
        self.declare(text)
        for added in set(self.atoms) - before:
            try:
                self.atoms[added] = with_weight(self.atoms[added], weight)
            except AtomError:
                del self.atoms[added]
                raise
        return self

    def check(self) -> "TaskSpec":
        """The task itself. Raises `AtomError` unless it can be trained: see `whole.check_whole`."""
        from .whole import check_whole

        check_whole(self)
        return self

    def __str__(self) -> str:
        from .printer import print_task

        return print_task(self)

    def check_new(self, name: str) -> None:
        """Raises `AtomError` for a name that cannot be declared because it is taken, or a word of the language."""
        if name in KEYWORDS:
            raise AtomError(f"{name} is a word of the language; choose another name")
        what = self.what_is(name)
        if what is not None:
            raise AtomError(f"{name} is {what} already; choose another name")

    def what_is(self, name: str) -> str | None:
        """What a name stands for: a source, a constant, a box or a let; None for one that is free."""
        if name in self.sources:
            return f"a {'data' if self.sources[name].is_data else 'noise'} source"
        if name in self.consts:
            return "a constant"
        if name in self.boxes:
            return {"learner": "a learner", "fixed": "a fixed box", "function": "a function"}[self.boxes[name].role]
        return "a let" if name in self.lets else None

    def names_of_boxes(self) -> str:
        """All boxes there are, for an error message."""
        own = [*self.boxes, *(name for name in self.lets if name not in self.boxes)]
        built_in = f"built in are {', '.join(BUILT_IN)}"
        return f"there are {', '.join(own)}; {built_in}" if own else built_in


def with_weight(atom: Atom, weight: float) -> Atom:
    """The atom with another weight. Raises `AtomError` for one that no loss can have."""
    if not math.isfinite(weight) or not 0 <= weight <= LARGEST_WEIGHT:
        raise AtomError(
            f"{atom.name}: a weight must be a number of at least 0 and at most {LARGEST_WEIGHT:g}, got {weight:g}"
        )
    return replace(atom, weight=float(weight))


def pick(names: Iterable[str], known: dict, what: str, where: str) -> None:
    """Raises `AtomError` for a name that is not known, and says which are."""
    for name in names:
        if name not in known:
            there = f"there are {', '.join(known)}" if known else "there is none"
            raise AtomError(f"{where}: no such {what}: {name}; {there}")
