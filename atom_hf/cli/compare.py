"""`atom-hf compare`."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import AtomError
from ..utils.tables import format_table

if TYPE_CHECKING:
    from ..experiments.kept_model import KeptModel

ANY_TEXT = "Which words matter here?"


def main(arguments: list[str]) -> None:
    """`atom-hf compare`."""
    from ..experiments.compare import compare_runs

    report = compare_runs(*read_flags(arguments))
    print()
    print(format_table(report.table.header, report.table.rows))
    print(f"\n{report.table.note}\n")
    print("\n".join(report.verdict))
    print(f"\nresults   {report.folder}")
    if report.page:
        print(f"page      {report.page}")
    for picture in report.pictures:
        print(f"picture   {picture}")
    if report.kept is not None:
        print(f"model     {report.kept.folder}\n\nTry it:\n")
        print("\n".join(f"  {command}" for command in commands(report.kept)))


def commands(kept: KeptModel) -> list[str]:
    """Three commands that work as they are on a kept model: explain, the pipeline, and push (after `hf auth login`)."""
    program, python = _programs()
    model, sample = str(kept.folder), str(kept.picture or kept.text or ANY_TEXT)
    code = (
        "import atom_hf, transformers; "
        f"print(transformers.pipeline('token-importance', model={model!r}, return_prediction=True)({sample!r}))"
    )
    shown = ["--file", sample] if kept.picture else [sample]
    return [
        shlex.join([*program, "explain", *shown, "--model", model]),
        shlex.join([*python, "-c", code]),
        shlex.join([*program, "push", model, "--repo", str(kept.facts.name), "--private"]),
    ]


def _programs() -> tuple[list[str], list[str]]:
    """How this program and its Python are called where this one was: by name where the path finds them."""
    called = Path(sys.argv[0])
    if called.name != "atom-hf":  # python -m atom_hf
        return [sys.executable, "-m", "atom_hf"], [sys.executable]
    found, python = shutil.which("atom-hf"), called.with_name("python")
    if found is not None and os.path.samefile(found, called):
        return ["atom-hf"], ["python"]
    return [str(called)], [str(python if python.exists() else sys.executable)]


def read_flags(arguments: list[str]) -> list[Any]:
    """The arguments of `compare_runs`: the flags, and of two recipes the second's last.

    Raises:
        AtomError: flags or files that cannot be used, or recipes that disagree on what is not of an arm.
    """
    from ..experiments.arms import Arm
    from ..experiments.compare import CompareArguments
    from ..finetune.arguments import RunArguments
    from ..finetune.flags import file_flags, given_flags, parse_flags, parse_kinds
    from ..finetune.run import DEFAULT_FOLDER
    from ..training.arguments import AtomTrainingArguments

    kinds = [RunArguments, AtomTrainingArguments, CompareArguments]
    given = given_flags("compare", arguments, kinds)
    files = {name: given[name] for name in ("a", "b") if given.get(name) is not None}
    if not files:
        return parse_flags("compare", arguments, kinds)
    if len(files) < 2:
        raise AtomError("--a and --b are the two recipes to compare; give both, or --config with --change")
    if "config" in given:
        raise AtomError(
            "--config is a third recipe beside --a and --b; leave it out, or give its flags on the command line"
        )
    recipes = [
        parse_kinds("compare", [*file_flags(file, kinds, f"--{name}"), *arguments], kinds)
        for name, file in files.items()
    ]
    (run, args, options), (other_run, other_args, other_options) = recipes
    for name, value in vars(options).items():
        if value != getattr(other_options, name):
            raise AtomError(
                f"--a and --b give different {name}, which is no setting of a run; give --{name} on the command line"
            )
    if "output_dir" not in given:  # that of a recipe is the folder of its own run
        args.output_dir = other_args.output_dir = DEFAULT_FOLDER
    return [run, args, options, Arm(other_run, other_args)]
