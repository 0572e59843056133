"""Write README.md here, and the generated parts of the project's documents, from the results of earlier explainers."""

import math
from collections.abc import Iterable
from pathlib import Path
from statistics import median

from atom_hf.faithfulness.report import (
    CHANCE,
    MEASURES,
    OURS,
    REFERENCE,
    Block,
    gap,
    paired,
    read_blocks,
    share,
    verdict,
    write_report,
)
from atom_hf.utils.jsonl import RESULTS_NAME
from atom_hf.utils.tables import fill_block, markdown

HERE = Path(__file__).parent
PROJECT = HERE.parents[1]
TITLES = {
    "poem": "poem sentiment, MiniLM",
    "cola": "CoLA, MiniLM",
    "digits": "digits, ViT of Fashion-MNIST",
    "cifar10": "CIFAR-10, ViT from scratch",
    "sst2": "SST-2, MiniLM",
    "verse": "verse, MiniLM",
}
COMPARED = [name for name in MEASURES if name != "infidelity"]
STEPS = ("charge", "-charge", "|charge|", OURS)
HEAD = """# How faithful importance is to the prediction

These results were measured before explainers had an output for each masking strategy and mixed layers, with `python recipes/faithfulness/run.py` as it was then.
[`now/`](now/README.md) is what that command measures today, as far as it has been run, and [`steps/`](steps/README.md) what each change is worth.

Each recipe's models were trained with three seeds.
Their importance was then fitted to the prediction on samples of the whole training split, without their labels: 1,000 images of digits (the model had learned from 100), 320 sentences of CoLA, 1,000 images of CIFAR-10, and half of the poems' training verses.
Everything is measured on samples that neither the training nor the fit has seen.

"""  # noqa: E501
SHARES = """Each cell says how far the importance gets on the way from random numbers (0 %) to integrated gradients with 50 steps (100 %).
▲ and ▼ mark a paired difference to integrated gradients whose 95 % interval over samples excludes 0, for the better and the worse.
"""  # noqa: E501
PATHS = """## Each step

The same share for the charges (as they are, with the opposite sign, and as magnitudes), and for the importance that has been fitted to the prediction.
"""  # noqa: E501
GAPS = """## Importance minus integrated gradients

Mean over seeds; in brackets the 95 % interval over samples, then that over seeds.
"""

Found = dict[tuple[str, str], dict[tuple[str, str], Block]]


def read_results(names: Iterable[str], folder: Path = HERE) -> Found:
    """(recipe, strategy) -> (arm, method) -> results in a folder."""
    found: Found = {}
    for name in names:
        if not (folder / name / RESULTS_NAME).is_file():
            continue
        for (strategy, arm, method), block in read_blocks(folder / name)[1].items():
            if block.samples:
                found.setdefault((name, strategy), {})[arm, method] = block
    return found


def shares_table(found: Found) -> str:
    """A row for each recipe and masking strategy."""
    rows = []
    for (name, strategy), blocks in found.items():
        ours, chance, reference = (blocks["model", method] for method in (OURS, CHANCE, REFERENCE))
        cells = [
            f"{share(ours, chance, reference, m)} {verdict(paired(ours, reference, m), MEASURES[m][1])}".strip()
            for m in COMPARED
        ]
        rows.append([TITLES[name], strategy, *cells])
    return markdown(["", "masked by", *(MEASURES[m][0].rstrip(" ↑↓") for m in COMPARED)], rows)


def steps_table(found: Found) -> str:
    """A row for each recipe, masking strategy and kind of importance."""
    rows = []
    for (name, strategy), blocks in found.items():
        chance, reference = blocks["model", CHANCE], blocks["model", REFERENCE]
        for method in STEPS:
            cells = [share(blocks["model", method], chance, reference, m) for m in COMPARED]
            rows.append([TITLES[name], strategy, method.replace("|", "\\|"), *cells])
    return markdown(["", "masked by", "importance", *(MEASURES[m][0].rstrip(" ↑↓") for m in COMPARED)], rows)


