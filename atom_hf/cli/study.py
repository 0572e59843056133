"""`atom-hf study`."""

from ..errors import AtomError, UnfinishedError

SHOWN = 10  # runs that a message names


def main(arguments: list[str]) -> None:
    """`atom-hf study`."""
    from ..experiments.ray_arguments import RayArguments
    from ..experiments.study import StudyArguments, missing_runs, run_study
    from ..experiments.study_report import check_packages, tables, write_report
    from ..finetune.flags import parse_flags

    wants_help = {"-h", "--help"} & set(arguments)
    if not wants_help and (not arguments or arguments[0].startswith("-")):
        raise AtomError("give the study's file first: atom-hf study FILE.yaml")
    file, rest = ("", arguments) if wants_help else (arguments[0], arguments[1:])
    options, on_ray = parse_flags("study FILE", rest, [StudyArguments, RayArguments])
    check_packages()
    found, lines, folder = run_study(file, options, on_ray)
    written = write_report(found, lines, folder)
    print(f"\n{tables(found, lines)}")
    print("\n".join(f"written   {path}" for path in written))
    if not options.report_only and (missing := missing_runs(found, lines)):
        raise UnfinishedError(_missing([job.title for job in missing], len(missing) + len(lines)))


def _missing(titles: list[str], total: int) -> str:
    more = [f"and {len(titles) - SHOWN} more"] if len(titles) > SHOWN else []
    have = "has failed and is" if len(titles) == 1 else "have failed and are"
    named = "; ".join([*titles[:SHOWN], *more])
    return f"{len(titles)} of {total} runs {have} missing: {named}; the same command runs what is missing"
