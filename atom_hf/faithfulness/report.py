"""Tables and curves from the results of `atom-hf faithfulness`."""

import math
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..utils.files import write_atomically
from ..utils.jsonl import RESULTS_NAME, read_lines
from ..utils.statistics import Interval, t_interval
from ..utils.tables import markdown
from ..visualization.figures import new_figure, save_figure
from .methods import METHODS
from .metrics import agreement

REPORT_NAME, PICTURE_NAME = "report.md", "faithfulness.png"

MEASURES = {
    "comprehensiveness": ("comprehensiveness ↑", True),
    "sufficiency": ("sufficiency ↓", False),
    "deletion": ("deletion ↓", False),
    "insertion": ("insertion ↑", True),
    "infidelity_normalized": ("infidelity, scaled ↓", False),
    "infidelity": ("infidelity ↓", False),
}
"""The metrics of every sample: heading, and whether more is better."""

OURS, REFERENCE, CHANCE = "importance", "integrated_gradients", "random"


class Block(NamedTuple):
    """The results of one method on the models of one arm, under one masking strategy."""

    samples: dict[str, dict[int, dict[str, Any]]]
    """Model -> sample -> line."""
    checks: dict[str, dict[int, dict[str, Any]]]
    costs: list[dict[str, Any]]

    def values(self, measure: str) -> np.ndarray:
        """[models, samples], of the samples that every model has; empty if nothing was measured."""
        return _grid(self.samples, lambda line: line.get(measure))


def read_blocks(folder: Path) -> tuple[dict[str, Any], dict[tuple[str, str, str], Block]]:
    """The first line of a folder's results, and (strategy, arm, method) -> results."""
    head, *lines = read_lines(Path(folder, RESULTS_NAME))
    blocks: dict[tuple[str, str, str], Block] = defaultdict(lambda: Block(defaultdict(dict), defaultdict(dict), []))
    for line in lines:
        if line["kind"] == "weights":
            continue
        block = blocks[line["how"], line["arm"], line["method"]]
        if line["kind"] == "cost":
            block.costs.append(line)
        else:
            (block.samples if line["kind"] == "sample" else block.checks)[line["model"]][line["sample"]] = line
    return head, dict(blocks)


def interval(values: np.ndarray) -> Interval:
    """The mean of independent values that were measured, the others being NaN, with its 95 % t interval."""
    return t_interval(values[~np.isnan(values)])


def write_report(folder: str | Path) -> list[Path]:
    """Writes `report.md` and `faithfulness.png` of the results in a folder. Returns the files that it wrote."""
    head, blocks = read_blocks(Path(folder))
    written = write_atomically(Path(folder, REPORT_NAME), report(head, blocks))
    return [written, plot(head, blocks, Path(folder, PICTURE_NAME))]


def report(head: dict[str, Any], blocks: dict[tuple[str, str, str], Block]) -> str:
    """The report in Markdown."""
    names = {
        arm: sorted({m for (_, a, _), b in blocks.items() if a == arm for m in b.samples}) for arm in ("model", "plain")
    }
    about = ", ".join(
        f"{len(found)} {'model(s)' if arm == 'model' else 'plain'}" for arm, found in names.items() if found
    )
    parts = [f"# Faithfulness: {head['data']}\n", f"{head['task']}, {head['samples']} samples, {about}.\n", EXPLAINED]
    for strategy in dict.fromkeys(strategy for strategy, _, _ in blocks):
        found = {key: block for key, block in blocks.items() if key[0] == strategy and block.samples}
        parts.append(f"## Tokens masked by {strategy}\n\n{measures_table(found)}")
        if gaps := difference_table(found):
            parts.append(f"{OURS} minus another method on the same samples. {GAPS}\n{gaps}")
    parts.append(f"## Checks and cost\n\n{CHECKS}\n{checks_table(blocks)}")
    lines = "\n".join(f"- {name}: {METHODS[name].about}" for name in dict.fromkeys(m for _, _, m in blocks))
    parts.append(f"## Methods\n\n{lines}\n")
    return "\n".join(parts)


EXPLAINED = """\
All values are about the probability of the class that the model predicts on the whole input.
Each cell is a mean over samples (and over models, if there are several) with its 95 % t interval over samples; ± is the standard deviation between models.
↑ more is better, ↓ less is better.
Scaled infidelity multiplies the attribution by the factor that fits best, which may be negative.
"""  # noqa: E501

GAPS = """\
The first brackets hold a 95 % t interval over samples, the second one over models.
▲ and ▼ mark a first interval that excludes 0, for the better and the worse.
The last rows say how far each method gets on the way from random numbers to integrated gradients.
"""

