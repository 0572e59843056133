"""Read a task: text to `TaskSpec`."""

import functools
import math
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lark import Lark, Token, Transformer, UnexpectedCharacters, UnexpectedToken, v_args
from lark.exceptions import VisitError
from lark.indenter import DedentError, Indenter

from ..errors import AtomError, first_line
from .declarations import Declarations
from .functions import Maker
from .kinds import Divergence
from .spec import Atom, Binding, TaskSpec, with_weight
from .syntax import Call, Group, Name, Part
from .typecheck import check_atom

MOST_BYTES = 2**20

_SAYS = {
    "NAME": "a name",
    "NUMBER": "a number",
    "PATH": "a folder or Hub id",
    "_NL": "the end of the line",
    "_INDENT": "an indented line",
    "_DEDENT": "the end of the block",
    "$END": "the end of the text",
}


class Statement(NamedTuple):
    """A line of a task, in pieces whose names are not looked up yet."""

    what: str
    pieces: tuple


def read_task(source: str | Path) -> TaskSpec:
    """Read a task that can be trained.

    Args:
        source: the text, or the path of a file that holds it. A single word is a path.

    Raises:
        AtomError: there is no such file, or whatever is wrong with the text, in one line.
    """
    text, name = _text_of(source)
    where = f"{name}: " if name else ""
    if not text.strip():
        raise AtomError(f"{where}line 1: the task is empty; expected declarations such as 'data D : image, label'")
    try:
        return TaskSpec(text).check()
    except AtomError as error:
        raise AtomError(f"{where}{error}") from error


def read_into(spec: TaskSpec, text: str) -> None:
    """Add what a text says to a task. Raises `AtomError`; part of the text may have been added then."""
    try:
        statements = parse(text)
        declarations = Declarations(spec)
        for statement in statements:
            if statement.what == "types":
                declarations.collect_types(statement.pieces)
        declarations.resolve_types()
        blocks = [statement for statement in statements if statement.what == "block"]
        for statement in statements:
            if statement.what not in ("types", "block", "let"):
                getattr(declarations, statement.what)(*statement.pieces)
        declarations.lets([statement.pieces for statement in statements if statement.what == "let"])
        for block in blocks:
            for atom in block.pieces:
                check_atom(spec, atom)
                spec.atoms[atom.name] = atom
    except RecursionError as error:
        raise AtomError("the task is nested too deeply; name parts of it by let") from error


def parse(text: str) -> list[Statement]:
    """The statements of a text. Raises `AtomError`, naming the line and what was expected there."""
    if len(text) > MOST_BYTES:
        raise AtomError(f"the task is larger than the {MOST_BYTES} characters that it may have")
    parser = _parser()
    try:
        tree = parser.parse(textwrap.dedent(text) + "\n")
        return _Build().transform(tree)
    except UnexpectedToken as error:
        raise AtomError(_unexpected(parser, text, error, error.token, error.expected)) from error
    except UnexpectedCharacters as error:
        raise AtomError(_unexpected(parser, text, error, error.char, error.allowed or set())) from error
    except VisitError as error:
        if isinstance(error.orig_exc, AtomError):
            raise error.orig_exc from error
        if isinstance(error.orig_exc, RecursionError):
            raise error.orig_exc from error
        raise AtomError(f"the task cannot be read: {first_line(error.orig_exc)}") from error


def _unexpected(parser: Lark, text: str, error: Any, got: Any, expected: set[str]) -> str:
    line = error.line if isinstance(error.line, int) and error.line > 0 else text.count("\n") + 1
    kind = getattr(got, "type", "")
    if kind == "_INDENT":
        line += 1  # the token begins where the line before ends
    shown = _SAYS.get(kind) if kind in ("_NL", "_INDENT", "_DEDENT", "$END") else repr(str(got)[:40])
    return f"line {line}: got {shown}; expected {_list([_say(parser, name) for name in sorted(expected)])}"


def _say(parser: Lark, name: str) -> str:
    return _SAYS.get(name) or f"'{parser.get_terminal(name).pattern.value}'"


def _list(words: list[str]) -> str:
    words = sorted(set(words), key=lambda word: (word.startswith("'"), word))
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


class _Blocks(Indenter):
    NL_type, INDENT_type, DEDENT_type = "_NL", "_INDENT", "_DEDENT"
    OPEN_PAREN_types, CLOSE_PAREN_types = ["LPAR"], ["RPAR"]
    tab_len = 8

    def handle_NL(self, token: Token) -> Iterator[Token]:
        try:
            yield from super().handle_NL(token)
        except DedentError as error:
            raise AtomError(
                f"line {token.end_line}: got a line that is indented like none above it; expected the same spaces before "
                "all atoms of a block"
            ) from error


@functools.cache
def _parser() -> Lark:
    grammar = Path(__file__).with_name("grammar.lark").read_text(encoding="utf-8")
    return Lark(grammar, parser="lalr", postlex=_Blocks(), maybe_placeholders=True)