def gaps_table(found: Found) -> str:
    """A row for each recipe and masking strategy."""
    rows = [
        [
            TITLES[name],
            strategy,
            *(gap(paired(blocks["model", OURS], blocks["model", REFERENCE], m), MEASURES[m][1]) for m in COMPARED),
        ]
        for (name, strategy), blocks in found.items()
    ]
    return markdown(["", "masked by", *(MEASURES[m][0] for m in COMPARED)], rows)


def cost(found: Found, method: str, key: str) -> float:
    """The median over everything measured of one kind of cost."""
    values = [line[key] for blocks in found.values() for line in blocks["model", method].costs]
    return median(values) if values else math.nan


def counts(found: Found) -> dict[str, int]:
    """In how many comparisons with integrated gradients the importance is better (▲), worse (▼), or neither ("")."""
    marks = [
        verdict(paired(blocks["model", OURS], blocks["model", REFERENCE], m), MEASURES[m][1])
        for blocks in found.values()
        for m in COMPARED
    ]
    return {mark: marks.count(mark) for mark in ("▲", "▼", "")}


def times_as_long(found: Found) -> float:
    """The time of integrated gradients over that of the importance."""
    return cost(found, REFERENCE, "time") / cost(found, OURS, "time")


def headline(found: Found) -> str:
    """What the importance gives, in two sentences, for the project's README.md."""
    marks, passes = counts(found), cost(found, REFERENCE, "forward")
    return (
        "**An importance for every token of every prediction:** it takes one forward pass, and integrated gradients with "
        f"{passes:.0f} steps take {times_as_long(found):.0f} times as long.\n"
        f"Its faithfulness to the prediction was compared with theirs {sum(marks.values())} times: it is better in "
        f"{marks['▲']}, worse in {marks['▼']} and neither in {marks['']} (by 95 % intervals; [which](docs/faithfulness.md))."
    )


def summary(found: Found) -> str:
    """How often the importance is better, worse, or neither, and what it costs."""
    marks = counts(found)
    passes = [cost(found, REFERENCE, key) for key in ("forward", "backward")]
    return (
        f"Of {sum(marks.values())} comparisons with integrated gradients (recipes, masking strategies, measures), the "
        f"importance is better in {marks['▲']} and worse in {marks['▼']}, with a 95 % interval that excludes 0, and neither in "
        f"{marks['']}.\n"
        f"It takes one forward pass; integrated gradients take {passes[0]:.0f} forward and {passes[1]:.0f} backward passes, "
        f"{times_as_long(found):.0f} times as long."
    )


def texts(found: Found) -> tuple[str, str]:
    """The table for docs/faithfulness.md, and README.md here."""
    table = f"{summary(found)}\n\n{SHARES}\n{shares_table(found)}"
    links = "\n".join(f"- [{TITLES[name]}]({name}/report.md)" for name in dict.fromkeys(name for name, _ in found))
    parts = [HEAD + table, f"{PATHS}\n{steps_table(found)}", f"{GAPS}\n{gaps_table(found)}"]
    return table, "\n".join([*parts, f"## All methods\n\n{links}\n"])


def write_reports(names: Iterable[str]) -> list[Path]:
    """Writes each recipe's report, README.md here, and the generated parts of the project's documents. Returns the files."""
    names = list(names)
    written = [path for name in names if (HERE / name / RESULTS_NAME).is_file() for path in write_report(HERE / name)]
    found = read_results(names)
    table, text = texts(found)
    page, main, document = HERE / "README.md", PROJECT / "README.md", PROJECT / "docs" / "faithfulness.md"
    page.write_text(text, encoding="utf-8")
    fill_block(main, "faithfulness", headline(found))
    fill_block(document, "faithfulness", table)
    return [*written, page, main, document]