CHECKS = """\
- Sensitivity: how much the attribution changes with a small change of the input.
- Agreement: the mean rank correlation of the attributions of one sample between models.
- Randomized: the rank correlation with the attribution of the same model with random parameters, with sign and without; nearer 0 is better.
- Passes: those of one sample, without the prediction itself; a backward pass counts as two forward passes.
- Time: a multiple of that of one forward pass.
- –: not measured, because a sampling method takes too long, or there is only one model.
"""  # noqa: E501


def _label(arm: str, method: str) -> str:
    return method.replace("_", " ") + (", plain model" if arm == "plain" else "")


def _row(*cells: str) -> list[str]:
    return [cell.replace("|", "\\|") for cell in cells]


def measures_table(blocks: dict[tuple[str, str, str], Block]) -> str:
    """A row a method, a column a measure."""
    rows = []
    for (_, arm, method), block in _sorted(blocks):
        cells = [_cell(block.values(measure)) for measure in MEASURES]
        rows.append(_row(_label(arm, method), *cells))
    return markdown(["method", *(title for title, _ in MEASURES.values())], rows)


def difference_table(blocks: dict[tuple[str, str, str], Block]) -> str:
    """The paired differences of the importance to the other methods, and each method's share of the reference's gain."""
    by_name = {(arm, method): block for (_, arm, method), block in blocks.items()}
    ours = by_name.get(("model", OURS))
    measures = [name for name in MEASURES if name != "infidelity"]
    rows = []
    for (arm, method), block in by_name.items():
        if ours is None or arm != "model" or method == OURS:
            continue
        cells = [gap(paired(ours, block, name), MEASURES[name][1]) for name in measures]
        rows.append(_row(f"importance - {_label(arm, method)}", *cells))
    chance, reference = by_name.get(("model", CHANCE)), by_name.get(("model", REFERENCE))
    if chance and reference:
        for (arm, method), block in by_name.items():
            if arm == "model" and method not in (CHANCE, REFERENCE):
                cells = [share(block, chance, reference, name) for name in measures]
                rows.append(_row(f"share of the way: {_label(arm, method)}", *cells))
    return markdown(["", *(MEASURES[name][0] for name in measures)], rows) if rows else ""


def checks_table(blocks: dict[tuple[str, str, str], Block]) -> str:
    """A row a method: sensitivity, agreement, randomisation, and cost."""
    merged: dict[tuple[str, str], list[Block]] = defaultdict(list)
    for (_, arm, method), block in _sorted(blocks):
        merged[arm, method].append(block)
    rows = []
    for (arm, method), found in merged.items():
        checks = {model: lines for block in found for model, lines in block.checks.items()}
        sensitivity = _grid(checks, lambda line: line["sensitivity_max"])
        final = [_grid(checks, lambda line, i=i: list(line["randomization"].values())[-1][i]) for i in (0, 1)]
        alike = _agreements(found[0])
        cost = [np.median([line[key] for block in found for line in block.costs] or [math.nan]) for key in _COSTS]
        cost.append(cost[1] + 2 * cost[2])
        cells = [_cell(sensitivity), _cell(alike[None]), *(_cell(values) for values in final)]
        rows.append(_row(_label(arm, method), *cells, *(_short(value) for value in cost)))
    header = ["method", "sensitivity ↓", "agreement ↑", "randomized, signed", "randomized, absolute"]
    return markdown([*header, "time", "forward passes", "backward passes", "forward equivalents"], rows)


_COSTS = ("time", "forward", "backward")


def plot(head: dict[str, Any], blocks: dict[tuple[str, str, str], Block], path: Path) -> Path:
    """Deletion and insertion curves, a row for each masking strategy, a line for each method."""
    strategies = list(dict.fromkeys(strategy for strategy, _, _ in blocks))
    names = list(dict.fromkeys((arm, method) for (_, arm, method), _ in _sorted(blocks)))
    figure, axes = new_figure(10, 0.6 + 3.4 * len(strategies), len(strategies), 2, sharey="row")
    shares = np.linspace(0, 1, 21)
    for row, strategy in zip(axes, strategies, strict=True):
        for axis, name in zip(row, ("deletion", "insertion"), strict=True):
            for arm, method in names:
                block = blocks.get((strategy, arm, method))
                if block is None or not block.samples:
                    continue
                curves = [line[f"{name}_curve"] for lines in block.samples.values() for line in lines.values()]
                spread = [np.interp(shares, np.linspace(0, 1, len(curve)), curve) for curve in curves]
                style = {"color": f"C{list(METHODS).index(method) % 10}", "linestyle": "--" if arm == "plain" else "-"}
                style |= {"linewidth": 2.6, "color": "black"} if method == OURS else {"linewidth": 1.2}
                label = method.replace("_", " ")
                axis.plot(
                    shares, np.mean(spread, 0), label=label + (", plain model" if arm == "plain" else ""), **style
                )
            axis.set_title(
                f"{name}, by {strategy}: {'lower' if name == 'deletion' else 'higher'} is better", fontsize=10
            )
            axis.set_xlabel("share of tokens " + ("masked" if name == "deletion" else "unmasked"), fontsize=8)
            axis.grid(color="#dddddd", linewidth=0.6)
        row[0].set_ylabel("probability of the predicted class", fontsize=8)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=8)
    figure.suptitle(f"{head['data']}, {head['samples']} samples", fontsize=11)
    return save_figure(figure, path)