@v_args(inline=True)
class _Build(Transformer):
    """Makes statements of what the grammar reads."""

    def start(self, *statements):
        return list(statements)

    def types(self, *pairs):
        return Statement("types", pairs)

    def named(self, name, wire):
        return str(name), wire

    def data(self, name, wires):
        return Statement("data", (str(name), wires))

    def noise(self, name, wire, maker):
        return Statement("noise", (str(name), wire, maker))

    def const(self, name, wire, value):
        return Statement("const", (str(name), wire, value))

    def learner(self, names, inputs, outputs):
        return Statement("box", (names, "learner", inputs, outputs))

    def fixed(self, names, inputs, outputs, path):
        path = None if path is None else str(path).strip('"')
        return Statement("box", (names, "fixed", inputs, outputs, path))

    def function(self, names, inputs, outputs, maker, noisy):
        outputs, marked = outputs
        return Statement("box", (names, "function", inputs, outputs, None, maker, bool(marked or noisy)))

    def let(self, name, *rest):
        return Statement("let", (str(name), rest[:-1], rest[-1]))

    def parameter(self, name, wire):
        return str(name), wire

    def wires(self, *wires):
        return wires

    def outputs(self, *wires):
        found = tuple(wire for wire in wires if wire is not None)
        marks = [isinstance(wire, Token) for wire in found]
        if any(marks[:-1]):
            raise AtomError(f"line {found[marks.index(True)].line}: 'noisy' comes last")
        return found[: -1 if marks[-1] else None], marks[-1]

    def wire(self, name, *sizes):
        return str(name), tuple(size for size in sizes if size is not None)

    def size(self, value):
        return str(value) if value.type == "NAME" else _whole(value)

    def maker(self, name, *arguments):
        arguments = [argument for argument in arguments if argument is not None]
        options = tuple(a for a in arguments if isinstance(a, tuple) and isinstance(a[1], float))
        columns = [a for a in arguments if isinstance(a, tuple) and isinstance(a[1], int)]
        if len(columns) > 1:
            raise AtomError(f"line {name.line}: {name} takes one column of a source, got {len(columns)}")
        plain = tuple(a for a in arguments if isinstance(a, float))
        return Maker(str(name), plain, options, columns[0] if columns else None)

    def option(self, name, value):
        return str(name), _finite(value)

    def column(self, name, index):
        return str(name), _whole(index)

    def plain(self, value):
        return _finite(value)

    def value(self, value):
        return str(value) if value.type == "NAME" else _finite(value)

    def block(self, *parts):
        over = tuple(part for part in parts if isinstance(part, Binding))
        atoms = []
        for name, weight, relation, divergence, trains in parts[len(over) :]:
            atom = Atom(name, *relation, over, divergence=divergence, trains=trains)
            atoms.append(with_weight(atom, 1.0 if weight is None else weight))
        return Statement("block", tuple(atoms))

    def binding(self, names, source):
        return Binding(names, str(source))

    def atom(self, name, weight, relation, divergence, trains):
        return str(name), None if weight is None else float(weight), relation, divergence, trains

    def equal(self, left, right):
        return "==", left, right

    def alike(self, left, right):
        return "~", left, right

    def least(self, cost):
        return "minimize", cost, None

    def divergence(self, name, *options):
        return Divergence(str(name), tuple(option for option in options if option is not None))

    def variable(self, name):
        return Name(str(name))

    def call(self, name, *arguments):
        return Call(str(name), arguments)

    def group(self, *parts):
        return Group(parts)

    def part(self, whole, index):
        return Part(whole, _whole(index))

    def names(self, *names):
        return tuple(map(str, names))


def _whole(token: Token) -> int:
    if not str(token).isdigit() or len(token) > 12:
        raise AtomError(f"line {token.line}: got {str(token)[:40]!r}; expected a whole number of at most 12 digits")
    return int(token)


def _finite(token: Token) -> float:
    value = float(token)
    if not math.isfinite(value):
        raise AtomError(f"line {token.line}: got {str(token)[:40]!r}; expected a finite number")
    return value


def _text_of(source: str | Path) -> tuple[str, str]:
    """The text, and the name of the file that it was read from, if it was."""
    if isinstance(source, str) and ("\n" in source or len(source.split()) != 1):
        if "\n" in source or not _is_file(source):
            return source, ""
    elif not isinstance(source, str | Path):
        raise AtomError(f"a task is a text or the path of a file, got a {type(source).__name__}")
    path = Path(source).expanduser()
    if not _is_file(path):
        raise AtomError(f"{str(source)!r}: there is no such file; give the path of a task, or its text")
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise AtomError(f"{str(source)!r} is larger than the {MOST_BYTES} bytes that a task may have")
        return content.decode(), path.name
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise AtomError(f"{path.name}: line {line}: got bytes that are no UTF-8; expected a text") from error
    except OSError as error:
        raise AtomError(f"{str(source)!r} cannot be read: {error.strerror}") from error


def _is_file(path: str | Path) -> bool:
    try:
        return Path(path).is_file()
    except (OSError, ValueError):  # too long, or a null character in it
        return False
