"""`atom-hf manipulate`."""

from ..utils.tables import format_table


def main(arguments: list[str]) -> None:
    """`atom-hf manipulate`."""
    from ..finetune.flags import parse_flags
    from ..tasks.command import DEFAULT_FOLDER
    from ..tasks.manipulation.arguments import ManipulateOptions, ManipulatorArguments
    from ..tasks.manipulation.card import result_rows
    from ..tasks.manipulation.command import edit_input, make_manipulator

    options, args = parse_flags("manipulate", arguments, [ManipulateOptions, ManipulatorArguments])
    options.check()
    if options.edit is not None:
        folder = "." if args.output_dir == DEFAULT_FOLDER else args.output_dir
        found, before, file = edit_input(options, folder)
        rows = [[f"{strength:.3g}", f"{sure:.3f}", *text] for strength, sure, *text in found]
        header = ["strength", f"P({options.to})", "text"][: len(rows[0])]
        print(f"{options.edit} was read as {before}\n\n{format_table(header, rows)}\n")
        print(f"written   {file}")
        return
    made = make_manipulator(options, args)
    rows = [list(row) for row in result_rows(made.metrics)]
    for name, one in made.metrics.get("compared", {}).items():
        names = [key for key in ("judge", "identity", "undo", "kept") if key in one]
        rows.append([f"{name}: {', '.join(names)}", ", ".join(f"{one[key]:.3f}" for key in names)])
    header = [f"edits of {made.metrics['rows']} rows", "value"]
    print(f"\n{format_table(header, rows)}\n")
    for path in (made.folder, *made.written):
        print(f"written   {path}")
