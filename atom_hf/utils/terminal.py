"""Filter all text that goes to a terminal: standard output, standard error, and the log of this package.

What a stranger's file says (a column, a label, a class, the name of a file) may hold escape sequences, which would recolour,
move or rename a terminal, or hide what stands there. A reader that has gone (`| head -1`), a full disk behind `> log` or an
encoding without the letter must not cost a run either.
"""

import logging
import os
import re
import sys
from collections.abc import Callable
from typing import Any

# Control characters, changes of direction, lone surrogates, and what is no character.
STEERING = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")

# Letters that our own output uses, for an encoding that lacks them.
_PLAINER = {"±": "+/-", "−": "-", "–": "-", "—": "-", "×": "x", "→": "->", "…": "...", "’": "'", "█": "#", "▀": "#"}

# Colours, which libraries put into what they log for a terminal.
_COLORS = re.compile("\x1b\\[[0-9;]*m")

# What progress bars write: back to the start of the line, or up and down by whole lines.
_BAR = re.compile("\r|(?:\n|\x1b\\[A)+\\Z")


def harmless(text: str) -> str:
    """Text without what would steer a terminal: colours are taken out, and each character that is left of other escape
    sequences becomes U+FFFD. Lines and tabs stay."""
    return STEERING.sub("\ufffd", _COLORS.sub("", text).replace("\r\n", "\n")).replace("\r", "\ufffd")


class GuardedStream:
    """A text stream, filtered: what is written is harmless, can be encoded, and is dropped once the stream cannot be written.

    Everything else is the stream's own.
    """

    def __init__(self, stream: Any):
        self.stream = stream
        self.lost: OSError | None = None
        """Why the stream could no longer be written; a pipe whose reader has gone is no reason."""
        self.gone = False
        """Whether what is written goes nowhere."""

    def write(self, text: str) -> int:
        start = _BAR.match(text)
        end = start.end() if start else 0
        self._pass(text[:end] + harmless(text[end:]))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def write_styled(self, text: str) -> None:
        """Write text with escape sequences of our own; what it quotes has been made harmless."""
        self._pass(text)

    def flush(self) -> None:
        self._try(self.stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def __iter__(self) -> Any:
        return iter(self.stream)

    def _pass(self, text: str) -> None:
        self._try(lambda: self.stream.write(encodable(text, getattr(self.stream, "encoding", None))))

    def _try(self, act: Callable[[], Any]) -> None:
        if self.gone:
            return
        try:
            act()
        except OSError as error:
            self.gone = True
            self.lost = None if isinstance(error, BrokenPipeError) else error
            _drop_buffer(self.stream)


def encodable(text: str, encoding: str | None) -> str:
    """Text in the letters of an encoding: a plainer one, or a question mark, where it lacks one."""
    encoding = encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        plainer = "".join(_PLAINER.get(letter, letter) if ord(letter) > 127 else letter for letter in text)
        return plainer.encode(encoding, "replace").decode(encoding)
    return text


def guard_streams() -> Callable[[], OSError | None]:
    """Put filters before standard output and standard error, for loggers that hold them too.

    Returns a function that takes the filters away, and returns why standard output could not be written, if so.
    """
    before = sys.stdout, sys.stderr
    guarded = {id(stream): GuardedStream(stream) for stream in before if stream is not None}
    sys.stdout, sys.stderr = (guarded.get(id(stream)) for stream in before)
    handlers = [
        (handler, handler.stream)
        for logger in (logging.root, *logging.root.manager.loggerDict.values())
        for handler in getattr(logger, "handlers", [])
        if isinstance(handler, logging.StreamHandler) and id(handler.stream) in guarded
    ]
    for handler, stream in handlers:
        handler.setStream(guarded[id(stream)])

    def restore() -> OSError | None:
        for stream in guarded.values():
            stream.flush()
        for handler, stream in handlers:
            handler.setStream(stream)
        sys.stdout, sys.stderr = before
        return next((stream.lost for stream in guarded.values() if stream.stream is before[0]), None)

    return restore


def write_styled(text: str) -> None:
    """Write text with colours of our own to standard output, and a line end."""
    write = getattr(sys.stdout, "write_styled", None) or getattr(sys.stdout, "write", None)
    if write is not None:
        write(f"{text}\n")


def get_logger(name: str) -> logging.Logger:
    """The logger of a module, whose messages are harmless wherever they are shown."""
    logger = logging.getLogger(name)
    if _clean not in logger.filters:
        logger.addFilter(_clean)
    return logger


def _clean(record: logging.LogRecord) -> bool:
    record.msg, record.args = harmless(record.getMessage()), None
    return True


def _drop_buffer(stream: Any) -> None:
    """Let what waits in a stream's buffer go nowhere: Python would try again when it exits, and fail."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except (OSError, ValueError, AttributeError):  # a stream without a descriptor
        return
