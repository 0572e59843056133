"""Checks of the folders that a command is given."""

from pathlib import Path

from .errors import AtomError


def check_output_folder(folder: str | Path, flag: str = "--output_dir") -> None:
    """Refuses a path where no folder can be made because a file is there."""
    if Path(folder).exists() and not Path(folder).is_dir():
        raise AtomError(f"{flag} {str(folder)!r} is a file; give a folder")
