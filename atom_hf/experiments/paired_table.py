"""The result of paired runs: a table of means and paired differences with their intervals, and what it says in a sentence."""

import math
import statistics
from collections.abc import Collection, Iterable, Mapping

from ..utils.statistics import t_interval
from ..visualization.differences import Difference
from ..visualization.page import Table

LESS_IS_BETTER = ("loss", "perplexity", "scaled_loss", "calibration_error")

LONGEST_DIFFERENCE = 30  # letters of "B - A": longer headers make the last column too wide

Results = Mapping[tuple[int, str], Mapping[str, float]]
"""Metrics by (seed, arm)."""


def paired_differences(
    arms: Iterable[str], seeds: list[int], done: Results, leave_out: Collection[str] = ()
) -> list[Difference]:
    """The paired differences of each arm to the first in each metric, with their 95 % t intervals."""
    first, *others = arms
    found = []
    for metric in done[seeds[0], first]:
        if metric == "epoch" or metric in leave_out:
            continue
        values = {name: [done[seed, name][metric] for seed in seeds] for name in (first, *others)}
        for name in others:
            differences = [b - a for a, b in zip(values[first], values[name], strict=True)]
            gap = t_interval(differences)
            sign = (gap.low > 0) - (gap.high < 0)
            better = -sign if metric in LESS_IS_BETTER else sign
            shown = _mean(values[first]), _mean(values[name])
            found.append(Difference(metric, first, name, shown, tuple(differences), *gap, better))
    return found


def paired_table(
    caption: str, arms: Iterable[str], seeds: list[int], done: Results, leave_out: Mapping[str, str] | None = None
) -> Table:
    """Mean and standard deviation of each metric for each arm, and the mean paired difference with its 95 % interval.

    Args:
        caption: what was trained on what.
        arms: their names, the reference first.
        seeds: those to include.
        done: results.
        leave_out: metrics that are not in the table, each with the reason.
    """
    first, *others = arms
    header, how = ["metric", first], "differences are paired by seed"
    for name in others:
        header += [name, f"{name} - {first} [95 %]"]
    if len(others) == 1 and len(f"{others[0]} - {first}") > LONGEST_DIFFERENCE:
        header[-1], how = "difference [95 %]", f"the difference is {others[0]} minus {first}, paired by seed"
    note = f"Mean ± standard deviation over {len(seeds)} seeds; {how}."
    rows: dict[str, list[str]] = {}
    for each in paired_differences([first, *others], seeds, done, leave_out or ()):
        name = each.measure + (" (less is better)" if each.measure in LESS_IS_BETTER else "")
        rows.setdefault(name, [name, each.shown[0]]).extend([each.shown[1], each.says])
    for metric, why in (leave_out or {}).items():
        note += f" Without {metric}: {why}."
    return Table(caption, header, list(rows.values()), note)


def verdict(differences: Iterable[Difference]) -> list[str]:
    """One sentence an arm: in which metrics it is better or worse than the reference by more than noise."""
    by_arm: dict[str, list[Difference]] = {}
    for each in differences:
        by_arm.setdefault(each.arm, []).append(each)
    return [_sentence(its) for its in by_arm.values()]


def _sentence(differences: list[Difference]) -> str:
    found: dict[str, list[Difference]] = {"better": [], "worse": [], "within noise": [], "no interval": []}
    for each in differences:
        found[each.judged].append(each)
    who = f"{differences[0].arm} against {differences[0].reference}"
    if len(found["within noise"]) == len(differences):
        return f"{who}: no difference beyond noise. The 95 % interval of every metric holds 0."
    parts = []
    for word, its in found.items():
        if its and word in ("better", "worse"):
            listed = ", ".join(f"{each.measure} ({each.mean:+.4f})" for each in its)
            parts.append(f"{word} in {listed}, with a 95 % interval that excludes 0")
        elif its:
            parts.append(f"{word} in {', '.join(each.measure for each in its)}")
    return f"{who}: {'; '.join(parts)}."


def _mean(values: list[float]) -> str:
    if not all(map(math.isfinite, values)):  # of a run that diverged, of which `statistics` makes an error
        return "nan"
    return f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}"
