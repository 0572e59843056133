"""Tables and plots of a study: mean paired differences with their intervals, tests and corrections."""

import importlib.util
import json
import math
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import AtomError
from ..utils.files import write_atomically
from ..utils.tables import markdown
from ..visualization.figures import new_figure, save_figure
from .differences import Difference, cost_ratio, declared_probe, differences, family
from .study_file import Setting, Study

REPORT_NAME = "tables.md"

SHARES = ("accuracy", "mcc")

GOOD, BAD, EVEN = "#1b7837", "#b2182b", "#777777"


def check_packages() -> None:
    """Raises `AtomError` for a missing package that plots or measures need, before any run."""
    for package in ("matplotlib", "sacrebleu"):
        if importlib.util.find_spec(package) is None:
            raise AtomError(f"a study needs {package}: pip install 'atom-hf[study]'")


def write_report(study: Study, lines: list[dict[str, Any]], folder: Path) -> list[Path]:
    """Writes `tables.md`, `differences.png`, and where they apply `sizes.png` and `latents.png`. Returns these files."""
    main, loss = differences(study, lines, None), differences(study, lines, "loss")
    written = [write_atomically(folder / REPORT_NAME, tables(study, lines))]
    if main:
        picture = folder / "differences.png"
        written.append(plot_differences(study.title, list(study.arms), main, loss, picture))
    if lines and _growing(study):
        written.append(_plot_sizes(study, lines, folder / "sizes.png"))
    if pictures := sorted((folder / "latents").glob("*.json")):
        written.append(_plot_latents(study, pictures, folder / "latents.png"))
    return written


def tables(study: Study, lines: list[dict[str, Any]]) -> str:
    """The tables in Markdown: the main measure and the loss in full, and every other measure's differences."""
    first = next(iter(study.arms))
    parts = []
    for title, measure in (("Main measure", None), ("Cross-entropy on the test data (less is better)", "loss")):
        rows = [
            [
                f"{d.setting}, {d.size}",
                d.measure,
                d.arm,
                str(d.seeds),
                _number(d.first),
                interval(d),
                f"{d.p:.3g}",
                f"{d.holm:.3g}",
            ]
            for d in differences(study, lines, measure)
        ]
        header = ["setting, samples", "measure", "arm", "seeds", first, f"arm - {first} [95 %]", "p", "p (Holm)"]
        parts.append(f"**{title}**\n\n{markdown(header, rows)}")
    if any(setting.probes for setting in study.settings):
        parts += [family_table([(study, lines)]), means_table(study, lines)]
    of_probes = tuple(f"{probe} " for setting in study.settings for probe in setting.probes)
    names = [k for k in dict.fromkeys(k for line in lines for k in line) if k not in _KEYS]
    names = [name for name in names if not (of_probes and name.startswith(of_probes))]
    by_measure = {
        name: {(d.setting, d.size, d.arm): d for d in differences(study, lines, name)}
        for name in names
        if name not in {s.metric for s in study.settings} or len({s.metric for s in study.settings}) > 1
    }
    by_measure = {name: found for name, found in by_measure.items() if found}
    rows = []
    for setting in study.settings:
        for size in setting.sizes:
            for arm in list(study.arms)[1:]:
                cells = [by_measure[name].get((setting.name, size, arm)) for name in by_measure]
                if any(cells):
                    cost = cost_ratio(setting, size, arm, first, lines)
                    shown = [("" if d is None else _sign(d.mean) + _mark(d.verdict, d)) for d in cells]
                    rows.append([f"{setting.name}, {size}", arm, *shown, f"{cost:.2f}"])
    header = ["setting, samples", "arm", *by_measure, "cost"]
    parts.append(
        f"**Other measures**: mean difference to {first}; ● the 95 % interval excludes 0 (▲ better, ▼ worse, where one "
        f"is better), not corrected for their number; cost is the CPU time of training as a multiple of {first}'s, median over "
        f"seeds\n\n{markdown(header, rows)}"
    )
    return "\n".join(parts)


