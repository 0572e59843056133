"""Tables of what was found in the channels of an ensemble: for the terminal, the page and csv files."""

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..utils.tables import format_number
from ..visualization.page import Table
from .comparison import Comparison
from .ensemble import mean_over_runs, median_nearest

MOST_PAIRS = 12  # channels whose pairs are shown in full

MOST_ROWS = 60  # channels in the page's table

NONE = "–"


def channel_rows(found: Any) -> tuple[list[str], list[list[Any]]]:
    """(header, a row for each channel): what it holds, and the channel of another run that is nearest to it."""
    comparison, channels, to_labels = found.comparison, found.channels, found.to_labels
    header = ["run", "channel", "bits", "bits_error", "informative", "saturated", "hotspot"]
    header += [
        "nearest_run",
        "nearest_channel",
        "nearest_nmi",
        "nearest_adjusted",
        "nmi_labels",
        "chance_labels",
        "noise",
    ]
    apart = different_runs(found)
    nearest = comparison.nmi.masked_fill(~apart, -math.inf).argmax(1).tolist()
    rows = []
    for place, channel in enumerate(channels):
        other = nearest[place] if apart[place].any() else None
        error = comparison.information_error
        rows.append(
            [
                channel.run,
                channel.name,
                float(comparison.information[place]),
                None if error is None else float(error[place]),
                bool(comparison.informative[place]),
                bool(comparison.saturated[place]),
                int(found.hotspots.labels[place]),
                None if other is None else channels[other].run,
                None if other is None else channels[other].name,
                None if other is None else float(comparison.nmi[place, other]),
                None if other is None else float(comparison.adjusted[place, other]),
                None if to_labels is None else float(to_labels.nmi[place, 0]),
                None if to_labels is None else float(to_labels.chance[place, 0]),
                channel.noise,
            ]
        )
    return header, rows


def channel_table(found: Any) -> Table:
    """The channels that hold most, a row each."""
    header, rows = channel_rows(found)
    columns = {name: place for place, name in enumerate(header)}
    order = sorted(range(len(rows)), key=lambda place: -rows[place][columns["bits"]])[:MOST_ROWS]

    def number(row: list[Any], name: str) -> str:
        value = row[columns[name]]
        return NONE if value is None else format_number(value)

    shown = []
    for place in order:
        row = rows[place]
        spot, near = row[columns["hotspot"]], [row[columns[name]] for name in ("nearest_run", "nearest_channel")]
        cells = [label(found.channels[place], found), number(row, "bits"), NONE if spot < 0 else str(spot)]
        cells += [
            NONE if near[0] is None else " ".join(near),
            number(row, "nearest_nmi"),
            number(row, "nearest_adjusted"),
        ]
        cells += [number(row, "nmi_labels")] * (found.to_labels is not None)
        shown.append(cells)
    titles = ["channel", "bits", "hotspot", "nearest of another run", "NMI", "adjusted"]
    titles += ["NMI to labels"] * (found.to_labels is not None)
    note = (
        "" if len(shown) == len(rows) else f"The {len(shown)} of {len(rows)} that hold most; all are in channels.csv."
    )
    return Table("Channels", titles, shown, note)


def different_runs(found: Any) -> Tensor:
    """bool [C, C]: whether two channels are of different runs."""
    names = [channel.run for channel in found.channels]
    which = torch.tensor([names.index(name) for name in names])
    return which.unsqueeze(1) != which


def run_table(found: Any) -> Table:
    """A row for each run."""
    comparison, to_labels = found.comparison, found.to_labels
    header = [
        "run",
        "channels",
        "informative",
        "saturated",
        "bits (mean)",
        "NMI to the nearest of another run (median)",
    ]
    header += ["NMI to labels (mean)", "chance"] * (to_labels is not None)
    header += ["regularization"] * (found.strengths is not None)
    nearest = comparison.nmi.masked_fill(~different_runs(found), -math.inf).amax(1)
    rows = []
    for name in dict.fromkeys(channel.run for channel in found.channels):
        own = torch.tensor([channel.run == name for channel in found.channels])
        informative = own & comparison.informative
        near = nearest[informative & nearest.isfinite()]
        row = [name, str(int(own.sum())), str(int(informative.sum())), str(int((own & comparison.saturated).sum()))]
        row += [format_number(float(comparison.information[own].mean()))]
        row += [format_number(float(near.median())) if len(near) else NONE]
        if to_labels is not None:
            row += [format_number(float(part[own, 0].mean())) for part in (to_labels.nmi, to_labels.chance)]
        if found.strengths is not None:
            row.append(f"{found.strengths[name]:g}")
        rows.append(row)
    note = "Information in bits. Informative: 0.01 bits or more; saturated: more than half of log2 N."
    return Table("Runs", header, rows, note)


