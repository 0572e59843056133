"""Write `now/README.md` from what `run.py` has measured of today's explainers."""

from collections.abc import Iterable
from pathlib import Path

from faithfulness_report import (
    CHANCE,
    COMPARED,
    GAPS,
    HERE,
    MEASURES,
    OURS,
    REFERENCE,
    SHARES,
    TITLES,
    Found,
    gaps_table,
    read_results,
    shares_table,
    summary,
)

from atom_hf.faithfulness.report import share
from atom_hf.utils.tables import markdown

NOW, SAMPLED, SUFFIX = HERE / "now", "shapley_sampling", "-shapley"
HEAD = """# How faithful the importance of today's explainers is

Made by `python recipes/faithfulness/run.py` (see there for local data, and for fewer samples).
Explainers are fitted as `atom-hf fit-explainer` does by default, to samples of the training split, without their labels.
Everything is measured on samples that neither the training nor the fit has seen.

"""
SHAPLEY = """## Towards Shapley values

How far the importance gets on the way from random numbers (0 %) to Shapley sampling with 25 random orders (100 %), which takes hundreds of passes for each sample, under the same masking strategy.

"""  # noqa: E501


def complete(found: Found, methods: Iterable[str]) -> Found:
    """The recipes and masking strategies of which every method has been measured."""
    return {key: its for key, its in found.items() if all(("model", method) in its for method in methods)}


def shapley_table(found: Found) -> str:
    """A row for each recipe and masking strategy."""
    rows = []
    for (name, strategy), blocks in found.items():
        ours, chance, reference = (blocks["model", method] for method in (OURS, CHANCE, SAMPLED))
        cells = [share(ours, chance, reference, measure) for measure in COMPARED]
        rows.append([TITLES[name.removesuffix(SUFFIX)], strategy, sizes(ours), *cells])
    return markdown(["", "masked by", "seeds x samples", *(MEASURES[m][0].rstrip(" ↑↓") for m in COMPARED)], rows)


def sizes(block) -> str:
    """How many models, and samples of each, a block holds."""
    return f"{len(block.samples)} x {min(len(lines) for lines in block.samples.values())}"


def text(names: Iterable[str]) -> str:
    """The page."""
    names = list(names)
    found = complete(read_results(names, NOW), (OURS, CHANCE, REFERENCE))
    sampled = complete(read_results([name + SUFFIX for name in names], NOW), (OURS, CHANCE, SAMPLED))
    ran = list(dict.fromkeys(name for name, _ in found))
    rest = [name for name in names if name not in ran]
    parts = [HEAD]
    if rest:
        parts.append(f"Not run yet: {'; '.join(TITLES[name] for name in rest)}.\n\n")
    if found:
        seen = "; ".join(f"{TITLES[n]}, {s}: {sizes(its['model', OURS])}" for (n, s), its in found.items())
        parts.append(f"Seeds x samples: {seen}.\n\n{summary(found)}\n\n{SHARES}\n{shares_table(found)}\n")
        parts.append(f"{GAPS}\n{gaps_table(found)}\n")
    if sampled:
        parts.append(SHAPLEY + shapley_table(sampled) + "\n")
    links = "\n".join(f"- [{TITLES[name]}]({name}/report.md)" for name in ran)
    return "".join(parts) + (f"## All methods\n\n{links}\n" if ran else "")


def write_page(names: Iterable[str]) -> Path:
    """Writes the page, and returns its path."""
    NOW.mkdir(exist_ok=True)
    page = NOW / "README.md"
    page.write_text(text(names).rstrip() + "\n", encoding="utf-8")
    return page