def family_table(studies: Iterable[tuple[Study, list[dict[str, Any]]]]) -> str:
    """Loss after temperature scaling and declared probe, arms against the first, corrected together; accuracy beside them."""
    studies = list(studies)
    scaled, probe = family(studies)
    kept = {(d.setting, d.size, d.arm): d for study, lines in studies for d in differences(study, lines, "accuracy")}
    of_probe = {(d.setting, d.size, d.arm): d for d in probe}
    rows = []
    for d in scaled:
        key = d.setting, d.size, d.arm
        accuracy, other = kept[key], of_probe[key]
        cells = [f"{d.first:.3f}", interval(d), f"{d.holm:.3g}"]
        cells += [other.measure, f"{other.first:.3f}", interval(other), f"{other.holm:.3g}"]
        rows.append([f"{d.setting}, {d.size}", d.arm, str(d.seeds), interval(accuracy), *cells])
    first = next(iter(studies[0][0].arms))
    header = ["setting, samples", "arm", "seeds", "accuracy, difference [95 %]"]
    header += [f"NLL-T, {first}", "difference [95 %]", "p (Holm)", "probe", first, "difference [95 %]", "p (Holm)"]
    return (
        f"**Cross-entropy after temperature scaling (NLL-T, less is better) and a linear probe of labels that training did not "
        f"have**: difference to {first}; Holm's correction is over all {len(scaled) + len(probe)} comparisons of the two "
        f"columns\n\n{markdown(header, rows)}"
    )


def means_table(study: Study, lines: list[dict[str, Any]]) -> str:
    """The mean over seeds of every arm in every measure, probes of the untrained weights beside those of the trained ones."""
    rows = []
    for setting in study.settings:
        probes = [f"{probe} " for probe in setting.probes]
        for size in setting.sizes:
            for arm in study.arms:
                mine = [r for r in lines if (r["setting"], r["size"], r["arm"]) == (setting.name, size, arm)]
                if not mine:
                    continue

                def mean(name: str, mine: list[dict[str, Any]] = mine) -> float:
                    found = [line[name] for line in mine if name in line]
                    return statistics.mean(found) if found else math.nan

                cells = [f"{mean(name):.3f}" for name in _MEANS]
                for probe in probes[:1]:
                    cells += [f"{mean(f'{probe}{name}'):.3f}" for name in _PROBED]
                more = "; ".join(
                    f"{name} {mean(name):.3f}"
                    for probe in probes
                    for name in dict.fromkeys(name for line in mine for name in line if name.startswith(probe))
                    if probe != probes[0] or name.removeprefix(probe) not in _PROBED
                )
                rows.append([f"{setting.name}, {size}", arm, str(len(mine)), *cells, more])
    shown = {"loss": "NLL", "scaled loss": "NLL-T", "calibration_error": "ECE"}
    header = ["setting, samples", "arm", "seeds", *(shown.get(n, n.replace("_", " ")) for n in _MEANS), *_PROBED]
    named = "; ".join(f"{s.name}: {declared_probe(s)}" for s in study.settings if s.probes)
    return f"**Means over seeds** ({named})\n\n{markdown([*header, 'other probes'], rows)}"


_MEANS = (
    *("train accuracy", "accuracy", "loss", "scaled loss", "calibration_error", "entropy", "effective_rank"),
    *("distance_correlation", "twin"),
)

_PROBED = ("probe", "untrained probe", "neighbors", "untrained neighbors")

_KEYS = ("setting", "size", "arm", "seed", "settings", "seconds", "loss")

_NEITHER = ("entropy", "effective_rank", "neighbor_distance", "distance_correlation", "distinct-1", "distinct-2")


def _mark(verdict: int, d: Difference | None = None) -> str:
    if verdict == 0:
        return ""
    if d is not None and d.measure in _NEITHER:
        return " ●"
    return " ▲" if verdict > 0 else " ▼"


def interval(d: Difference, factor: float = 1.0, digits: int = 4) -> str:
    """The mean difference, times a factor, with its interval, and a mark where that excludes 0."""
    mean, low, high = (_sign(factor * value, digits) for value in (d.mean, d.low, d.high))
    return f"{mean} [{low}, {high}]{_mark(d.verdict)}"


