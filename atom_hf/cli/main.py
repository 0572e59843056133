"""The command line: `atom-hf train | compare | study | ...`, also `python -m atom_hf`."""

import logging
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.resources import files

from ..errors import AtomError, first_line
from ..utils.files import DISK_ERRORS
from ..utils.terminal import guard_streams
from ..version import __version__

USAGE = """usage: atom-hf COMMAND [flags]

  train         fine-tune a checkpoint; with --atom, with the atom loss
  compare       paired runs over several seeds: with and without --atom, two recipes, or one and changed flags
  study         run arms x data sets x sizes x seeds from a YAML file, and write tables and plots
  fit-explainer fit a trained model's token importance to its prediction (train does so itself)
  explain       show texts or images with their token importance, here and on a page
  predict       predict the rows of a file, with token importance, as JSON Lines or csv
  fragments     compare what the units, layers or classes of several runs say, and find which say the same
  faithfulness  measure how faithful the importance is, next to other attribution methods
  push          check a saved model and push it to the Hugging Face Hub
  task          check, draw, compare and train a task: a loss written as equations between models
  manipulate    turn a classifier into an editor that writes its classes into images or embeddings, and edit with it
  sample        write a grid of samples from a trained denoiser
  bench         measure what --atom costs: a training step with it and without it, interleaved

atom-hf COMMAND --help lists the flags; train, compare and bench list all of Trainer's by --help_all.
On many processes: atom-hf train --accelerate_config ddp ..."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command. Returns its exit code: 0, or 2 after an error message of one line (1 if training diverged, or if runs of
    a study on Ray have failed).

    If `train` started processes, it is the status of the first that failed.

    Whatever is printed, logged or written by a progress bar goes through the filters of `utils.terminal`. If the reader of a
    pipe has gone (`| head -1`), only the rest of the text is lost; if standard output is on a full disk, the command reports
    it at the end and returns 1.
    """
    restore, status = guard_streams(), None
    try:
        status = _run(list(sys.argv[1:] if arguments is None else arguments))
    finally:
        # The traceback of an error that ends the process is filtered too.
        lost = restore() if arguments is not None or status is not None else None
    if lost is not None:
        print(f"atom-hf: standard output could not be written: {first_line(lost)}", file=sys.stderr)
    return status or int(lost is not None)


def _run(arguments: list[str]) -> int:
    command = arguments[0] if arguments else "--help"
    if command in ("-h", "--help"):
        print(USAGE)
        return 0
    if command == "--version":
        print(f"atom-hf {__version__}")
        return 0
    if command not in COMMANDS:
        return _reject(f"no such command: {command!r}; there are {', '.join(COMMANDS)}")
    if {"-h", "--help"} & set(arguments[1:]):
        # What the command itself would print, kept in a file by recipes/help.py: generating it takes seconds of imports.
        print((files(__package__) / "help" / f"{command}.txt").read_text(encoding="utf-8"), end="")
        return 0
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("atom_hf").setLevel(logging.INFO)
    try:
        module = import_module(f".{command.replace('-', '_')}", __package__)
        return module.main(arguments[1:]) or 0
    except AtomError as error:
        return _reject(str(error), error.exit_status)
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        return _reject(f"{error.filename or 'a file'} could not be written: {error.strerror}")
    except KeyboardInterrupt:
        print(f"\ninterrupted; {GO_ON.get(command, 'nothing was written')}", file=sys.stderr)
        return 130


GO_ON = {
    "train": "if a checkpoint was written, the same command resumes with --resume_from_checkpoint true",
    "compare": "the same command resumes after the last finished run",
    "study": "the same command resumes after the last finished run",
    "predict": "the same command goes on after the last row that was written",
    "faithfulness": "the same command resumes where it stopped",
    "fragments": "the same command resumes after the last run that was read",
    "task": "if a checkpoint was written, the same command resumes with --resume_from_checkpoint true",
    "manipulate": "if a checkpoint was written, the same command resumes with --resume_from_checkpoint true",
    "push": "the repository is as it was, unless the commit had been sent",
}

# Each is a file beside this one, imported when it is asked for: Torch and Transformers take seconds to import.
COMMANDS = (
    *("train", "compare", "study", "fit-explainer", "explain", "predict", "fragments"),
    *("faithfulness", "push", "task", "manipulate", "sample", "bench"),
)


def _reject(message: str, status: int = 2) -> int:
    from ..hub.messages import without_token  # brings the Hub's client, which --help does without

    print(f"atom-hf: error: {without_token(' '.join(message.split()))}", file=sys.stderr)
    return status
