"""`atom-hf task`."""

from ..errors import AtomError
from ..utils.tables import format_number, format_table


def main(arguments: list[str]) -> int | None:
    """`atom-hf task`. Returns 1 if another task was asked about and does not follow, or it is not known whether it does."""
    from ..finetune.arguments import StoppingArguments
    from ..finetune.flags import as_flags, parse_flags
    from ..tasks.arguments import TaskArguments
    from ..tasks.command import TaskOptions, train_recipe
    from ..tasks.drawing import draw_task
    from ..tasks.recipe import named_task, read_recipe
    from ..tasks.refinement import refines
    from ..utils.files import check_page, write_atomically

    wants_help = {"-h", "--help", "--help_all"} & set(arguments)
    if not wants_help and (not arguments or arguments[0].startswith("-")):
        raise AtomError("give the task first: atom-hf task FILE, or the name of a pattern such as gan")
    file, rest = ("", arguments) if wants_help else (arguments[0], arguments[1:])
    recipe = None if wants_help else read_recipe(file)
    given = as_flags(recipe.flags) if recipe else []
    options, args, stopping = parse_flags("task FILE", [*given, *rest], [TaskOptions, TaskArguments, StoppingArguments])
    asked = [name for name in ("check", "draw", "refines", "train") if getattr(options, name)]
    if len(asked) > 1:
        raise AtomError(
            f"give one of --check, --draw, --refines and --train, got {', '.join(f'--{name}' for name in asked)}"
        )
    recipe = recipe.bound(options.bind)
    if options.draw:
        check_page(options.draw, "--draw")
        print(f"drawn     {write_atomically(options.draw, draw_task(recipe.spec))}")
    elif options.refines:
        found = refines(recipe.spec, named_task(options.refines))
        print(found)
        return 0 if found else 1
    elif options.train:
        done = train_recipe(recipe, args, stopping.checked(args))
        if done.trainer.is_world_process_zero():
            rows = [[name, format_number(value)] for name, value in done.metrics.items() if name != "epoch"]
            print(f"\n{format_table([f'task {recipe.name}', 'evaluation'], rows)}\n\nwritten   {done.output_dir}")
    else:
        print(recipe.spec, end="")
    return None
