"""Read untrusted files safely, and check output paths before work starts."""

import json
from pathlib import Path
from typing import Any

import yaml

from ..errors import AtomError, first_line

_YAML_BYTES, _YAML_NODES, _YAML_DEPTH = 2**20, 100_000, 64


def read_json(file: str | Path, max_bytes: int, what: str) -> dict[str, Any]:
    """Read a JSON object from an untrusted file. Raises `AtomError` for other content, or more than `max_bytes`."""
    try:
        with Path(file).open("rb") as stream:
            content = stream.read(max_bytes + 1)
        if len(content) > max_bytes:
            raise AtomError(f"{file} is larger than the {max_bytes} bytes that an {what} may have")
        data = json.loads(content.decode())
    except AtomError:
        raise
    except (OSError, ValueError, RecursionError) as error:  # RecursionError: nested too deeply
        raise AtomError(f"{file} is not a readable {what}: {first_line(error)}") from error
    if not isinstance(data, dict):
        raise AtomError(f"{file} is not a readable {what}: it must be a JSON object, got {type(data).__name__}")
    return data


def read_yaml(path: str, given: str) -> Any:
    """The content of a YAML file. Raises `AtomError`, naming the argument that gave it."""
    try:
        with Path(path).open("rb") as stream:
            content = stream.read(_YAML_BYTES + 1)
        if len(content) > _YAML_BYTES:
            raise AtomError(f"{given} {path!r} is larger than the {_YAML_BYTES} bytes that it may have")
        return parse_yaml(content.decode())
    except AtomError:
        raise
    except RecursionError as error:
        raise AtomError(f"{given} {path!r} cannot be read: it is nested too deeply") from error
    except (OSError, ValueError, yaml.YAMLError) as error:  # ValueError: a date or number that is none
        raise AtomError(f"{given} {path!r} cannot be read: {' '.join(str(error).split())}") from error


def parse_yaml(text: str) -> Any:
    """The content of YAML text, whose aliases may repeat things, but not expand to more than any settings hold.

    Raises:
        ValueError, RecursionError, yaml.YAMLError: it is no YAML, nested too deeply, or expands to too much.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _measure_yaml(node)
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _measure_yaml(root: yaml.Node) -> None:
    """Raise `ValueError` for nodes that are too many with their aliases expanded, or nested too deeply."""
    measured: dict[int, tuple[int, int]] = {}  # (nodes, depth); (0, 0) while it is being measured
    stack = [root]
    while stack:
        node = stack[-1]
        value = node.value if isinstance(node, yaml.CollectionNode) else []
        inner = [part for pair in value for part in (pair if isinstance(pair, tuple) else (pair,))]
        if id(node) not in measured:
            measured[id(node)] = (0, 0)
            stack += [part for part in inner if id(part) not in measured]
            continue
        stack.pop()
        parts = [measured[id(part)] for part in inner]
        if (0, 0) in parts:
            raise ValueError("an alias holds itself")
        nodes, depth = 1 + sum(n for n, _ in parts), 1 + max((d for _, d in parts), default=0)
        if nodes > _YAML_NODES or depth > _YAML_DEPTH:
            raise ValueError(
                f"it is nested more than {_YAML_DEPTH} deep, or expands to more than {_YAML_NODES} values with its aliases"
            )
        measured[id(node)] = nodes, depth


def check_page(page: str, flag: str = "--page") -> None:
    """Reject the path of a file that could not be written when the work is done."""
    parents = [path for path in Path(page).absolute().parents if path.exists()]
    if Path(page).is_dir() or not parents[0].is_dir():
        raise AtomError(f"{flag} {page!r} cannot be written: give the path of a file in a folder")


def check_output_folder(folder: str | Path, flag: str = "--output_dir") -> None:
    """Reject the path of a folder where there is a file."""
    if Path(folder).exists() and not Path(folder).is_dir():
        raise AtomError(f"{flag} {str(folder)!r} is a file; give a folder")
