"""Tasks that are known by a name, as files beside this one: `patterns.gan(sample="vector(2)")`."""

import functools
from collections.abc import Callable
from pathlib import Path

from ...errors import AtomError
from ..reader import read_into, read_task
from ..spec import TaskSpec

_FOLDER = Path(__file__).parent

NAMES = tuple(sorted(path.stem for path in _FOLDER.glob("*.task")))


def pattern_text(name: str) -> str:
    """The text of a pattern, with its comments. Raises `AtomError` if there is none of this name."""
    if name not in NAMES:
        raise AtomError(f"no such pattern: {name!r}; there are {', '.join(NAMES)}")
    return (_FOLDER / f"{name}.task").read_text(encoding="utf-8")


def pattern(name: str, **types: str) -> TaskSpec:
    """The task of a pattern.

    Args:
        name: one of `NAMES`.
        types: other kinds for its types, such as image="pixels(3, 32, 32)".

    Raises:
        AtomError: no such pattern or type, or a kind that does not fit the rest of the task.
    """
    spec = read_task(pattern_text(name))
    for key, kind in types.items():
        if key not in spec.types:
            raise AtomError(f"{name} has no type {key}; there are {', '.join(spec.types)}")
        scratch = TaskSpec()
        read_into(scratch, f"type {key} = {kind}\n")
        spec.types[key] = scratch.types[key]
    if not types:
        return spec
    # Everything is looked up again: the declarations hold the kinds that they were read with.
    kinds = "".join(f"type {key} = {kind}\n" for key, kind in spec.types.items())
    lines = str(spec).splitlines(keepends=True)
    return read_task(kinds + "".join(line for line in lines if not line.startswith("type ")))


def __getattr__(name: str) -> Callable[..., TaskSpec]:
    if name in NAMES:
        return functools.partial(pattern, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *NAMES})
