"""Write `steps/README.md` from the results of `steps.py`."""

from pathlib import Path

import numpy as np
from faithfulness_report import HERE

from atom_hf.utils.jsonl import read_lines
from atom_hf.utils.statistics import paired_t_test, t_interval
from atom_hf.utils.tables import markdown

RESULTS = HERE / "steps" / "results.jsonl"
SHAPLEY = "Shapley values"
HEAD = """# What makes an explainer faithful

Made by `python recipes/faithfulness/steps.py`; `steps.yaml` says what each step is.

Of each model, samples were masked once, and every step was fitted to a part of what that gave.
On evaluation samples that no fit has seen, its parts are compared with Shapley values, by least squares over sets drawn for these samples.

- **explained**: the share of what masking sets of tokens changes that the parts explain, beyond an equal part for each token. *Shapley values* have the highest share that any parts could have on these sets (they were fitted to them); their passes are for all evaluation samples together.
- **rank**: Spearman's rank correlation with the Shapley values, mean over samples and seeds, with the 95 % interval of the difference to the row that it is compared with (the one above, *now*, or the one that its name begins with); ▲ and ▼ where it excludes 0.
- **passes**: masked forward passes that the fit takes for one model.

"""  # noqa: E501


def ranks_of(lines: list[dict], step: str, strategy: str) -> dict[tuple[int, int], float]:
    """(seed, sample) -> rank correlation of a step."""
    return {
        (line["seed"], sample): rank
        for line in lines
        if line["step"] == step
        for sample, rank in enumerate(line["strategies"][strategy]["ranks"])
        if not np.isnan(rank)
    }


def cell(lines: list[dict], step: str, other: str | None, strategy: str) -> str:
    """The rank correlation of a step, and its difference to another step over samples; seeds of a sample count as one."""
    mine = ranks_of(lines, step, strategy)
    if not mine:
        return "not run"
    text = f"{t_interval(list(mine.values())).mean:.3f}"
    theirs = ranks_of(lines, other, strategy) if other else {}
    both = sorted(mine.keys() & theirs.keys())
    if not both:
        return text
    difference, _ = paired_t_test([theirs[key] for key in both], [mine[key] for key in both])
    mark = " ▲" if difference.low > 0 else " ▼" if difference.high < 0 else ""
    return f"{text} ({difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]{mark})"


def table(study: dict, lines: list[dict]) -> str:
    """A row for each step and variant of one setting."""
    strategies = list(lines[0]["strategies"])
    names = [step["name"] for step in study["steps"]]
    compared = {name: before for name, before in zip(names[1:], names, strict=False)}
    compared |= {variant["name"]: variant.get("beside", names[-1]) for variant in study["variants"]}
    rows = []
    for name in [*dict.fromkeys([*names, *compared]), SHAPLEY]:
        mine = [line for line in lines if line["step"] == name]
        shares = [f"{explained(lines, name, s):.3f}" if mine else "" for s in strategies]
        ranks = [cell(lines, name, compared.get(name), s) for s in strategies]
        passes = f"{mine[0]['passes']:,}" if mine else ""
        rows.append([name, passes, *shares, *ranks])
    header = ["", "passes", *(f"explained, {s}" for s in strategies), *(f"rank, {s}" for s in strategies)]
    return markdown(header, rows)


def before_table(study: dict, lines: list[dict]) -> str:
    """A row for today's explainer and each variant that was run, beside the first step."""
    strategies, first = list(lines[0]["strategies"]), study["steps"][0]["name"]
    by_name = {line["step"]: line for line in lines}
    names = [study["steps"][-1]["name"], *(variant["name"] for variant in study["variants"])]
    rows = [
        [
            name,
            f"{by_name[name]['passes'] / by_name[first]['passes']:.0%}",
            *(f"{explained(lines, name, s) - explained(lines, first, s):+.3f}" for s in strategies),
            *(cell(lines, name, first, s) for s in strategies),
        ]
        for name in names
        if name in by_name and first in by_name
    ]
    header = [f"beside {first!r}", "passes", *(f"explained, {s}" for s in strategies)]
    return markdown([*header, *(f"rank, {s}" for s in strategies)], rows) if rows else ""


def explained(lines: list[dict], step: str, strategy: str) -> float:
    """The mean over seeds of the share that a step explains."""
    return float(np.mean([line["strategies"][strategy]["explained"] for line in lines if line["step"] == step]))


def text(study: dict, lines: list[dict]) -> str:
    """The page."""
    parts = [HEAD]
    for name, setting in study["settings"].items():
        its = [line for line in lines if line["setting"] == name]
        seeds = sorted({line["seed"] for line in its})
        told = "Not run yet.\n"
        if its:
            told = f"Seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}.\n\n"
            told += f"{table(study, its)}\n{before_table(study, its)}"
        parts.append(f"## {setting['title']}\n\n{told}\n")
    return "".join(parts).rstrip() + "\n"


def write_page(study: dict) -> Path:
    """Writes the page, and returns its path."""
    page = RESULTS.parent / "README.md"
    page.write_text(text(study, read_lines(RESULTS)), encoding="utf-8")
    return page
