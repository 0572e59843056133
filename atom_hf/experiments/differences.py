"""Differences between the arms of a study: paired over seeds, with intervals, tests and Holm's correction."""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from ..utils.statistics import holm, paired_t_test
from .measures import less_is_better
from .study_file import Setting, Study

PROBE = "probe"  # stands for a setting's declared probe, its first

SCALED = "scaled loss"


class Difference(NamedTuple):
    """One arm against the first, in one measure of one setting at one size, over the seeds that both have run."""

    setting: str
    size: int
    arm: str
    measure: str
    seeds: int
    first: float
    """Mean of the first arm."""
    mean: float
    """Mean paired difference, arm minus first."""
    low: float
    high: float
    """The 95 % t interval of the difference."""
    p: float
    """Of the paired t-test; NaN where the seeds do not differ in it."""
    holm: float
    """p after Holm's correction over the comparisons that it was found with: a study's in its measure."""

    @property
    def verdict(self) -> int:
        """1 if the arm is better with an interval that excludes 0, -1 if it is worse, else 0."""
        if self.low <= 0 <= self.high or math.isnan(self.low):
            return 0
        return 1 if (self.mean < 0) == less_is_better(self.measure.split()[-1]) else -1


def differences(study: Study, lines: list[dict[str, Any]], measure: str | None) -> list[Difference]:
    """All arms but the first against it, in one measure.

    Args:
        study: arms and settings.
        lines: results.
        measure: a key of the results; None is each setting's main measure, and "probe" its first probe.
    """
    values = defaultdict(dict)
    for line in lines:
        values[line["setting"], line["size"], line["arm"]][line["seed"]] = line
    first, *others = study.arms
    found = []
    for setting in study.settings:
        name = declared_probe(setting) if measure == PROBE else measure or setting.metric
        for size in setting.sizes:
            base = values[setting.name, size, first]
            for arm in others:
                mine = values[setting.name, size, arm]
                both = [s for s in sorted(base.keys() & mine.keys()) if name in base[s] and name in mine[s]]
                pairs = [(base[s][name], mine[s][name]) for s in both]
                if len(pairs) < 2:
                    continue
                reference, compared = zip(*pairs, strict=True)
                gap, p = paired_t_test(reference, compared)
                average = float(np.mean(reference))
                found.append(Difference(setting.name, size, arm, name, len(pairs), average, *gap, p, math.nan))
    corrected = holm([d.p for d in found])
    return [d._replace(holm=p) for d, p in zip(found, corrected, strict=True)]


def cost_ratio(setting: Setting, size: int, arm: str, first: str, lines: list[dict[str, Any]]) -> float:
    """Median over seeds of the CPU time of an arm's training over the first's (on an accelerator, of the time)."""
    seconds = {
        (line["arm"], line["seed"]): line["seconds"]
        for line in lines
        if (line["setting"], line["size"]) == (setting.name, size)
    }
    return statistics.median(
        [seconds[arm, s] / seconds[first, s] for a, s in seconds if a == first and (arm, s) in seconds] or [math.nan]
    )


def declared_probe(setting: Setting) -> str | None:
    """The key of a setting's declared probe, its first; None if it has none."""
    return f"{next(iter(setting.probes))} probe" if setting.probes else None


def family(studies: Iterable[tuple[Study, list[dict[str, Any]]]]) -> tuple[list[Difference], list[Difference]]:
    """Differences in the loss after temperature scaling, and in the declared probes, of the settings that have one.

    Holm's correction is over both together: of all these arms, settings and studies, one family.
    """
    groups: tuple[list[Difference], list[Difference]] = ([], [])
    for study, lines in studies:
        probed = study._replace(settings=[setting for setting in study.settings if setting.probes])
        for group, measure in zip(groups, (SCALED, PROBE), strict=True):
            group += differences(probed, lines, measure)
    corrected = iter(holm([d.p for group in groups for d in group]))
    scaled, probe = ([d._replace(holm=next(corrected)) for d in group] for group in groups)
    return scaled, probe
