"""`atom-hf bench`."""





def bench(arguments: list[str]) -> None:
    """`atom-hf bench`."""
    from ..training.arguments import AtomTrainingArguments
    from ..benchmark.bench import BenchArguments, report, run_bench
    from ..finetune.flags import parse_flags
    from ..finetune.arguments import RunArguments

    run, args, options = parse_flags("bench", arguments, [RunArguments, AtomTrainingArguments, BenchArguments])
    result = run_bench(run, args, options)
    print(f"\n{report(result)}")
    if options.output:
        print(f"\nresults   {options.output}")

