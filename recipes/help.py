"""Writes what `atom-hf COMMAND --help` prints into atom_hf/cli/help/: python recipes/help.py

Run it when a flag or its help has changed. From these files the help is there at once: PyTorch and Transformers, which the
flags come from, take seconds to import.
"""

import contextlib
import io
from importlib import import_module
from pathlib import Path

from atom_hf.cli.main import COMMANDS

FOLDER = Path(__file__).resolve().parents[1] / "atom_hf" / "cli" / "help"


def help_of(command: str) -> str:
    """What the command itself prints."""
    module, printed = import_module(f"atom_hf.cli.{command.replace('-', '_')}"), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        module.main(["--help"])
    return printed.getvalue()


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for command in COMMANDS:
        (FOLDER / f"{command}.txt").write_text(help_of(command), encoding="utf-8")


if __name__ == "__main__":
    main()
