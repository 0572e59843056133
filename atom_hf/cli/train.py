"""`atom-hf train`."""

from .main import _refuse
from ..utils.tables import format_number
from ..utils.tables import format_table
import os
import shlex
from .fit_explainer import tie
from ..errors import AtomError



def train(arguments: list[str]) -> int | None:
    """`atom-hf train`. Returns the exit status of the processes that it started, if it did."""
    from ..training.arguments import AtomTrainingArguments
    from ..experiments.compare import find_comparison
    from ..finetune.flags import parse_flags, scan_flags, take_flags
    from ..hub.messages import page_of
    from .launch import LaunchArguments, launch
    from ..finetune.run import DEFAULT_FOLDER, default_output_dir, fine_tune
    from ..finetune.arguments import RunArguments, data_flags
    from ..finetune.arguments import TieArguments

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

