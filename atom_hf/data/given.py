"""Texts and pictures that a command line names: as words, through a pipe, in files and in folders."""

import contextlib
import os
import stat
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from ..errors import AtomError, first_line
from ..utils.pictures import eight_bit
from .sources import DATA_FILES, IMAGE_FILES

STANDARD_INPUT = "-"

CHECKED = 24
"""How many pictures are read to see whether they can be."""


@dataclass
class Given:
    """The texts or pictures from the command line, before a model is loaded."""

    texts: list[str] = field(default_factory=list)
    pictures: list[Path] = field(default_factory=list)
    left_out: int = 0
    """The number of samples beyond --samples."""


def read_given(texts: list[str], files: list[str], samples: int | None) -> Given:
    """The texts or pictures that are named; of files and standard input the first `samples` (None: all). Raises `AtomError`."""
    given, listed = Given(), []
    for text in texts:
        if text != STANDARD_INPUT:
            given.texts.append(text)
            continue
        with contextlib.suppress(AttributeError, ValueError):  # UTF-8 as in files, whatever the locale says
            sys.stdin.reconfigure(encoding="utf-8", errors="strict")
        lines = _lines(sys.stdin, "standard input")
        given.texts += lines[:samples]
        given.left_out += len(lines[samples:]) if samples is not None else 0
    if any(not text.strip() for text in given.texts):
        raise AtomError("--text: an empty text has no words; give one with some")
    pictures: list[Path] = []
    for file in files:
        path, where = Path(file).expanduser(), f"--file {file!r}"
        if path.is_dir():
            found = sorted(child for child in path.iterdir() if child.suffix.lower() in IMAGE_FILES and child.is_file())
            if not found:
                raise AtomError(
                    f"{where}: no images in this folder (their names end in {', '.join(IMAGE_FILES)}); "
                    "a folder of folders of images is a --dataset"
                )
            pictures += found
        elif not path.is_file():
            raise AtomError(f"{where}: there is no such file or folder")
        elif path.suffix.lower() in IMAGE_FILES:
            pictures.append(path)
        elif path.suffix.lower() in DATA_FILES:
            raise AtomError(f"{where} has columns: give it as --dataset")
        else:
            try:
                with path.open(encoding="utf-8") as opened:
                    listed += _lines(opened, where)
            except OSError as error:
                raise AtomError(f"{where} cannot be read: {first_line(error)}") from error
    if pictures and listed:
        raise AtomError("--file: texts and images were given; give either")
    given.texts += listed[:samples]
    given.pictures = pictures[:samples]
    for path in given.pictures[:CHECKED]:  # the rest as they are read: they may be many
        open_picture(path)
    if files and samples is not None:
        given.left_out += max(0, len(pictures) + len(listed) - samples)
    return given


def is_piped() -> bool:
    """Whether standard input is a pipe or file: not a terminal, and not absent."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (AttributeError, OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


def _lines(stream: Any, where: str) -> list[str]:
    """The lines of a file that are not empty. Raises `AtomError`."""
    try:
        lines = [line.rstrip("\r\n") for line in stream if line.strip()]
    except UnicodeDecodeError as error:
        raise AtomError(f"{where} is not UTF-8 text ({first_line(error)})") from error
    if not lines:
        raise AtomError(f"{where} is empty; give one text per line")
    return lines


def open_picture(path: Path) -> Image.Image:
    """A picture, the right way up. Raises `AtomError`."""
    try:
        with Image.open(path) as opened:
            opened.load()
            return eight_bit(ImageOps.exif_transpose(opened))
    except Exception as error:  # a broken file raises many kinds of errors
        raise AtomError(f"--file {str(path)!r} is not a readable image: {first_line(error)}") from error
