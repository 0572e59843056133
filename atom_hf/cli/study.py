"""`atom-hf study`."""

from ..errors import AtomError


def main(arguments: list[str]) -> None:
    """`atom-hf study`."""
    from ..experiments.study import StudyArguments, run_study
    from ..experiments.study_report import check_packages, tables, write_report
    from ..finetune.flags import parse_flags

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
