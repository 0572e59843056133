"""What a stranger's text may do to a terminal, and what a terminal that is gone may do to a run: nothing."""

import contextlib
import io
import logging
import os
import subprocess
import sys

import pytest
from tqdm import tqdm

from atom_hf.cli import main as cli
from atom_hf.errors import AtomError
from atom_hf.utils.terminal import GuardedStream, encodable, get_logger, guard_streams, harmless, write_styled
from helpers.paths import ROOT, environment

pytestmark = pytest.mark.promise(
    "No untrusted text controls the terminal; a closed pipe or a full disk behind it loses no run.",
    "escape sequences on both streams, in logs, bars and tracebacks; closed pipes, /dev/full, no stream, an ASCII stream",
)


STEERING = {
    "title of the window": "\x1b]0;owned\x07",
    "clear the screen": "\x1b[2J\x1b[H",
    "one-byte sequence": "\x9b2J",
    "back to the start of the line": "label\rrm -rf",
    "backspaces": "good\b\b\b\bevil",
    "direction": "\u202egpj.exe",
    "isolate": "\u2066sea\u2069",
    "a sequence inside a colour": "\x1b\x1b[0m[2J",
    "answer back": "\x05",
    "lone surrogate": "caf\udce9",
}


@pytest.mark.parametrize("text", STEERING.values(), ids=STEERING)
@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_nothing_that_steers_reaches_a_stream(name, text):
    stream = io.StringIO()
    restore = guarded(**{name: stream})
    try:
        print(f"column {text}, label {text}", file=getattr(sys, name))
    finally:
        restore()
    shown = stream.getvalue()
    assert shown.startswith("column ") and shown.endswith("\n") and "\ufffd" in shown
    assert all(letter.isprintable() or letter == "\n" for letter in shown)


def guarded(**streams):
    """Puts these in place of standard output and error, filtered. Returns what undoes both."""
    with contextlib.ExitStack() as stack:
        for name, stream in streams.items():
            stack.enter_context(getattr(contextlib, f"redirect_{name}")(stream))
        undo = guard_streams()
        stack.callback(undo)
        return stack.pop_all().close


def test_plain_text_and_colours_of_libraries_are_readable():
    assert harmless("früh\tπ 🌊\nnext\r\n") == "früh\tπ 🌊\nnext\n"
    assert harmless("\x1b[1;31mLOAD REPORT\x1b[0m") == "LOAD REPORT"


def test_progress_bars_move_as_before():
    plain, filtered = io.StringIO(), io.StringIO()
    for stream in (plain, GuardedStream(filtered)):
        for _ in tqdm(range(3), file=stream, mininterval=0, bar_format="{desc}{n}", desc="tokens"):
            for _ in tqdm(range(2), file=stream, mininterval=0, bar_format="{n}", leave=False):
                pass
    assert filtered.getvalue() == plain.getvalue() and "\x1b[A" in plain.getvalue()


def test_what_we_colour_ourselves_stays_coloured():
    stream = io.StringIO()
    restore = guarded(stdout=stream)
    try:
        write_styled("\x1b[1msea\x1b[0m ±")
    finally:
        restore()
    assert stream.getvalue() == "\x1b[1msea\x1b[0m ±\n"


def test_loggers_that_hold_the_stream_are_filtered_too():
    stream = io.StringIO()
    library, handler = logging.getLogger("some.library"), logging.StreamHandler(stream)
    library.addHandler(handler)
    try:
        restore = guarded(stderr=stream)
        library.error("model type \x1b]0;owned\x07")
        restore()
        assert handler.stream is stream
    finally:
        library.removeHandler(handler)
    assert stream.getvalue() == "model type \ufffd]0;owned\ufffd\n"


def test_the_log_of_the_package_is_harmless_in_any_handler(caplog):
    logger = get_logger("atom_hf.tests.log")
    assert get_logger("atom_hf.tests.log") is logger and len(logger.filters) == 1
    logger.warning("the checkpoint has other classes (%s)", "\x1b[2Jcat")
    assert caplog.messages == ["the checkpoint has other classes (\ufffd[2Jcat)"]


def test_every_module_of_the_package_logs_through_it():
    others = [
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "atom_hf").rglob("*.py")
        if "getLogger(__name__)" in path.read_text("utf-8") or "get_logger as" in path.read_text("utf-8")
    ]
    assert others == []


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("ascii", "0.91 +/- 0.02 -> ?"),
        ("latin-1", "0.91 +/- 0.02 -> ?"),  # which has the first of them, but not all
        ("utf-8", "0.91 ± 0.02 → 海"),
        (None, "0.91 ± 0.02 → 海"),
    ],
)
def test_an_encoding_without_the_letter_gets_a_plainer_one(encoding, shown):
    assert encodable("0.91 ± 0.02 → 海", encoding) == shown


def test_all_is_printed_to_an_ascii_stream():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    restore = guarded(stdout=stream)
    try:
        print("accuracy  0.91 ± 0.02")
    finally:
        restore()
    assert raw.getvalue() == b"accuracy  0.91 +/- 0.02\n"


class Full(io.StringIO):
    """A stream that cannot be written."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def write(self, text):
        raise self.error


def test_a_reader_that_has_gone_costs_nothing(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", Full(BrokenPipeError(32, "Broken pipe")))
    assert cli.main(["--help"]) == 0
    assert capsys.readouterr().err == ""


def test_a_full_disk_behind_the_output_is_told_at_the_end(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", Full(OSError(28, "No space left on device")))
    assert cli.main(["--help"]) == 1
    assert capsys.readouterr().err == (
        "atom-hf: standard output could not be written: [Errno 28] No space left on device\n"
    )


def test_there_may_be_no_output_at_all(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    assert cli.main(["--version"]) == 0
    write_styled("nobody reads it")
    assert sys.stdout is None


def test_an_error_names_a_strangers_word_without_its_escapes(monkeypatch, capsys):
    def reject(arguments):
        raise AtomError("the columns are \x1b]0;owned\x07text")

    monkeypatch.setattr("atom_hf.cli.train.main", reject)
    assert cli.main(["train"]) == 2
    assert capsys.readouterr().err == "atom-hf: error: the columns are \ufffd]0;owned\ufffdtext\n"


def test_a_process_whose_reader_has_gone_ends_as_if_it_were_there():
    """In a process of its own, where Python writes what is left when it exits, to a pipe that nobody reads."""
    reads, writes = os.pipe()
    os.close(reads)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "atom_hf", "--help"], stdout=writes, stderr=subprocess.PIPE, env=environment()
        )
    finally:
        os.close(writes)
    assert (done.returncode, done.stderr) == (0, b"")
