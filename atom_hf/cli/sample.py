"""`atom-hf sample`."""


def main(arguments: list[str]) -> None:
    """`atom-hf sample`."""
    from ..finetune.flags import parse_flags
    from ..generation.command import SampleArguments, sample

    (options,) = parse_flags("sample", arguments, [SampleArguments])
    written = sample(options)
    print(f"written   {written}")
