"""The command line: `atom-hf train | compare | study | tie | explain | ...`, also `python -m atom_hf`."""

import logging
import os
import shlex
import sys
from collections.abc import Callable, Sequence

from .errors import AtomError, without_token
from .utils.tables import format_number, format_table

USAGE = """usage: atom-hf COMMAND [flags]

  train         fine-tune a checkpoint; with --atom, with the atom loss
  compare       fine-tune with and without --atom over several seeds, and print both side by side
  study         run arms x data sets x sizes x seeds from a file, and write tables and plots
  tie           tie the importance of a trained model's tokens to its prediction (train does so itself)
  explain       show texts or images under their token importance, here and on a page
  faithfulness  measure how faithful the importance is, beside other attributions
  push          check a saved model and push it to the Hugging Face Hub
  bench         measure what --atom costs: a training step with it and without it, interleaved

atom-hf COMMAND --help lists the flags. On many processes: atom-hf train --accelerate_config ddp ..."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command. Returns its exit status: 0, or 2 after one line that says what cannot be used.

    That of processes that `train` started is the status of the first that failed.
    """
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
        return COMMANDS[command](arguments[1:]) or 0
    except AtomError as error:
        return _refuse(str(error))
    except KeyboardInterrupt:
        print(f"\ninterrupted; {GO_ON.get(command, 'nothing was written')}", file=sys.stderr)
        return 130


def train(arguments: list[str]) -> int | None:
    """`atom-hf train`. Returns the exit status of the processes that it started, if it did."""
    from .arguments import AtomTrainingArguments
    from .compare import find_comparison
    from .flags import parse_flags, scan_flags, take_flags
    from .hub import page_of
    from .launch import LaunchArguments, launch
    from .run import DEFAULT_FOLDER, RunArguments, data_flags, default_output_dir, fine_tune
    from .tie_command import TieArguments

    arguments, token = _take_token(arguments)
    if token is not None:
        # Where the Hub's client looks for it, in the processes that may be started too. Among the arguments it would be shown,
        # saved in training_args.bin, and pushed.
        os.environ["HF_TOKEN"] = token.strip()
    asked, arguments = take_flags(arguments, [LaunchArguments])
    kinds = [RunArguments, AtomTrainingArguments, TieArguments, LaunchArguments]  # the last for --help
    if asked.accelerate_config is not None:
        known, others = scan_flags("train", arguments, kinds)
        return launch(asked.accelerate_config, arguments, others, use_cpu=known.use_cpu)
    run, args, tie, _ = parse_flags("train", arguments, kinds)
    if args.hub_token is not None:  # of the --config file
        os.environ["HF_TOKEN"], args.hub_token = args.hub_token.strip(), None
    by_default = args.output_dir == DEFAULT_FOLDER
    outcome = fine_tune(
        run, args, tie_samples=tie.checked(), find_comparison=find_comparison(run, args) if args.atom else None
    )
    if args.atom:
        shown = shlex.join(["atom-hf", "explain", *data_flags(run), "--model", args.output_dir])
    else:
        folder = default_output_dir(run, outcome.data, True) if by_default else f"{args.output_dir}-atom"
        flags = ["--atom", "--output_dir", folder]
        if args.resume_from_checkpoint:
            flags += ["--resume_from_checkpoint", "false"]
        shown = shlex.join(["atom-hf", "train", *arguments, *flags])
    if not outcome.trainer.is_world_process_zero():
        return None
    rows = [[name, format_number(value)] for name, value in outcome.metrics.items() if name != "epoch"]
    rows += [
        [f"mean |{k}|" if k == "importance" else k.replace("_", " "), format_number(v)]
        for k, v in outcome.importance.items()
    ]
    if outcome.tie:
        rows.append(["erased tokens explained", format_number(outcome.tie.explained)])
    print()
    print(format_table([f"{outcome.data.name}, {outcome.data.task}", "atom" if args.atom else "plain"], rows))
    print(f"\nmodel     {outcome.output_dir}")
    if args.push_to_hub and outcome.push_error is None:
        print(f"pushed    {page_of(outcome.trainer.hub_model_id)}")
    print(f"next      {shown}")
    return None if outcome.push_error is None else _refuse(outcome.push_error)


def compare(arguments: list[str]) -> None:
    """`atom-hf compare`."""
    from .arguments import AtomTrainingArguments
    from .compare import CompareArguments, compare_runs
    from .flags import parse_flags
    from .run import RunArguments

    run, args, options = parse_flags("compare", arguments, [RunArguments, AtomTrainingArguments, CompareArguments])
    report = compare_runs(run, args, options)
    print()
    print(format_table(report.table.header, report.table.rows))
    print(f"\n{report.table.note}\n")
    print(f"results   {report.folder}")
    if report.page:
        print(f"page      {report.page}")
    for picture in report.pictures:
        print(f"picture   {picture}")


