"""`atom-hf bench`."""


def main(arguments: list[str]) -> None:
    """`atom-hf bench`."""
    from ..benchmark.bench import BenchArguments, report, run_bench
    from ..benchmark.machine import fitting_flags
    from ..finetune.arguments import RunArguments
    from ..finetune.flags import given_flags, parse_flags
    from ..training.arguments import AtomTrainingArguments

    kinds = [RunArguments, AtomTrainingArguments, BenchArguments]
    chosen = fitting_flags(given_flags("bench", arguments, kinds))
    run, args, options = parse_flags("bench", [*chosen, *arguments], kinds)
    result = run_bench(run, args, options)
    print(f"\n{report(result)}")
    if options.output:
        print(f"\nresults   {options.output}")
