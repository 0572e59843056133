"""Read untrusted files safely, and check output paths before work starts."""

import json
from pathlib import Path
from typing import Any

import yaml

from ..errors import AtomError, first_line


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
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise AtomError(f"{given} {path!r} cannot be read: {' '.join(str(error).split())}") from error


def check_page(page: str, flag: str = "--page") -> None:
    """Reject the path of a file that could not be written when the work is done."""
    parents = [path for path in Path(page).absolute().parents if path.exists()]
    if Path(page).is_dir() or not parents[0].is_dir():
        raise AtomError(f"{flag} {page!r} cannot be written: give the path of a file in a folder")


def check_output_folder(folder: str | Path, flag: str = "--output_dir") -> None:
    """Reject the path of a folder where there is a file."""
    if Path(folder).exists() and not Path(folder).is_dir():
        raise AtomError(f"{flag} {str(folder)!r} is a file; give a folder")
