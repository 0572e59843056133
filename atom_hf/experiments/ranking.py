"""Which arm of a study is best: by mean rank in the loss after temperature scaling and the probe, if accuracy does not fall."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .differences import SCALED, declared_probe, differences
from .study_file import Study

TOLERANCE = 0.005  # of accuracy, that an arm may lose


class Rank(NamedTuple):
    """An arm among all arms of some studies."""

    arm: str
    mean: float
    """Mean over settings, sizes and the two measures of the arm's rank, 1 the best."""
    places: int
    """How many ranks that is the mean of."""
    loses: tuple[str, ...]
    """Where its accuracy is lower than the first arm's by more than 0.5 points, with a 95 % interval that excludes 0."""


def rank_arms(studies: Iterable[tuple[Study, list[dict[str, Any]]]]) -> list[Rank]:
    """The arms that all of some studies have, the best first.

    An arm's rank in a setting, at a size and in a measure is by its mean over the seeds that all arms have run; equal means
    share a rank. Settings without a probe are left out.
    """
    ranks, loses, studies = defaultdict(list), defaultdict(list), list(studies)
    arms = [arm for arm in studies[0][0].arms if all(arm in study.arms for study, _ in studies)] if studies else []
    for study, lines in studies:
        probed = study._replace(settings=[setting for setting in study.settings if setting.probes])
        for setting in probed.settings:
            names = {SCALED: -1, declared_probe(setting): 1}
            for size in setting.sizes:
                of_arm = {
                    arm: {
                        line["seed"]: line
                        for line in lines
                        if (line["setting"], line["size"], line["arm"]) == (setting.name, size, arm)
                    }
                    for arm in arms
                }
                seeds = set.intersection(*(set(its) for its in of_arm.values()))
                if not seeds:
                    continue
                for name, sign in names.items():
                    means = {arm: sign * np.mean([its[s][name] for s in seeds]) for arm, its in of_arm.items()}
                    for arm, mean in means.items():
                        better = sum(other > mean for other in means.values())
                        ranks[arm].append(1 + better + (sum(other == mean for other in means.values()) - 1) / 2)
        for d in differences(probed, lines, "accuracy"):
            if d.arm in arms and d.mean < -TOLERANCE and d.high < 0:
                loses[d.arm].append(f"{d.setting}, {d.size}")
    found = [Rank(arm, float(np.mean(its)), len(its), tuple(loses[arm])) for arm, its in ranks.items()]
    return sorted(found, key=lambda rank: rank.mean)


def best_arm(ranks: Sequence[Rank], among: Collection[str] | None = None) -> str:
    """The arm of the best mean rank that loses no accuracy, of all or of some; without any such arm, of the best mean rank."""
    chosen = [rank for rank in ranks if among is None or rank.arm in among]
    return next((rank.arm for rank in chosen if not rank.loses), chosen[0].arm)