def _sorted(blocks: dict[tuple[str, str, str], Block]) -> list[tuple[tuple[str, str, str], Block]]:
    order = list(METHODS)
    return sorted(
        ((key, block) for key, block in blocks.items()), key=lambda pair: (pair[0][1], order.index(pair[0][2]))
    )


def _grid(models: dict[str, dict[int, dict[str, Any]]], value: Any) -> np.ndarray:
    if not models:
        return np.empty((0, 0))
    shared = sorted(set.intersection(*(set(lines) for lines in models.values())))
    found = [[value(lines[number]) for number in shared] for lines in models.values()]
    return np.array([[math.nan if v is None else v for v in row] for row in found], dtype=np.float64)


def over_models(values: np.ndarray) -> np.ndarray:
    """The mean over models [samples] of [models, samples], without NaN."""
    there = ~np.isnan(values)
    count = there.sum(0)
    return np.where(count > 0, np.where(there, values, 0).sum(0) / np.maximum(count, 1), math.nan)


def _cell(values: np.ndarray) -> str:
    if not values.size or np.isnan(values).all():
        return "–"
    found = interval(over_models(values))
    spread = ""
    if len(values) > 1:
        spread = f" ± {_short(float(np.std([interval(row).mean for row in values], ddof=1)))}"
    return f"{_short(found.mean)} [{_short(found.low)}, {_short(found.high)}]{spread}"


def paired(one: Block, other: Block, measure: str) -> np.ndarray:
    """[models, samples] of the differences, on models and samples that both have."""
    models = [model for model in one.samples if model in other.samples]
    shared = {
        model: {
            n: (line, other.samples[model][n]) for n, line in one.samples[model].items() if n in other.samples[model]
        }
        for model in models
    }
    return _grid(shared, lambda pair: None if None in (p := [x.get(measure) for x in pair]) else p[0] - p[1])


def verdict(differences: np.ndarray, more_is_better: bool) -> str:
    """Of differences [models, samples]: ▲ better and ▼ worse, where the interval over samples excludes 0; else nothing."""
    found = interval(over_models(differences))
    return "" if not (found.low > 0 or found.high < 0) else "▲" if (found.mean > 0) == more_is_better else "▼"


def gap(differences: np.ndarray, more_is_better: bool) -> str:
    """The mean of differences [models, samples] with its intervals, and the verdict."""
    if not differences.size or np.isnan(differences).all():
        return "–"
    found = interval(over_models(differences))
    mark = f" {verdict(differences, more_is_better)}".rstrip()
    seeds = ""
    if len(differences) > 1:
        over = interval(np.array([interval(row).mean for row in differences]))
        seeds = f"; [{over.low:+.3g}, {over.high:+.3g}]"
    return f"{found.mean:+.3g} [{found.low:+.3g}, {found.high:+.3g}]{mark}{seeds}"


def share(block: Block, chance: Block, reference: Block, measure: str) -> str:
    """How much of the way from chance to the reference a method goes."""
    means = [interval(over_models(b.values(measure))).mean for b in (block, chance, reference)]
    if any(math.isnan(mean) for mean in means) or abs(means[2] - means[1]) < 1e-9:
        return "–"
    return f"{(means[0] - means[1]) / (means[2] - means[1]):.0%}"


def _agreements(block: Block) -> np.ndarray:
    """Of each sample that every model has, the agreement of its attributions between models [samples]."""
    if len(block.samples) < 2:
        return np.array([math.nan])
    shared = sorted(set.intersection(*(set(lines) for lines in block.samples.values())))
    found = [[lines[number]["attribution"] for lines in block.samples.values()] for number in shared]
    return np.array([agreement(given) for given in found if len({len(row) for row in given}) == 1] or [math.nan])


def _short(value: float) -> str:
    if math.isnan(value):
        return "–"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.3f}" if abs(value) >= 0.01 or value == 0 else f"{value:.2g}"
