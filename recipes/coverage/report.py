"""Write README.md, and the headline in the project's documents, from `results.jsonl`."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from atom_hf.utils.tables import fill_block

HERE = Path(__file__).parent
PROJECT = HERE.parents[1]
DOCUMENTS = ("README.md", "docs/trainers.md")  # both hold the headline
RESULTS = HERE / "results.jsonl"
PASSED, NOT_BUILT, PLAIN_FAILS, FAILED = "passed", "not instantiable offline", "fails without atoms too", "failed"
TEXT_ALONE = "passed, on text alone"
PASSES = (PASSED, TEXT_ALONE)
KINDS, READ = ("units", "space"), "read"
OUTCOMES = (PASSED, TEXT_ALONE, FAILED, PLAIN_FAILS, NOT_BUILT)

HEAD = """# Which architectures atoms attach to

<!-- python recipes/coverage/run.py writes this page and results.jsonl -->

{headline}

Each architecture is made tiny from its default configuration by one rule ([`shrink.py`](shrink.py), with a table of [exceptions](exceptions.py)).
It takes two training steps on random inputs with the flag on through `AtomTrainer`, and is saved, loaded plainly and loaded with its heads ([`check.py`](check.py)).
It passes if

- the losses are finite, the heads and the model change, and the gradient of the energy reaches the model;
- every sample has a token, and every importance is in [-1, 1];
- `from_pretrained` finds no missing and no unexpected key, and gives the same weights and outputs as before;
- `load_atom_model` gives the same weights, heads, outputs and importances as before.

Models of images and text, or of recordings and text, get both, in the form that they take ([`media.py`](media.py)); those for which none of the forms made there fits are trained on text alone, and listed as such.

What fails is run again with the flag off, by the same steps: if it fails then too, the atoms are not the cause.
"Not instantiable offline" are models that cannot be built, because a package is missing or because the default configuration, or the shrunk one, is inconsistent.

{summary}

{channels}

## What does not pass

{failures}

## All of them

{everything}
"""  # noqa: E501


def read_results() -> list[dict[str, Any]]:
    """The rows of `results.jsonl`; none if there is no such file."""
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]


def write_report() -> str:
    """Writes README.md beside the results, and its headline into the project's documents. Returns the headline."""
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
    for name in DOCUMENTS:
        fill_block(PROJECT / name, "coverage", headline)
    return headline


def headline_of(rows: list[dict[str, Any]]) -> str:
    """How many pass, in a sentence."""
    made = [row for row in rows if row["outcome"] != NOT_BUILT]
    passed, text_alone = (sum(row["outcome"] in which for row in rows) for which in (PASSES, (TEXT_ALONE,)))
    versions = ", ".join(sorted({row["transformers"] for row in rows}))
    tasks = len({row["task"] for row in rows})
    return (
        f"Transformers {versions} registers {len(rows)} architectures for {tasks} tasks, from text and image classification to "
        f"image-text-to-text.\n"
        f"Of the {len(made)} that can be built offline, **{passed} pass ({percent(passed, len(made))})**: they train with the "
        f"flag on, save, and load with and without their heads ({text_alone} of them on text alone)."
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
