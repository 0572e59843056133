"""README.md here and the table in the project's README.md, from the results of the faithfulness measurements."""

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
from atom_hf.utils.tables import markdown

HERE = Path(__file__).parent
MARKS = "<!-- faithfulness: python recipes/faithfulness/run.py -->", "<!-- end of faithfulness -->"
TITLES = {
    "poem": "poem sentiment, MiniLM",
    "cola": "CoLA, MiniLM",
    "digits": "digits, ViT of Fashion-MNIST",
    "cifar10": "CIFAR-10, ViT from scratch",
}
COMPARED = [name for name in MEASURES if name != "infidelity"]
STEPS = ("charge", "-charge", "|charge|", OURS)
HEAD = """# How faithful importance is to the prediction

Made by `python recipes/faithfulness/run.py` (see there for local data). Each recipe's models were trained with three
seeds; their importance was then fitted to the prediction on samples of the whole training split, whose labels the fit
does not use (digits: 1,000 images where the model had learned from 100; CoLA: 320 sentences; CIFAR-10: 1,000
images; poems: half of the training verses). Everything is measured on samples that neither the training nor the
fit has seen.

"""
SHARES = """Of the way from random numbers (0 %) to integrated gradients with 50 steps (100 %), how much the importance goes. ▲
and ▼ mark where its paired difference to integrated gradients has a 95 % interval over samples that excludes 0, for
the better and the worse.
"""
PATHS = """## Each step

The same share, of the charges that the energy knows (with their sign, with the other, and without) and of the
importance that has been fitted to the prediction.
"""
GAPS = """## Importance minus integrated gradients

Mean over seeds; in brackets the 95 % interval over samples, then that over seeds.
"""

Found = dict[tuple[str, str], dict[tuple[str, str], Block]]


def read_results(names: Iterable[str]) -> Found:
    """(recipe, strategy) -> (arm, method) -> results."""
    found: Found = {}
    for name in names:
        if not (HERE / name / RESULTS_NAME).is_file():
            continue
        for (strategy, arm, method), block in read_blocks(HERE / name)[1].items():
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


def summary(found: Found) -> str:
    """How often the importance is better, worse, or neither, and what it costs."""
    marks = [
        verdict(paired(blocks["model", OURS], blocks["model", REFERENCE], m), MEASURES[m][1])
        for blocks in found.values()
        for m in COMPARED
    ]
    counts = {mark: marks.count(mark) for mark in ("▲", "▼", "")}
    passes = [cost(found, REFERENCE, key) for key in ("forward", "backward")]
    longer = cost(found, REFERENCE, "time") / cost(found, OURS, "time")
    return (
        f"Of {len(marks)} comparisons with integrated gradients (recipes, masking strategies, measures), the "
        f"importance is better in {counts['▲']} and worse in {counts['▼']}, with a 95 % interval that excludes 0; in "
        f"{counts['']} neither. It takes one forward pass; integrated gradients take {passes[0]:.0f} forward and "
        f"{passes[1]:.0f} backward passes, {longer:.0f} times as long."
    )


def texts(found: Found) -> tuple[str, str]:
    """The table for the project's README.md, and README.md here."""
    table = f"{summary(found)}\n\n{SHARES}\n{shares_table(found)}"
    links = "\n".join(f"- [{TITLES[name]}]({name}/report.md)" for name in dict.fromkeys(name for name, _ in found))
    parts = [HEAD + table, f"{PATHS}\n{steps_table(found)}", f"{GAPS}\n{gaps_table(found)}"]
    return table, "\n".join([*parts, f"## All methods\n\n{links}\n"])


def write_reports(names: Iterable[str]) -> list[Path]:
    """Writes each recipe's report, README.md here, and the table in the project's. Returns the files."""
    names = list(names)
    written = [path for name in names if (HERE / name / RESULTS_NAME).is_file() for path in write_report(HERE / name)]
    table, text = texts(read_results(names))
    page, main = HERE / "README.md", HERE.parents[1] / "README.md"
    page.write_text(text, encoding="utf-8")
    before, rest = main.read_text(encoding="utf-8").split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    main.write_text(f"{before}{MARKS[0]}\n\n{table}\n{MARKS[1]}{after}", encoding="utf-8")
    return [*written, page, main]
