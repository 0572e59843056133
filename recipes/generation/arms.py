"""What the studies of generators have in common: arms, weights that are tuned, runs that resume, paired differences."""

import math
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from atom_hf.utils.jsonl import append_line, read_lines, start_lines
from atom_hf.utils.statistics import Interval, holm, paired_t_test

PLAIN, MODE_SEEKING, BETA = "plain", "mode seeking", "beta"
ARMS = (PLAIN, "separation", "paper", "dispersive", MODE_SEEKING)
ABOUT = {
    PLAIN: "plain",
    "separation": "energy, separation form",
    "paper": "energy, the paper's form",
    "dispersive": "Dispersive Loss",
    MODE_SEEKING: "mode seeking",
    BETA: "beta",
}
TUNING_SEEDS = (1000,)

Row = dict[str, Any]


class Setting(NamedTuple):
    """Something that is trained with every arm."""

    name: str
    arms: tuple[str, ...]
    weights: tuple[float, ...]
    """What is tried on the tuning seeds, for each arm but the first and those of `own_weights`."""
    seeds: int
    """0, 1, ...: nothing is chosen on them."""
    tuning_seeds: tuple[int, ...] = TUNING_SEEDS
    weights_of: str | None = None
    """The setting whose weights it takes, in place of tuning its own."""
    own_weights: tuple[tuple[str, tuple[float, ...]], ...] = ()
    """(arm, what is tried of it) of arms whose weight means something else."""

    def tried(self, arm: str) -> tuple[float, ...]:
        """The weights that are tried of an arm."""
        return dict(self.own_weights).get(arm, self.weights)

    @property
    def runs(self) -> int:
        tried = 0 if self.weights_of else sum(len(self.tried(arm)) for arm in self.arms[1:])
        return tried * len(self.tuning_seeds) + self.seeds * len(self.arms)


def rows_of(rows: list[Row], setting: Setting, arm: str | None = None, tuning: bool = False) -> list[Row]:
    """The rows of a setting: those that report, or those that weights are chosen by."""
    chosen = {} if tuning else chosen_weights(rows, setting)
    return [
        row
        for row in rows
        if row["setting"] == ((setting.weights_of or setting.name) if tuning else setting.name)
        and (row["seed"] in setting.tuning_seeds) == tuning
        and (tuning or row["weight"] == chosen.get(row["arm"]))
        and arm in (None, row["arm"])
    ]


def reported(rows: list[Row], settings: list[Setting]) -> list[Setting]:
    """The settings with two plain runs or more, which a page can show."""
    return [setting for setting in settings if len(rows_of(rows, setting, PLAIN)) > 1]


def chosen_weights(rows: list[Row], setting: Setting) -> dict[str, float]:
    """The weight of each arm whose tuning is complete: the one with the highest mean "score"."""
    found = {PLAIN: 0.0}
    for arm in setting.arms[1:]:
        scores = {weight: tuned_scores(rows, setting, arm, weight) for weight in setting.tried(arm)}
        if all(len(values) == len(setting.tuning_seeds) for values in scores.values()):
            found[arm] = max(scores, key=lambda weight: statistics.mean(scores[weight]))
    return found


def tuned_scores(rows: list[Row], setting: Setting, arm: str, weight: float) -> list[float]:
    """The scores of a weight on the tuning seeds."""
    return [row["score"] for row in rows_of(rows, setting, arm, tuning=True) if row["weight"] == weight]


def jobs(rows: list[Row], setting: Setting) -> Iterator[tuple[str, float, int]]:
    """(arm, weight, seed) of each run, those first that choose weights; `rows` grows meanwhile."""
    for seed in () if setting.weights_of else setting.tuning_seeds:
        for arm in setting.arms[1:]:
            for weight in setting.tried(arm):
                yield arm, weight, seed
    for seed in range(setting.seeds):
        for arm, weight in chosen_weights(rows, setting).items():
            yield arm, weight, seed


def run_missing(
    file: Path, settings: list[Setting], run: Callable[[Setting, str, float, int], Row], minutes: float | None = None
) -> list[Row]:
    """Make the runs that `file` does not have, and append each to it; stop after so many minutes."""
    start_lines(file)
    rows = read_lines(file)
    start, made, total = time.monotonic(), 0, sum(setting.runs for setting in settings)
    before = len(rows)
    for setting in settings:
        for arm, weight, seed in jobs(rows, setting):
            place = {"setting": setting.name, "arm": arm, "weight": weight, "seed": seed}
            if any(place.items() <= row.items() for row in rows):
                continue
            spent = (time.monotonic() - start) / 60
            if minutes is not None and spent > minutes:
                print(f"stopped after {spent:.0f} minutes: the same command makes the {total - len(rows)} runs left")
                return rows
            row = place | run(setting, arm, weight, seed)
            append_line(file, row)
            rows.append(row)
            made += 1
            each = (time.monotonic() - start) / 60 / made
            print(
                f"{before + made}/{total}  {setting.name}, {ABOUT[arm]} {weight:g}, seed {seed}: score {row['score']:.3f}; "
                f"about {each * max(0, total - before - made):.0f} minutes left",
                flush=True,
            )
    return rows


class Difference(NamedTuple):
    """An arm minus plain in one measure, over the seeds of both."""

    setting: str
    arm: str
    measure: str
    interval: Interval
    holm: float
    """p of the paired t-test after Holm's correction over all differences that were found together."""

    @property
    def is_significant(self) -> bool:
        return self.holm < 0.05

    @property
    def text(self) -> str:
        """As in "+1.20 [0.31, 2.09]", bold if it holds after Holm's correction."""
        mean, low, high = self.interval
        bounds = "" if math.isnan(low) else f" [{low:.3g}, {high:.3g}]"
        return f"**{mean:+.3g}{bounds}**" if self.is_significant else f"{mean:+.3g}{bounds}"


def differences(rows: list[Row], settings: list[Setting], measures: tuple[str, ...]) -> list[Difference]:
    """Every arm against plain in every measure that the runs of a setting have, one family of tests."""
    found = []
    for setting in settings:
        plain = {row["seed"]: row for row in rows_of(rows, setting, PLAIN)}
        for arm in setting.arms[1:]:
            mine = {row["seed"]: row for row in rows_of(rows, setting, arm)}
            both = sorted(plain.keys() & mine.keys())
            for measure in measures:
                if len(both) > 1 and measure in plain[both[0]]:
                    pairs = [[part[seed][measure] for seed in both] for part in (plain, mine)]
                    found.append((setting.name, arm, measure, *paired_t_test(*pairs)))
    corrected = holm([p for *_, p in found])
    return [Difference(*rest, p) for (*rest, _), p in zip(found, corrected, strict=True)]


def time_ratio(rows: list[Row], setting: Setting, arm: str) -> float:
    """Median over seeds of an arm's CPU time of training over plain's."""
    plain = {row["seed"]: row["seconds"] for row in rows_of(rows, setting, PLAIN)}
    own = {row["seed"]: row["seconds"] for row in rows_of(rows, setting, arm)}
    return statistics.median([own[seed] / plain[seed] for seed in own.keys() & plain.keys()] or [math.nan])


def mean(rows: list[Row], measure: str) -> float:
    return statistics.mean(row[measure] for row in rows) if rows else math.nan
