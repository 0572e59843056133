"""Write what was found in the channels of an ensemble: csv files, pairs.npz, pictures and a page."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..utils.files import write_atomically
from ..utils.tables import format_number
from ..visualization.channels_picture import (
    write_fusion,
    write_reachability,
    write_regularization,
    write_similarity,
)
from ..visualization.page import Figure, Table, write_page
from .arguments import FragmentsArguments
from .tables import (
    as_csv,
    channel_rows,
    channel_table,
    different_runs,
    fusion_table,
    hotspot_table,
    label,
    no_hotspot,
    pair_table,
    regularization_table,
    run_table,
    selection_table,
)

PAGE_NAME = "fragments.html"


def tables_of(found: Any, run: FragmentsArguments) -> list[Table]:
    """All tables, in the order in which they are read."""
    tables = [run_table(found), pair_table(found), hotspot_table(found)]
    if found.regularization is not None:
        tables.append(regularization_table(found, run.regularization))
    if found.fusion is not None:
        tables.append(fusion_table(found))
    if found.selection is not None:
        tables.append(selection_table(found.selection))
    return tables


def facts(found: Any, run: FragmentsArguments) -> str:
    """What the numbers refer to: N, noise, estimator and chance."""
    points, channels = found.comparison.points, found.channels
    runs = len({channel.run for channel in channels})
    kinds = sorted({channel.kind for channel in channels})
    exact = run.estimator == "exact" or (run.estimator == "auto" and all(channel.is_discrete for channel in channels))
    parts = [
        f"{len(channels)} channels ({found.kind}) of {runs} run{'s' if runs != 1 else ''}, for {points} data points "
        f"({run.of}) of {found.data}: at most log2 N = {math.log2(points):.2f} bits.",
        _noise(run, kinds),
        f"Estimator: {run.estimator}{', which is exact here' if exact else ''}. Chance is the mean over three permutations of "
        "each channel's points.",
    ]
    if found.comparison.saturated.any():
        parts.append(
            f"{int(found.comparison.saturated.sum())} channels are saturated: they tell nearly all points apart, and NMI is "
            "then large by chance."
        )
    return " ".join(parts)


def findings(found: Any) -> str:
    """What was found, in words."""
    comparison, spots, channels = found.comparison, found.hotspots, found.channels
    bits = float(comparison.information.mean())
    parts = [
        f"A channel holds {format_number(bits)} bits on average; {len(spots.kept)} of {len(channels)} are informative."
    ]
    apart = different_runs(found)[spots.kept][:, spots.kept]
    if apart.any():
        part = comparison.take(spots.kept)
        nearest = part.nmi.masked_fill(~apart, -math.inf).max(1)
        there = nearest.values.isfinite()
        chance = part.chance.gather(1, nearest.indices.unsqueeze(1)).squeeze(1)
        parts.append(
            "The most similar channel of another run has an NMI of "
            f"{format_number(float(nearest.values[there].median()))} in the median "
            f"({format_number(float(chance[there].median()))} by chance)."
        )
    rows = spots.summary()
    if rows:
        sizes = ", ".join(str(row["size"]) for row in rows)
        parts.append(f"Hotspots, groups of channels that say the same: {len(rows)}, of {sizes} channels.")
    else:
        parts.append(f"There is no hotspot: {no_hotspot(found)}.")
    if found.to_labels is not None:
        place = int(found.to_labels.nmi[:, 0].argmax())
        nmi, chance = (format_number(float(part[place, 0])) for part in (found.to_labels.nmi, found.to_labels.chance))
        parts.append(
            f"Nearest to the labels is {label(channels[place], found)}, with an NMI of {nmi} ({chance} by chance)."
        )
    return " ".join(parts)


def _noise(run: FragmentsArguments, kinds: list[str]) -> str:
    if "deterministic" in kinds:
        ranks = ", of ranks as normal scores" if run.quantile else ""
        if run.noise is not None:
            return f"Noise: a standard deviation of {run.noise:g} in the units of the values{ranks}; bits refer to it."
        bits = "by default 1 bit" if run.bits is None else f"{run.bits:g} bits"
        return f"Noise: set so that each channel holds {bits}{ranks}; only which points are told apart is the model's."
    if run.dropout or run.augment:
        what = (
            f"{run.dropout} passes with dropout"
            if run.dropout
            else f"{run.augment} randomly changed copies of each sample"
        )
        return f"Noise: mean and variance over {what}."
    return "Noise: none is added; the channels are distributions as they are."


def write_files(found: Any, run: FragmentsArguments, folder: Path) -> list[Path]:
    """Writes all files into a folder. Returns them, the page last."""
    header, rows = channel_rows(found)
    summary = found.hotspots.summary()
    spots = [list(summary[0]) if summary else ["hotspot"], [list(row.values()) for row in summary]]
    written = [
        write_atomically(folder / "channels.csv", as_csv(header, rows)),
        write_atomically(folder / "hotspots.csv", as_csv(*spots)),
        _write_pairs(found, folder / "pairs.npz"),
    ]
    figures = []
    for path, draw, title, says, note in _pictures(found, run, folder):
        written.append(draw(path))
        figures.append(Figure(title, path.read_bytes(), says, note))
    page = write_page(
        folder / PAGE_NAME,
        title=f"Fragments of information: {found.data}",
        intro=f"{findings(found)}\n\n{facts(found, run)}",
        figures=figures,
        measures=True,
        tables=[*tables_of(found, run), channel_table(found)],
    )
    return [*written, page]


def _write_pairs(found: Any, path: Path) -> Path:
    comparison, channels = found.comparison, found.channels
    names = (
        "information",
        "shared",
        "nmi",
        "vi",
        "chance",
        "information_error",
        "shared_error",
        "nmi_error",
        "vi_error",
    )
    arrays = {name: getattr(comparison, name) for name in names}
    arrays = {name: value.numpy() for name, value in arrays.items() if value is not None}
    arrays |= {"names": np.array([channel.name for channel in channels])}
    arrays |= {"runs": np.array([channel.run for channel in channels]), "ids": np.array(channels[0].ids)}

    def write(file: Path) -> None:
        with file.open("wb") as stream:
            np.savez_compressed(stream, **arrays)

    return write_atomically(path, write)


Picture = tuple[Path, Callable[[Path], Path], str, str, str]


def _pictures(found: Any, run: FragmentsArguments, folder: Path) -> list[Picture]:
    """(path, what draws it, title, what it shows in words, note) of each picture."""
    spots, comparison = found.hotspots, found.comparison
    order = spots.ordering
    place = {index: number for number, index in enumerate(spots.kept.tolist())}
    reach = spots.reachability[[place[index] for index in order.tolist()]].numpy()
    names = [label(found.channels[index], found) for index in order.tolist()]
    groups = spots.labels[order].numpy()
    nmi = comparison.nmi[order][:, order].numpy()
    to_labels = None if found.to_labels is None else found.to_labels.nmi[order, 0].numpy()
    count = len(spots)
    says = f"{len(order)} informative channels in order of reachability, {count} hotspots"
    found_pictures: list[Picture] = [
        (
            folder / "similarity.png",
            lambda path: write_similarity(path, nmi, reach, groups, names, to_labels),
            "Which channels say the same",
            f"NMI of {says}",
            "Brighter: more of the same information. Blocks on the diagonal are channels that say the same; above them their "
            "reachability, whose valleys are hotspots (numbered by size; grey in none)."
            + ("" if to_labels is None else " At the left: NMI to the labels."),
        ),
        (
            folder / "reachability.png",
            lambda path: write_reachability(path, reach, groups, names),
            "Reachability",
            f"Reachability of {says}",
            "The distance at which each channel joins those before it: low and level within a hotspot.",
        ),
    ]
    if found.regularization is not None:
        found_pictures.append(
            (
                folder / "regularization.png",
                lambda path: write_regularization(path, run.regularization, found.regularization),
                f"By {run.regularization}",
                f"Hotspots, their size and bits, and NMI between runs, by {run.regularization}; the table has the numbers",
                "Each strength is looked at by itself.",
            )
        )
    if found.fusion is not None:
        found_pictures.append(
            (
                folder / "fusion.png",
                lambda path: _draw_fusion(path, found, run.fuse),
                "Fusion of the informative channels",
                f"Means of the fused representation, its fit by {run.fuse}, and its NMI to the learners beside baselines",
                "Points near each other are those that the channels tell apart least.",
            )
        )
    return found_pictures


def _draw_fusion(path: Path, found: Any, objective: str) -> Path:
    fusion = found.fusion
    return write_fusion(
        path,
        fusion.channel.mean.numpy(),
        (fusion.channel.log_variance / 2).exp().numpy(),
        fusion.history.numpy(),
        found.bars,
        None if found.labels is None else found.labels.numpy(),
        found.classes,
        objective,
    )
