"""`atom-hf bench`."""


def main(arguments: list[str]) -> None:
    """`atom-hf bench`."""
    from ..benchmark.bench import BenchArguments, report, run_bench
    from ..finetune.arguments import RunArguments
    from ..finetune.flags import parse_flags
    from ..training.arguments import AtomTrainingArguments

    run, args, options = parse_flags("bench", arguments, [RunArguments, AtomTrainingArguments, BenchArguments])
    result = run_bench(run, args, options)
    print(f"\n{report(result)}")
    if options.output:
        print(f"\nresults   {options.output}")