def pair_table(found: Any) -> Table:
    """All pairs of a few channels; of many the means over pairs of different runs."""
    comparison, channels = found.comparison, found.channels
    if len(channels) > MOST_PAIRS:
        runs = [channel.run for channel in channels]
        rows = []
        for name, values in (
            ("NMI", comparison.nmi),
            ("chance", comparison.chance),
            ("adjusted NMI", comparison.adjusted),
        ):
            rows.append([name, with_error(*mean_over_runs(values, runs))])
        rows.append(["VI, bits", with_error(*mean_over_runs(comparison.vi, runs))])
        kept = found.hotspots.kept
        near = median_nearest(comparison.nmi[kept][:, kept], [runs[place] for place in kept.tolist()])
        rows.append(["NMI to the nearest, informative channels (median)", with_error(*near)])
        return Table(
            "Pairs of channels of different runs",
            ["measure", "mean"],
            rows,
            "± one standard error, by a jackknife over runs. All pairs are in pairs.npz.",
        )
    names = [label(channel, found) for channel in channels]
    rows = []
    for place, name in enumerate(names):
        cells = [_pair(comparison, place, other) for other in range(len(names))]
        rows.append([name, format_number(float(comparison.information[place])), *cells])
    note = "NMI, and in brackets adjusted for chance; on the diagonal 1."
    return Table("Pairs of channels", ["channel", "bits", *names], rows, note)


def hotspot_table(found: Any) -> Table:
    """A row for each hotspot, the largest first."""
    rows = []
    for row in found.hotspots.summary():
        members = found.hotspots.members(row["hotspot"])
        cells = [str(row["hotspot"]), str(row["size"]), f"{row['runs']:.0%}", format_number(row["bits"])]
        cells += [format_number(row["nmi"]), label(found.channels[row["medoid"]], found)]
        if found.to_labels is not None:
            cells += [
                format_number(float(part[members, 0].mean())) for part in (found.to_labels.nmi, found.to_labels.chance)
            ]
        rows.append(cells)
    header = ["hotspot", "channels", "of the runs", "bits", "NMI within", "medoid"]
    header += ["NMI to labels", "chance"] * (found.to_labels is not None)
    note = "Channels that say the same, by clustering of their distances; the medoid has the largest mean NMI to the others."
    return Table("Hotspots", header, rows, note if rows else f"None: {no_hotspot(found)}.")


def no_hotspot(found: Any) -> str:
    """Why there is no hotspot."""
    size, informative = found.hotspots.min_size, len(found.hotspots.kept)
    if informative < size:
        return f"a hotspot takes {size} channels, and {informative} are informative; the table of pairs says what they share"
    return f"no {size} channels or more are nearer to each other than to the rest"


def regularization_table(found: Any, name: str) -> Table:
    """A row for each strength of the regularization."""
    header = [name, "runs", "channels", "informative", "hotspots", "size", "bits", "NMI to the nearest of another run"]
    rows = [
        [
            f"{row['strength']:g}",
            *(str(row[key]) for key in ("runs", "channels", "informative", "hotspots")),
            *(NONE if row[key] is None else format_number(float(row[key])) for key in ("size", "bits")),
            NONE if row["nearest"] is None else with_error(row["nearest"], row["nearest_error"]),
        ]
        for row in found.regularization
    ]
    note = "Size and bits are means over hotspots; NMI is the median over informative channels."
    return Table(f"By {name}", header, rows, note)


def fusion_table(found: Any) -> Table:
    """The fusion beside its closed-form baselines."""
    fusion = found.fusion
    rows = [[name, format_number(nmi), format_number(bits)] for name, (nmi, bits) in found.bars.items()]
    note = (
        f"Coverage of the learners' information: {fusion.coverage:.1%}; excess {fusion.excess:.3g} bits; continuity "
        f"{fusion.continuity:.3g}. The mean fingerprint is one learner drawn at random, the product the messages of all."
    )
    return Table("Fusion", ["representation", "mean NMI to the learners", "bits"], rows, note)


def selection_table(selection: dict[str, Any]) -> Table:
    """The accuracy of ensembles of selected runs and of others."""
    names = {
        "by_information": "selected without labels",
        "random": "as many at random (mean)",
        "all": "all",
        "by_labels": "as many by accuracy, with labels",
    }
    rows = [[name, format_number(selection[key])] for key, name in names.items()]
    note = f"Selected on half of the points, measured on the other half: {', '.join(selection['selected'])}."
    return Table("Ensembles of runs", ["runs", "accuracy"], rows, note)


def label(channel: Any, found: Any) -> str:
    """A channel's name, with its run where there are several."""
    runs = {one.run for one in found.channels}
    names = {one.name for one in found.channels}
    if len(runs) == 1:
        return channel.name
    return channel.run if len(names) == 1 else f"{channel.run} {channel.name}"


def with_error(value: float, error: float | None) -> str:
    """A number and its standard error, where there is one."""
    if math.isnan(value):
        return NONE
    return format_number(value) + ("" if error is None or math.isnan(error) else f" ± {format_number(error)}")


def as_csv(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table as the text of a csv file; what is None is empty."""
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row] for row in rows)
    return written.getvalue()


def _pair(comparison: Comparison, place: int, other: int) -> str:
    if place == other:
        return "1"
    return f"{format_number(float(comparison.nmi[place, other]))} ({format_number(float(comparison.adjusted[place, other]))})"