def study(arguments: list[str]) -> None:
    """`atom-hf study`."""
    from .flags import parse_flags
    from .study import StudyArguments, run_study
    from .study_report import check_packages, tables, write_report

    wants_help = {"-h", "--help"} & set(arguments)
    if not wants_help and (not arguments or arguments[0].startswith("-")):
        raise AtomError("give the study's file first: atom-hf study FILE.yaml")
    file, rest = ("", arguments) if wants_help else (arguments[0], arguments[1:])
    (options,) = parse_flags("study FILE", rest, [StudyArguments])
    check_packages()
    found, lines, folder = run_study(file, options)
    written = write_report(found, lines, folder)
    print(f"\n{tables(found, lines)}")
    print("\n".join(f"written   {path}" for path in written))


def explain(arguments: list[str]) -> None:
    """`atom-hf explain`."""
    from .explain import ExplainArguments, explain_model
    from .flags import parse_flags
    from .run import RunArguments
    from .show.terminal import show_readings

    texts: list[str] = []
    run, options = parse_flags("explain", arguments, [RunArguments, ExplainArguments], texts)
    options.text = [*texts, *options.text]
    found = explain_model(run, options)
    shown = show_readings(found.images, found.texts, tied=found.tied)
    # A terminal that cannot show a letter gets a question mark.
    coding = sys.stdout.encoding or "utf-8"
    print(shown.encode(coding, "replace").decode(coding))
    count = len(found.texts) + len(found.images)
    rest = f" of {count + found.left_out}; --samples shows more" if found.left_out else ""
    print(f"\nread      {count} {'text' if found.texts else 'image'}{'s' if count != 1 else ''}{rest}")
    print(f"page      {found.page}")
    for picture in found.pictures:
        print(f"picture   {picture}")


def tie(arguments: list[str]) -> None:
    """`atom-hf tie`."""
    from .flags import parse_flags
    from .run import RunArguments
    from .tie_command import TieModelArguments, tie_model

    run, options = parse_flags("tie", arguments, [RunArguments, TieModelArguments])
    found, folder = tie_model(run, options)
    print(f"samples   {found.samples}, erased {found.passes} times")
    print(f"explained {format_number(found.explained)} of what erasing tokens of held-out samples changes")
    print(f"model     {folder}")


def faithfulness(arguments: list[str]) -> None:
    """`atom-hf faithfulness`."""
    from .faithfulness.command import FaithfulnessArguments, measure_faithfulness
    from .flags import parse_flags

    (run,) = parse_flags("faithfulness", arguments, [FaithfulnessArguments])
    for path in measure_faithfulness(run):
        print(f"written   {path}")


def push(arguments: list[str]) -> None:
    """`atom-hf push`."""
    from .flags import parse_flags
    from .push import PushArguments, push_folder

    wants_help = {"-h", "--help"} & set(arguments)
    if not wants_help and (not arguments or arguments[0].startswith("-")):
        raise AtomError("give the model's folder first: atom-hf push FOLDER --repo org/name")
    folder, rest = ("", arguments) if wants_help else (arguments[0], arguments[1:])
    (options,) = parse_flags("push FOLDER", rest, [PushArguments])
    pushed = push_folder(folder, options)
    print(f"files     {', '.join(pushed.files)}")
    if pushed.left_out:
        print(f"left out  {', '.join(pushed.left_out)}")
    print(f"pushed    {pushed.url}")


def bench(arguments: list[str]) -> None:
    """`atom-hf bench`."""
    from .arguments import AtomTrainingArguments
    from .bench import BenchArguments, report, run_bench
    from .flags import parse_flags
    from .run import RunArguments

    run, args, options = parse_flags("bench", arguments, [RunArguments, AtomTrainingArguments, BenchArguments])
    result = run_bench(run, args, options)
    print(f"\n{report(result)}")
    if options.output:
        print(f"\nresults   {options.output}")


def _take_token(arguments: list[str]) -> tuple[list[str], str | None]:
    """The arguments without --hub_token, and what it was given, if it was."""
    rest, token = [], None
    given = iter(arguments)
    for word in given:
        name, equals, value = word.partition("=")
        if name not in ("--hub_token", "--hub-token"):
            rest.append(word)
            continue
        token = value if equals else next(given, "")
        if not token or token.startswith("--"):
            raise AtomError("--hub_token: give the token, or leave the flag out and log in with `hf auth login`")
    return rest, token


GO_ON = {
    "train": "if a checkpoint was written, the same command goes on with --resume_from_checkpoint true",
    "compare": "the same command goes on after the last finished run",
    "study": "the same command goes on after the last finished run",
    "faithfulness": "the same command goes on where it stopped",
    "push": "the repository is as it was, unless the commit had been sent",
}
COMMANDS: dict[str, Callable[[list[str]], int | None]] = {
    "train": train,
    "compare": compare,
    "study": study,
    "explain": explain,
    "tie": tie,
    "faithfulness": faithfulness,
    "push": push,
    "bench": bench,
}


def _refuse(message: str) -> int:
    print(f"atom-hf: error: {without_token(' '.join(message.split()))}", file=sys.stderr)
    return 2
