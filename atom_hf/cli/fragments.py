"""`atom-hf fragments`."""


def main(arguments: list[str]) -> None:
    """`atom-hf fragments`."""
    from ..finetune.flags import parse_flags
    from ..fragments.arguments import FragmentsArguments
    from ..fragments.command import run_fragments
    from ..fragments.report import facts, findings, tables_of
    from ..utils.tables import format_table

    (run,) = parse_flags("fragments", arguments, [FragmentsArguments])
    found, written = run_fragments(run)
    print(f"\n{findings(found)}\n\n{facts(found, run)}")
    for table in tables_of(found, run):
        print(f"\n{table.caption}\n")
        if table.rows:
            print(format_table(table.header, table.rows))
        print(table.note)
    print()
    for path in written:
        print(f"written   {path}")
