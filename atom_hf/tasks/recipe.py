"""A task with its bindings as one YAML file:

task: vae                   # the name of a pattern, the path of a task, or its text (after |)
types: {image: pixels(1, 8, 8)}   # other kinds for a pattern's types
data:
  D: digits                 # a data set as --dataset names it, or {dataset: ..., columns: [...], max_train_samples: ...}
bind:
  enc: mlp(64)              # a network by name, or the folder or Hub id of a model
learning_rate: 1.0e-3       # and any flag of atom-hf task
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import AtomError
from ..utils.files import read_yaml
from . import patterns
from .reader import read_task
from .spec import TaskSpec

OWN_KEYS = ("task", "types", "data", "bind")


@dataclass(frozen=True)
class Recipe:
    """A task, and what its sources and boxes are."""

    name: str
    spec: TaskSpec
    data: dict[str, Any] = field(default_factory=dict)
    """By the names of data sources, as the file gives them."""
    bind: dict[str, str] = field(default_factory=dict)
    flags: dict[str, Any] = field(default_factory=dict)

    def bound(self, pairs: Sequence[str]) -> "Recipe":
        """The recipe with what `--bind name=value` says, of boxes and of data sources. Raises `AtomError`."""
        data, bind = dict(self.data), dict(self.bind)
        sources = [name for name, source in self.spec.sources.items() if source.is_data]
        boxes = [name for name in self.spec.boxes if name not in self.spec.lets]
        for pair in pairs:
            name, equals, value = pair.partition("=")
            if not equals or not value:
                raise AtomError(f"--bind {pair!r}: give a name and what it is, as in D=digits or f=mlp(64)")
            if name in sources:
                data[name] = value
            elif name in boxes:
                bind[name] = value
            else:
                raise AtomError(
                    f"--bind {pair!r}: no such box or data source: {name}; there are {', '.join([*boxes, *sources])}"
                )
        return Recipe(self.name, self.spec, data, bind, self.flags)


def read_recipe(source: str) -> Recipe:
    """The recipe in a YAML file, or a task alone: a file, or the name of a pattern. Raises `AtomError`."""
    path = Path(source).expanduser()
    if path.suffix not in (".yaml", ".yml"):
        return Recipe(path.stem, named_task(source))
    where = f"recipe {source!r}"
    given = read_yaml(str(path), "recipe")
    if not isinstance(given, dict) or not isinstance(given.get("task"), str):
        raise AtomError(f"{where} must hold 'task: ...', the name of a pattern, the path of a task, or its text")
    types = _texts(given.get("types", {}), f"{where}: types")
    try:
        spec = patterns.pattern(given["task"], **types) if types else named_task(given["task"], path.parent)
    except AtomError as error:
        raise AtomError(f"{where}: {error}") from error
    data, bind = given.get("data", {}), _texts(given.get("bind", {}), f"{where}: bind")
    if not isinstance(data, Mapping):
        raise AtomError(f"{where}: data must hold 'SOURCE: data set', got {data!r}")
    sources = [name for name, found in spec.sources.items() if found.is_data]
    for name in data:
        if name not in sources:
            raise AtomError(f"{where}: data: no such data source: {name}; there are {', '.join(sources)}")
    for name in bind:
        if name not in spec.boxes or name in spec.lets:
            raise AtomError(f"{where}: bind: no such box: {name}; there are {', '.join(spec.boxes)}")
    flags = {str(key): value for key, value in given.items() if key not in OWN_KEYS}
    return Recipe(path.stem, spec, {name: _located(value, path.parent) for name, value in data.items()}, bind, flags)


def named_task(source: str, folder: Path = Path()) -> TaskSpec:
    """The task of a name: a pattern's, a path (from a folder), or a text itself. Raises `AtomError`."""
    if source in patterns.NAMES and not (folder / source).exists():
        return read_task(patterns.pattern_text(source))
    if "\n" in source.strip() or len(source.split()) > 1:
        return read_task(source)
    try:
        return read_task(folder / source.strip())
    except AtomError as error:
        if "there is no such file" not in str(error):
            raise
        raise AtomError(
            f"{source!r}: there is no such file; give the path of a task, or one of {', '.join(patterns.NAMES)}"
        ) from error


def _texts(given: Any, where: str) -> dict[str, str]:
    if not isinstance(given, Mapping) or not all(isinstance(value, str) for value in given.values()):
        raise AtomError(f"{where} must hold 'name: text', got {given!r}")
    return {str(name): value for name, value in given.items()}


def _located(value: Any, folder: Path) -> Any:
    """A data set whose file lies beside the recipe, by its path."""
    if isinstance(value, str):
        beside = folder / value
        return str(beside) if value and not Path(value).exists() and beside.exists() else value
    if isinstance(value, Mapping):
        return {
            key: _located(part, folder) if key in ("dataset", "eval_dataset") else part for key, part in value.items()
        }
    return value
