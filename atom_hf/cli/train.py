"""`atom-hf train`."""

import os
import shlex
from typing import Any

from ..errors import AtomError
from ..utils.tables import format_number, format_table

LEAST_LOGS = 10  # of a run whose --logging_steps is not given


def main(arguments: list[str]) -> int | None:
    """`atom-hf train`. Returns the exit status of the processes that it started, if it did."""
    from ..data.columns import GENERATION
    from ..experiments.comparison_results import find_comparison
    from ..finetune.arguments import (
        CardArguments,
        DryRunArguments,
        ExplainerArguments,
        RunArguments,
        StoppingArguments,
        data_flags,
    )
    from ..finetune.dry_run import describe_run
    from ..finetune.flags import given_flags, parse_flags, scan_flags, take_flags
    from ..finetune.run import DEFAULT_FOLDER, default_output_dir, fine_tune
    from ..generation.arguments import GenerationArguments
    from ..hub.messages import page_of
    from ..training.arguments import AtomTrainingArguments
    from .launch import LaunchArguments, launch

    arguments, token = _take_token(arguments)
    if token is not None:
        # Where the Hub's client looks for it, also in processes that are started. As an argument it would be shown, saved in
        # training_args.bin, and pushed.
        os.environ["HF_TOKEN"] = token.strip()
    asked, arguments = take_flags(arguments, [LaunchArguments])
    # The last for --help.
    kinds = [
        RunArguments,
        AtomTrainingArguments,
        ExplainerArguments,
        StoppingArguments,
        CardArguments,
        GenerationArguments,
        DryRunArguments,
        LaunchArguments,
    ]
    if asked.accelerate_config is not None:
        known, others = scan_flags("train", arguments, kinds)
        if known.dry_run:
            raise AtomError("--dry_run looks at the run in one process; leave out --accelerate_config and its flags")
        return launch(asked.accelerate_config, arguments, others, use_cpu=known.use_cpu)
    run, args, explainer, stopping, card, generation, dry, _ = parse_flags("train", arguments, kinds)
    if args.hub_token is not None:  # of the --config file
        os.environ["HF_TOKEN"], args.hub_token = args.hub_token.strip(), None
    least_logs = 0 if "logging_steps" in given_flags("train", arguments, kinds) else LEAST_LOGS
    if run.task == GENERATION:
        if dry.dry_run:
            raise AtomError(f"--dry_run is not for --task {GENERATION}; leave it out")
        return _train_generator(run, args, generation, least_logs, stopping.checked(args))
    if name := generation.first_given():
        raise AtomError(f"--{name} is for --task {GENERATION}; give that, or leave it out")
    if dry.dry_run:
        explainer.checked()
        found = describe_run(run, args)
        if args.process_index == 0:
            print(f"{found}\n\nThis was a dry run: without --dry_run the same command trains.")
        return None
    by_default = args.output_dir == DEFAULT_FOLDER
    patience = stopping.checked(args)
    result = fine_tune(
        run,
        args,
        explainer_samples=explainer.checked(),
        explainer_seconds=explainer.explainer_seconds,
        card_samples=card.card_samples,
        least_logs=least_logs,
        patience=patience,
        # Paired runs are not stopped early.
        find_comparison=find_comparison(run, args) if args.atom and patience is None else None,
    )
    if args.atom:
        shown = shlex.join(["atom-hf", "explain", *data_flags(run), "--model", args.output_dir])
    else:
        folder = default_output_dir(run, result.data, True) if by_default else f"{args.output_dir}-atom"
        flags = ["--atom", "--output_dir", folder]
        if args.resume_from_checkpoint:
            flags += ["--resume_from_checkpoint", "false"]
        shown = shlex.join(["atom-hf", "train", *arguments, *flags])
    if not result.trainer.is_world_process_zero():
        return None
    rows = [[name, format_number(value)] for name, value in result.metrics.items() if name != "epoch"]
    rows += [
        [f"mean |{k}|" if k == "importance" else k.replace("_", " "), format_number(v)]
        for k, v in result.importance.items()
    ]
    if result.explainer:
        rows.append(["masking explained", format_number(result.explainer.explained)])
    print()
    print(format_table([f"{result.data.name}, {result.data.task}", "atom" if args.atom else "plain"], rows))
    print()
    if result.is_saved:
        print(f"model     {result.output_dir}")
        if args.push_to_hub and result.push_error is None:
            print(f"pushed    {page_of(result.trainer.hub_model_id)}")
        print(f"next      {shown}")
    if errors := [error for error in (result.save_error, result.push_error) if error is not None]:
        raise AtomError("; ".join(errors))


def _train_generator(run: Any, args: Any, options: Any, least_logs: int, patience: int | None) -> None:
    from ..generation.run import train_generator

    result = train_generator(run, args, options, least_logs, patience)
    if not result.trainer.is_world_process_zero():
        return
    rows = [[name, format_number(value)] for name, value in result.metrics.items()]
    print(f"\n{format_table([f'{result.data.name}, {options.objective}', 'atom' if args.atom else 'plain'], rows)}\n")
    print(f"model     {result.output_dir}")
    print(f"samples   {os.path.join(result.output_dir, 'samples.png')}")
    print(f"next      {shlex.join(['atom-hf', 'sample', '--model', result.output_dir, '--n', '64'])}")


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
