"""Write README.md here, and the generated parts of the project's documents, from what `run.py` has measured."""

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
    "digits": "digits, ViT of Fashion-MNIST",
    "cifar10": "CIFAR-10, ViT from scratch",
    "verse": "verse, MiniLM",
    "sst2": "SST-2, MiniLM",
    "poem": "poem sentiment, MiniLM",
    "cola": "CoLA, MiniLM",
}
IMAGES = ("digits", "cifar10")
COMPARED = [name for name in MEASURES if name != "infidelity"]
SAMPLED, SUFFIX, CHARGE = "shapley_sampling", "-shapley", "charge"
GOAL = 85
"""Per cent of the way from random numbers to Shapley sampling that the importance is meant to get."""

HEAD = """# How faithful importance is to the prediction

Made by `python recipes/faithfulness/run.py` (see there for local data, and for fewer samples).
Explainers are fitted as `atom-hf fit-explainer` does by default, to samples of the training split, without their labels: 1,000 images, 500 texts (440 of the poems).
Everything is measured on samples that neither the training nor the fit has seen.
[`steps/`](steps/README.md) has what each part of the explainer is worth.

"""  # noqa: E501
SHARES = """Each cell says how far the importance gets on the way from random numbers (0 %) to integrated gradients with 50 steps (100 %).
▲ and ▼ mark a paired difference to integrated gradients whose 95 % interval over samples excludes 0, for the better and the worse; seeds of a sample count as one.
"""  # noqa: E501
SHAPLEY = """## Towards Shapley values

How far the importance gets on the way from random numbers (0 %) to Shapley sampling with 25 random orders (100 %), which takes hundreds of passes for each sample, under the same masking strategy.

"""  # noqa: E501
PATHS = """## The charges

The share of the way to integrated gradients for the charges, which no explainer has been fitted to.

"""
GAPS = """## Importance minus integrated gradients

Mean over seeds; in brackets the 95 % interval over samples, then that over seeds, where there are several.

"""

Found = dict[tuple[str, str], dict[tuple[str, str], Block]]


def read_results(names: Iterable[str], methods: Iterable[str] = (OURS, CHANCE, REFERENCE)) -> Found:
    """(recipe, strategy) -> (arm, method) -> results, where all of these methods have been measured."""
    found: Found = {}
    for name in names:
        if not (HERE / name / RESULTS_NAME).is_file():
            continue
        for (strategy, arm, method), block in read_blocks(HERE / name)[1].items():
            if block.samples:
                found.setdefault((name, strategy), {})[arm, method] = block
    return {key: its for key, its in found.items() if all(("model", method) in its for method in methods)}


def sizes(block: Block) -> str:
    """How many models, and samples of each, a block holds."""
    return f"{len(block.samples)} x {min(len(lines) for lines in block.samples.values())}"


def shares_table(found: Found) -> str:
    """A row for each recipe and masking strategy: the way to integrated gradients."""
    rows = []
    for (name, strategy), blocks in found.items():
        ours, chance, reference = (blocks["model", method] for method in (OURS, CHANCE, REFERENCE))
        cells = [
            f"{share(ours, chance, reference, m)} {verdict(paired(ours, reference, m), MEASURES[m][1])}".strip()
            for m in COMPARED
        ]
        rows.append([TITLES[name], strategy, sizes(ours), *cells])
    return markdown(["", "masked by", "seeds x samples", *_measures()], rows)


def ways_table(found: Found, method: str, goal: str) -> str:
    """A row for each recipe and masking strategy: the way of a method from random numbers to another method."""
    rows = []
    for (name, strategy), blocks in found.items():
        one, chance, reference = (blocks["model", its] for its in (method, CHANCE, goal))
        cells = [share(one, chance, reference, measure) for measure in COMPARED]
        rows.append([TITLES[name.removesuffix(SUFFIX)], strategy, sizes(one), *cells])
    return markdown(["", "masked by", "seeds x samples", *_measures()], rows)


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


def _measures() -> list[str]:
    return [MEASURES[m][0].rstrip(" ↑↓") for m in COMPARED]


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
    passes, total = cost(found, REFERENCE, "forward"), sum(counts(found).values())
    kinds = {
        kind: counts({key: its for key, its in found.items() if (key[0] in IMAGES) == (kind == "images")})
        for kind in ("texts", "images")
    }
    told = [
        f"of {kind} it is better in {marks['▲']}, worse in {marks['▼']} and neither in {marks['']}"
        for kind, marks in kinds.items()
        if any(marks.values())
    ]
    return (
        "**An importance for every token of every prediction:** it takes one forward pass, and integrated gradients with "
        f"{passes:.0f} steps take {times_as_long(found):.0f} times as long.\n"
        f"Its faithfulness was compared with theirs {total} times, on {len(_ran(found))} of {len(TITLES)} data sets: "
        f"{', '.join(told)} (by 95 % intervals; [which](docs/faithfulness.md))."
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


def reached(found: Found) -> str:
    """In how many comparisons the importance gets `GOAL` per cent of the way to Shapley sampling."""
    ways = [
        share(*(blocks["model", its] for its in (OURS, CHANCE, SAMPLED)), measure)
        for blocks in found.values()
        for measure in COMPARED
    ]
    far = sum(way != "–" and int(way.rstrip("%")) >= GOAL for way in ways)
    return f"It gets {GOAL} % of the way or more in {far} of {len(ways)} comparisons.\n"


def texts(names: Iterable[str]) -> tuple[str, str, str]:
    """The sentences for the project's README.md, the tables for docs/faithfulness.md, and README.md here."""
    names = list(names)
    found = read_results(names)
    sampled = read_results([name + SUFFIX for name in names], (OURS, CHANCE, SAMPLED))
    ran = _ran(found)
    rest = [TITLES[name] for name in names if name not in ran]
    table = f"{summary(found)}\n\n{SHARES}\n{shares_table(found)}"
    if rest:
        table = f"Not run yet: {'; '.join(rest)}.\n\n{table}"
    if sampled:
        shapley = f"{reached(sampled)}\n{ways_table(sampled, OURS, SAMPLED)}"
        table += f"\n{SHAPLEY.replace('## Towards Shapley values', '').strip()}\n{shapley}"
    charged = {key: its for key, its in found.items() if ("model", CHARGE) in its}
    parts = [HEAD + table, GAPS + gaps_table(found), PATHS + ways_table(charged, CHARGE, REFERENCE)]
    links = [f"- [{TITLES[name]}]({name}/report.md)" for name in ran]
    links += [f"- [{TITLES[n.removesuffix(SUFFIX)]}, beside Shapley sampling]({n}/report.md)" for n in _ran(sampled)]
    return headline(found), table, "\n".join([*parts, "## All methods\n\n" + "\n".join(links) + "\n"])


def _ran(found: Found) -> list[str]:
    return list(dict.fromkeys(name for name, _ in found))


def write_reports(names: Iterable[str]) -> list[Path]:
    """Writes each recipe's report, README.md here, and the generated parts of the project's documents. Returns the files."""
    names = list(names)
    folders = [HERE / (name + end) for name in names for end in ("", SUFFIX)]
    written = [path for folder in folders if (folder / RESULTS_NAME).is_file() for path in write_report(folder)]
    first, table, text = texts(names)
    page, main, document = HERE / "README.md", PROJECT / "README.md", PROJECT / "docs" / "faithfulness.md"
    page.write_text(text, encoding="utf-8")
    fill_block(main, "faithfulness", first)
    fill_block(document, "faithfulness", table)
    return [*written, page, main, document]