def _number(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"


def _sign(value: float, digits: int = 4) -> str:
    return f"{value:+.{digits}f}" if abs(value) < 10 else f"{value:+.{min(2, digits)}f}"


def plot_differences(title: str, names: list[str], main: list[Difference], loss: list[Difference], path: Path) -> Path:
    """One row a comparison of the arms `names`: the interval of its difference in the main measure and in the loss."""
    groups = list(dict.fromkeys((d.setting, d.size) for d in main))
    first, *arms = names
    rows = {key: i for i, key in enumerate((g, a) for g in groups for a in arms)}
    figure, axes = new_figure(11, 1.4 + 0.27 * len(rows), 1, 2, sharey=True)
    measures = sorted({d.measure for d in main})
    unit = "points" if set(measures) <= set(SHARES) else "points; perplexity in % less"
    for axis, found, head, is_main in (
        (axes[0][0], main, f"{' / '.join(measures)} ({unit}): right is better", True),
        (axes[0][1], loss, "cross-entropy (nats): left is better", False),
    ):
        for d in found:
            scale = 1 if not is_main else 100 if d.measure in SHARES else -100 / d.first
            y = rows[(d.setting, d.size), d.arm]
            color = {1: GOOD, -1: BAD, 0: EVEN}[d.verdict]
            axis.plot([d.low * scale, d.high * scale], [y, y], color=color, linewidth=2, solid_capstyle="butt")
            axis.plot([d.mean * scale], [y], "o", color=color, markersize=5)
        axis.axvline(0, color="black", linewidth=0.8)
        axis.set_title(head, fontsize=10)
        axis.locator_params(axis="x", nbins=6)
        axis.grid(axis="x", color="#dddddd", linewidth=0.6)
        for number in range(1, len(groups)):
            axis.axhline(number * len(arms) - 0.5, color="#bbbbbb", linewidth=0.6)
    one = len(arms) == 1
    where = f" ({groups[0][0]}, {groups[0][1]:,} samples)" if len(groups) == 1 and not one else ""

    def label(group: tuple[str, int], arm: str) -> str:
        named = f"{group[0]}, {group[1]:,}"
        return named if one else arm if where else f"{named}: {arm}"

    axes[0][0].set_yticks(range(len(rows)), [label(*row) for row in rows], fontsize=8)
    axes[0][0].set_ylim(len(rows) - 0.5, -0.5)
    figure.suptitle(f"{title}{where}: {arms[0] if one else 'arm'} - {first}, mean and 95 % interval", fontsize=11)
    return save_figure(figure, path)


def _growing(study: Study) -> list[Setting]:
    # A perplexity is per token of the vocabulary that each sample trains: no measure to follow over sizes.
    return [setting for setting in study.settings if len(setting.sizes) > 1 and setting.metric != "perplexity"]


def _plot_sizes(study: Study, lines: list[dict[str, Any]], path: Path) -> Path:
    """One panel a setting: the main measure of each arm by the number of training samples."""
    settings = _growing(study)
    columns = min(4, len(settings))
    height = -(-len(settings) // columns)
    figure, axes = new_figure(3.2 * columns + 0.6, 2.8 * height + 0.5, height, columns)
    for axis in axes.flat[len(settings) :]:
        axis.axis("off")
    for axis, setting in zip(axes.flat, settings, strict=False):
        for arm in study.arms:
            points = []
            for size in setting.sizes:
                found = [
                    line[setting.metric]
                    for line in lines
                    if (line["setting"], line["size"], line["arm"]) == (setting.name, size, arm)
                ]
                if len(found) > 1:
                    error = statistics.stdev(found) / math.sqrt(len(found))
                    points.append((size, statistics.mean(found), error))
            if points:
                axis.errorbar(*zip(*points, strict=True), marker="o", markersize=3, capsize=2, linewidth=1.2, label=arm)
        axis.set_xscale("log")
        axis.set_xticks(list(setting.sizes), [f"{n:,}" for n in setting.sizes], fontsize=8)
        axis.minorticks_off()
        axis.set_title(setting.name, fontsize=9)
        axis.set_ylabel(setting.metric, fontsize=8)
        axis.grid(color="#dddddd", linewidth=0.6)
    if axes.flat[0].get_legend_handles_labels()[0]:  # of one seed nothing is drawn
        axes.flat[0].legend(fontsize=7)
    figure.suptitle(f"{study.title}: mean and standard error by training samples", fontsize=11)
    return save_figure(figure, path)


def _plot_latents(study: Study, pictures: list[Path], path: Path) -> Path:
    """One row an arm, one column a moment of training: latents in their principal plane, coloured by class."""
    found = [json.loads(picture.read_text(encoding="utf-8")) for picture in pictures]
    arms, settings = list(study.arms), [setting.name for setting in study.settings]
    found = [one for one in found if one["arm"] in arms and one["setting"] in settings]
    found.sort(key=lambda one: (settings.index(one["setting"]), one["size"], arms.index(one["arm"])))
    columns = max((len(one["moments"]) for one in found), default=1)
    figure, axes = new_figure(2.2 * columns + 0.5, 2.2 * len(found) + 0.4, max(1, len(found)), columns)
    for row, one in zip(axes, found, strict=False):
        for axis, moment in zip(row, one["moments"], strict=False):
            x, y = zip(*moment["points"], strict=True)
            axis.scatter(x, y, c=one["labels"], cmap="tab10", s=7, linewidths=0)
            axis.set_title(f"{moment['progress']:.0%} of training", fontsize=8)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_aspect("equal", "datalim")
        row[0].set_ylabel(f"{one['size']:,} samples: {one['arm']}", fontsize=8)
    figure.suptitle(
        f"{study.title}: latents over training, in the last ones' principal plane, seed {study.first_seed}", fontsize=10
    )
    return save_figure(figure, path)
