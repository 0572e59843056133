"""`atom-hf faithfulness`."""


def main(arguments: list[str]) -> None:
    """`atom-hf faithfulness`."""
    from ..faithfulness.command import FaithfulnessArguments, measure_faithfulness
    from ..finetune.flags import parse_flags

    (run,) = parse_flags("faithfulness", arguments, [FaithfulnessArguments])
    for path in measure_faithfulness(run):
        print(f"written   {path}")
