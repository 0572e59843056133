"""`atom-hf compare`."""

from ..utils.tables import format_table


def main(arguments: list[str]) -> None:
    """`atom-hf compare`."""
    from ..experiments.compare import CompareArguments, compare_runs
    from ..finetune.arguments import RunArguments
    from ..finetune.flags import parse_flags
    from ..training.arguments import AtomTrainingArguments

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
