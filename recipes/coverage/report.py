"""Writes README.md from `results.jsonl`."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
README = HERE.parents[1] / "README.md"
MARKS = "<!-- coverage: python recipes/coverage/run.py -->", "<!-- end of coverage -->"
RESULTS = HERE / "results.jsonl"
PASSED, NOT_BUILT, PLAIN_FAILS, FAILED = "passed", "not instantiable offline", "fails without atoms too", "failed"
TEXT_ALONE = "passed, on text alone"
PASSES = (PASSED, TEXT_ALONE)
KINDS, READ = ("units", "space"), "read"
OUTCOMES = (PASSED, TEXT_ALONE, FAILED, PLAIN_FAILS, NOT_BUILT)

HEAD = """# Which architectures atoms attach to

<!-- python recipes/coverage/run.py writes this page and results.jsonl -->

{headline}

Each architecture is made tiny from its default configuration by one rule ([`shrink.py`](shrink.py), with a table of
[exceptions](exceptions.py)), takes two training steps on random inputs with the flag on through `AtomTrainer`, and is
saved, loaded plainly and loaded with its heads ([`check.py`](check.py)). It passes if

- the losses are finite, the heads and the model change, and the gradient of the energy reaches the model;
- every sample has a token, and every importance is in [-1, 1];
- `from_pretrained` misses no key and finds none too many, gives the very weights, and the outputs of before;
- `load_atom_model` gives the very weights and heads, the outputs and the importances of before.

Models of images and text, or of recordings and text, are given both, in the way that they take them ([`media.py`](media.py));
those for which none of the ways made there fits are trained on text alone, and said to be.

What fails is run again with the flag off, by the same steps: what fails then too, or does not run at all on what is made here,
is not for the atoms' sake. "Not instantiable offline" are those whose model cannot be made, for want of a package it needs or
because its default configuration, or that made small, does not hold together.

{summary}

{channels}

## What does not pass

{failures}

## All of them

{everything}
"""


def read_results() -> list[dict[str, Any]]:
    """The rows of `results.jsonl`; none if there is no such file."""
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]


def write_report() -> str:
    """Writes README.md beside the results, and its first sentence into the project's own. Returns that sentence."""
    rows = read_results()
    headline = headline_of(rows)
    text = HEAD.format(
        headline=headline,
        summary=table(["task", "registered", *OUTCOMES, "passed of those that can be made"], summary_rows(rows)),
        failures=table(["task", "model type", "class", "outcome", "reason"], failure_rows(rows)) or "All pass.",
        channels=channels_of(rows),
        everything=table(
            ["task", "model type", "class", "outcome", *KINDS],
            [
                [
                    row["task"],
                    row["model_type"],
                    row["architecture"],
                    row["outcome"],
                    *(cell(row, kind) for kind in KINDS),
                ]
                for row in rows
            ],
        ),
    )
    (HERE / "README.md").write_text(text, encoding="utf-8")
    before, _, rest = README.read_text(encoding="utf-8").partition(MARKS[0])
    README.write_text(f"{before}{MARKS[0]}\n\n{headline}\n\n{MARKS[1]}{rest.partition(MARKS[1])[2]}", encoding="utf-8")
    return headline


def headline_of(rows: list[dict[str, Any]]) -> str:
    """How many pass, in a sentence."""
    made = [row for row in rows if row["outcome"] != NOT_BUILT]
    passed, text_alone = (sum(row["outcome"] in which for row in rows) for which in (PASSES, (TEXT_ALONE,)))
    versions = ", ".join(sorted({row["transformers"] for row in rows}))
    tasks = len({row["task"] for row in rows})
    return (
        f"Transformers {versions} registers {len(rows)} architectures for the {tasks} tasks below. {len(made)} of them can be "
        f"made offline, and **{passed} of these pass: {percent(passed, len(made))}**, {text_alone} of them on text alone."
    )


CHANNELS = """## Channels

The columns `units` and `space` of the last table tell whether the channels of these kinds are read
([`fragments`](../../docs/fragments.md)), of four samples of the same random inputs ([`channels.py`](channels.py),
`python recipes/coverage/run.py --channels`): one channel for each dimension of the last layer, or one of the whole layer, with
information between 0 and log2 N, and at least one channel that tells the samples apart. {counts}.

{unread}"""


def channels_of(rows: list[dict[str, Any]]) -> str:
    """How many architectures the channels are read of, and why not of the others."""
    tried = [row for row in rows if set(KINDS) <= set(row) and NOT_BUILT not in (row[KINDS[0]], row["outcome"])]
    if not tried:
        return ""
    reads = [(kind, sum(row[kind] == READ for row in tried)) for kind in KINDS]
    counts = ", ".join(f"`{kind}` of {n} of {len(tried)} ({percent(n, len(tried))})" for kind, n in reads)
    unread = [[row["task"], row["model_type"], kind, row[kind]] for row in tried for kind in KINDS if row[kind] != READ]
    return CHANNELS.format(
        counts=counts, unread=table(["task", "model type", "kind", "reason"], unread) or "All are read."
    )


def cell(row: dict[str, Any], kind: str) -> str:
    """What the last table says of a kind of channel."""
    value = row.get(kind, "–")
    return value if value in (READ, "–") else "–" if value == NOT_BUILT else "not read"


def summary_rows(rows: list[dict[str, Any]]) -> list[list[Any]]:
    """A row of counts for each task, and one for all."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    return [counts(task, [row for row in rows if row["task"] == task]) for task in tasks] + [counts("all", rows)]


def counts(name: str, rows: list[dict[str, Any]]) -> list[Any]:
    """The name, how many there are, how many of each outcome, and the share that passed of those that can be made."""
    of = [sum(row["outcome"] == outcome for row in rows) for outcome in OUTCOMES]
    return [name, len(rows), *of, percent(of[0] + of[1], len(rows) - of[-1])]


def failure_rows(rows: list[dict[str, Any]]) -> list[list[str]]:
    """What did not pass, with its reason."""
    return [
        [row["task"], row["model_type"], row["architecture"], row["outcome"], row["reason"]]
        for row in rows
        if row["outcome"] not in PASSES
    ]


def percent(part: int, whole: int) -> str:
    """`part` of `whole`, rounded down: 100 % is all of them."""
    return f"{int(1000 * part / whole) / 10:.1f} %" if whole else "-"


def table(head: list[str], rows: Iterable[Iterable[Any]]) -> str:
    """A table in Markdown; empty without rows."""
    lines = ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(["| " + " | ".join(head) + " |", "|" + " --- |" * len(head), *lines]) if lines else ""
