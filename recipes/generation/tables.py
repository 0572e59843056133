"""Tables and sentences of the studies of generators."""

import statistics

from arms import ABOUT, PLAIN, Difference, Row, Setting, chosen_weights, mean, rows_of, time_ratio, tuned_scores

from atom_hf.utils.tables import markdown


def results_table(rows: list[Row], setting: Setting, found: list[Difference], names: dict[str, str]) -> str:
    """One line an arm: plain's means, and the differences to them."""
    weights, lines = chosen_weights(rows, setting), []
    for arm in setting.arms:
        mine = rows_of(rows, setting, arm)
        if not mine:
            continue
        cells = [f"{mean(mine, measure):.3g}" for measure in names]
        if arm != PLAIN:
            by_measure = {d.measure: d for d in found if (d.setting, d.arm) == (setting.name, arm)}
            cells = [
                f"{cell} ({by_measure[measure].text})" if measure in by_measure else cell
                for cell, measure in zip(cells, names, strict=True)
            ]
        weight = "" if arm == PLAIN else f"{weights[arm]:g}"
        lines.append([ABOUT[arm], weight, str(len(mine)), *cells, f"{time_ratio(rows, setting, arm):.2f}"])
    header = list(names.values())
    return markdown(["arm", "weight", "seeds", *header, "time"], lines)


def tuning_table(rows: list[Row], settings: list[Setting]) -> str:
    """The mean scores of the weights that were tried."""
    weights = sorted({weight for setting in settings for arm in setting.arms[1:] for weight in setting.tried(arm)})
    lines = []
    for setting in settings:
        chosen = chosen_weights(rows, setting)
        for arm in setting.arms[1:]:
            cells = []
            for weight in weights:
                scores = tuned_scores(rows, setting, arm, weight)
                text = f"{statistics.mean(scores):.3f}" if scores else ""
                cells.append(f"**{text}**" if chosen.get(arm) == weight else text)
            if any(cells):
                lines.append([setting.name, ABOUT[arm], *cells])
    return markdown(["setting", "arm", *(f"{weight:g}" for weight in weights)], lines)


def found_sentences(found: list[Difference], names: dict[str, str], less_is_better: tuple[str, ...]) -> str:
    """What holds after Holm's correction, in words."""
    sentences = []
    for better in (True, False):
        held = [
            f"{ABOUT[d.arm]} in {names[d.measure]} ({d.setting}: {d.interval.mean:+.3g})"
            for d in found
            if d.is_significant and ((d.interval.mean < 0) == (d.measure in less_is_better)) == better
        ]
        word = "Better" if better else "Worse"
        sentences.append(f"{word} than plain after the correction: {'; '.join(held) if held else 'nothing'}.")
    return "\n".join(sentences)


def progress(rows: list[Row], settings: list[Setting]) -> str:
    """How many of the runs that report are there, in words."""
    parts, missing = [], 0
    for setting in settings:
        found, planned = len(rows_of(rows, setting)), setting.seeds * len(setting.arms)
        missing += planned - found
        parts.append(f"{setting.name} {found} of {planned}")
    if not missing:
        return ""
    return f"Not all runs are there yet ({'; '.join(parts)}): the first command makes the others.\n\n"


def curve_ends(rows: list[Row], settings: list[Setting], measures: tuple[str, ...], names: dict[str, str]) -> str:
    """How much plain's means change over the last fifth of a training, in words."""
    parts = []
    for setting in settings:
        curves = [row["curve"] for row in rows_of(rows, setting, PLAIN)]
        size = max(1, len(curves[0]) // 5)
        changes = [
            f"{statistics.mean(curve[-1][measure] - curve[-1 - size][measure] for curve in curves):+.2g} in {names[measure]}"
            for measure in measures
        ]
        parts.append(f"{' and '.join(changes)} ({setting.name})")
    return "; ".join(parts)
