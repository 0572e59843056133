"""The command line: `atom-hf train | compare | explain`, also `python -m atom_hf`."""

import argparse
import dataclasses
import logging
import math
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .errors import AtomError

USAGE = """usage: atom-hf COMMAND [flags]

  train     fine-tune a checkpoint; with --atom, with the atom loss
  compare   fine-tune with and without --atom over several seeds, and print both side by side
  explain   write a page of samples under their token importance

atom-hf COMMAND --help lists the flags. On many processes: accelerate launch -m atom_hf train ..."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command. Returns its exit status: 0, or 2 after one line that says what cannot be used."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    command = arguments[0] if arguments else "--help"
    if command in ("-h", "--help"):
        print(USAGE)
        return 0
    if command == "--version":
        from . import __version__

        print(f"atom-hf {__version__}")
        return 0
    if command not in COMMANDS:
        return _refuse(f"no such command: {command!r}; there are {', '.join(COMMANDS)}")
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("atom_hf").setLevel(logging.INFO)
    try:
        COMMANDS[command](arguments[1:])
    except AtomError as error:
        return _refuse(str(error))
    except KeyboardInterrupt:
        print("\ninterrupted; go on with --resume_from_checkpoint true", file=sys.stderr)
        return 130
    return 0


def train(arguments: list[str]) -> None:
    """`atom-hf train`."""
    from .run import RunArguments, data_flags, fine_tune
    from .trainer import AtomTrainingArguments

    run, args = parse_flags("train", arguments, [RunArguments, AtomTrainingArguments])
    outcome = fine_tune(run, args)
    if args.atom:
        shown = shlex.join(["atom-hf", "explain", *data_flags(run), "--model", args.output_dir])
    else:
        shown = shlex.join(["atom-hf", "train", *arguments, "--atom", "--output_dir", f"{args.output_dir}-atom"])
    if not outcome.trainer.is_world_process_zero():
        return
    rows = [[name, format_number(value)] for name, value in outcome.metrics.items() if name != "epoch"]
    rows += [
        [f"mean |{k}|" if k == "importance" else k.replace("_", " "), format_number(v)]
        for k, v in outcome.importance.items()
    ]
    print()
    print(format_table([f"{outcome.data.name}, {outcome.data.task}", "atom" if args.atom else "plain"], rows))
    print(f"\nmodel     {outcome.output_dir}")
    print(f"next      {shown}")


def compare(arguments: list[str]) -> None:
    """`atom-hf compare`."""
    from .compare import CompareArguments, compare_runs
    from .run import RunArguments
    from .trainer import AtomTrainingArguments

    run, args, options = parse_flags("compare", arguments, [RunArguments, AtomTrainingArguments, CompareArguments])
    report = compare_runs(run, args, options)
    print()
    print(format_table(report.table.header, report.table.rows))
    print(f"\n{report.table.note}\n")
    print(f"results   {report.folder}")
    if report.page:
        print(f"page      {report.page}")


def explain(arguments: list[str]) -> None:
    """`atom-hf explain`."""
    from .explain import ExplainArguments, explain_model
    from .run import RunArguments

    run, options = parse_flags("explain", arguments, [RunArguments, ExplainArguments])
    print(f"page      {explain_model(run, options)}")


COMMANDS: dict[str, Callable[[list[str]], None]] = {"train": train, "compare": compare, "explain": explain}


def parse_flags(command: str, arguments: list[str], kinds: list[type]) -> list[Any]:
    """One instance of each dataclass in `kinds`, from flags and, below them, the file given by `--config`.

    Raises:
        AtomError: a file that cannot be read, a key in it that is no flag, values that TrainingArguments refuses.
    """
    from transformers import HfArgumentParser, TrainingArguments

    parser = HfArgumentParser(kinds, prog=f"atom-hf {command}", allow_abbrev=False)
    parser.add_argument("--config", help="A YAML file with any of these flags as keys; flags win over it.")
    if any(issubclass(kind, TrainingArguments) for kind in kinds):
        # Where these defaults differ from TrainingArguments': small runs show a log, and evaluate in fewer batches.
        parser.set_defaults(logging_steps=50, per_device_eval_batch_size=32)
    file = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    file.add_argument("--config")
    known, _ = file.parse_known_args(arguments)
    if known.config:
        parser.set_defaults(**_read_config(known.config, kinds))
    try:
        *parsed, _config = parser.parse_args_into_dataclasses(arguments)
    except (ValueError, TypeError, ImportError) as error:
        raise AtomError(" ".join(str(error).split())) from error
    return parsed


def _read_config(path: str, kinds: list[type]) -> dict[str, Any]:
    import yaml

    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise AtomError(f"--config {path!r} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise AtomError(f"--config {path!r} must hold flags as keys, such as 'learning_rate: 1e-4'")
    unknown = sorted(set(map(str, values)) - {f.name for kind in kinds for f in dataclasses.fields(kind)})
    if unknown:
        raise AtomError(f"--config {path!r} has keys that are no flags: {', '.join(unknown)}")
    overrides = values.get("config_overrides")
    if isinstance(overrides, dict):
        values["config_overrides"] = ",".join(f"{name}={value}" for name, value in overrides.items())
    return values


def format_table(header: list[str], rows: list[list[str]]) -> str:
    """Columns aligned, the first to the left and the others to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(row: list[str]) -> str:
        return "  ".join(
            cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )

    return "\n".join([line(header), "  ".join("-" * w for w in widths), *map(line, rows)])


def format_number(value: float) -> str:
    """Four significant digits; whole numbers as they are."""
    if isinstance(value, int) or not math.isfinite(value):
        return str(value)
    return f"{value:.4f}" if 0.001 <= abs(value) < 10 else f"{value:.4g}"


def _refuse(message: str) -> int:
    print(f"atom-hf: error: {' '.join(message.split())}", file=sys.stderr)
    return 2
