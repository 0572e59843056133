"""What the separation studies found, in tables and sentences: for the study's report and the project's README.md."""

from collections.abc import Mapping
from typing import NamedTuple

from atom_hf.experiments.differences import Difference, declared_probe, differences, family
from atom_hf.experiments.ranking import Rank, best_arm, rank_arms
from atom_hf.experiments.study_file import Study
from atom_hf.experiments.study_report import interval
from atom_hf.utils.tables import markdown

Results = Mapping[str, tuple[Study, list[dict]]]
"""By the name of its file, a study and the results that there are."""

DEFAULT = "separation 0.5"  # the arm that is the default for classifiers
COMPETITOR = "centred uniformity"
SCRATCH = "from scratch"  # in the names of settings whose model is not pretrained

# What the arms of `separation_tuning.yaml` are called in the studies that report.
TUNED = {
    "separation": DEFAULT,
    "label smoothing": "label smoothing",
    "centred uniformity": COMPETITOR,
    "dispersive": "dispersive",
}


class Gain(NamedTuple):
    """What one arm changes in one setting."""

    scaled: Difference
    probe: Difference
    accuracy: Difference

    @property
    def holds(self) -> list[bool]:
        """Whether the loss after temperature scaling, and the probe, are better after Holm's correction."""
        return [d.verdict > 0 and d.holm < 0.05 for d in (self.scaled, self.probe)]


def gains(studies: Results, arm: str) -> list[Gain]:
    """The gains of an arm, one a setting with a probe and a size. Holm's correction is over all studies, arms and settings."""
    scaled, probe = family(studies.values())
    accuracy = [d for found in studies.values() for d in differences(*found, "accuracy")]
    by_place = [{(d.setting, d.size): d for d in found if d.arm == arm} for found in (scaled, probe, accuracy)]
    return [Gain(*(found[place] for found in by_place)) for place in by_place[0]]


def span(values: list[float], digits: int, factor: float = 1.0) -> str:
    """The smallest and the largest of some values, as text: "0.07 to 0.17"."""
    ends = [f"{factor * value:.{digits}f}" for value in (min(values), max(values))]
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)


def headline(studies: Results) -> str:
    """The gains of the default in a short table, with the competitor that does as well in a sentence."""
    found, other = gains(studies, DEFAULT), gains(studies, COMPETITOR)
    held = sum(sum(gain.holds) for gain in found)
    rows = [
        [
            gain.scaled.setting,
            str(gain.scaled.seeds),
            interval(gain.scaled, digits=3),
            interval(gain.probe, 100, digits=1),
            interval(gain.accuracy, 100, digits=1),
        ]
        for gain in found
    ]
    same = [gain for gain in other if SCRATCH in gain.scaled.setting]
    return (
        "**Features that keep more, and probabilities that can be trusted more**, where a model is trained from scratch on "
        "little data; a pretrained model changes less.\n"
        f"What the flag changes at {found[0].scaled.size} training samples: the cross-entropy after temperature scaling, and "
        "how often a linear probe is right about labels that training did not have:\n\n"
        + markdown(["setting", "seeds", "cross-entropy, nats", "probe, points", "accuracy, points"], rows)
        + "\nMean and 95 % interval over seeds, ▲ better and ▼ worse where it excludes 0; of the "
        f"{2 * len(found)} differences in the first two, {held} hold after Holm's correction.\n"
        "From scratch a centred uniformity loss, which is a few lines, does about as well "
        f"({span([-g.scaled.mean for g in same], 2)} nats, {span([g.probe.mean for g in same], 0, 100)} points)."
    )


def short_table(studies: Results) -> str:
    """The default and its closest competitor in every setting."""
    rows = []
    others = gains(studies, COMPETITOR)
    for mine in gains(studies, DEFAULT):
        place = mine.scaled.setting, mine.scaled.size
        for gain in (mine, *(other for other in others if (other.scaled.setting, other.scaled.size) == place)):
            d = gain.scaled
            cells = [f"{d.first:.3f}", interval(d), f"{gain.probe.first:.3f}", interval(gain.probe)]
            name = "--atom" if gain is mine else d.arm
            rows.append([f"{d.setting}, {d.size}", name, str(d.seeds), *cells, interval(gain.accuracy)])
    header = ["setting, samples", "arm", "seeds", "NLL-T, plain", "difference [95 %]"]
    return markdown([*header, "probe, plain", "difference [95 %]", "accuracy, difference [95 %]"], rows)


def ranking(studies: Results) -> str:
    """The arms by the rule that picks the default, and which it picks."""
    ranks = rank_arms(studies.values())
    rows = [[rank.arm, f"{rank.mean:.2f}", str(rank.places), "; ".join(rank.loses) or "nowhere"] for rank in ranks]
    ours = [rank.arm for rank in ranks if rank.arm == "paper" or rank.arm.startswith("separation")]
    header = ["arm", "mean rank", "over", "accuracy lower by more than 0.5 points, 95 % CI excluding 0"]
    return (
        f"{markdown(header, rows)}\nOf the forms of the energy, the rule takes *{best_arm(ranks, ours)}*"
        f"{'' if best_arm(ranks, ours) == DEFAULT else f' where the default is *{DEFAULT}*'}.\n"
    )


def tuning(study: Study, lines: list[dict]) -> str:
    """The weights that were tried on development rows, by mean rank among all arms, and which is best of each kind."""
    by_model = {
        "from scratch": [s for s in study.settings if SCRATCH in s.name],
        "pretrained": [s for s in study.settings if SCRATCH not in s.name],
    }
    columns = {name: rank_arms([(study._replace(settings=its), lines)]) for name, its in by_model.items() if its}
    columns = {name: ranks for name, ranks in columns.items() if ranks}
    rows = []
    for arm in study.arms:
        kind = kind_of(arm)
        cells = []
        for ranks in columns.values():
            mine = next(rank for rank in ranks if rank.arm == arm)
            is_best = kind is not None and best_of(ranks, kind) == arm
            cells.append(f"**{mine.mean:.2f}**" if is_best else f"{mine.mean:.2f}")
        rows.append([arm, *cells])
    return markdown(["arm", *(f"mean rank, {name}" for name in columns)], rows)


def kind_of(arm: str) -> str | None:
    """An arm's name without its weight."""
    return next((kind for kind in TUNED if arm.startswith(kind)), None)


def best_of(ranks: list[Rank], kind: str) -> str:
    """The best weight of a kind."""
    return best_arm(ranks, [rank.arm for rank in ranks if kind_of(rank.arm) == kind])


def effects(study: Study, lines: list[dict]) -> str:
    """Arms against the first in both measures and accuracy, without a correction."""
    probed = study._replace(settings=[setting for setting in study.settings if declared_probe(setting)])
    tables = [
        {(d.setting, d.size, d.arm): d for d in differences(probed, lines, name)}
        for name in ("scaled loss", "probe", "accuracy")
    ]
    rows = [
        [f"{setting}, {size}", arm, str(d.seeds), *(interval(table[setting, size, arm]) for table in tables)]
        for (setting, size, arm), d in tables[0].items()
    ]
    return markdown(["setting, samples", "arm", "seeds", "NLL-T", "probe", "accuracy"], rows)
