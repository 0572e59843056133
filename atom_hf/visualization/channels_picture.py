"""Pictures of an ensemble's channels: which say the same, how that changes with a regularization, what they say together."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .colors import CLASSES
from .figures import new_figure, save_figure

MOST_NAMES = 48  # channels whose names are written at an axis

MOST_NUMBERS = 12  # channels whose NMI are written into their cells

COLORS = [tuple(part / 255 for part in color) for color in CLASSES]

GREY = "#9a958d"

DARK = 0.6  # NMI below which a cell is too dark for black numbers

MARKERS = "o^sDvP*X<>"  # of classes, which colour alone does not tell apart

MOST_CLASSES = len(MARKERS)


def write_similarity(
    path: Path,
    nmi: np.ndarray,
    reachability: np.ndarray,
    hotspots: np.ndarray,
    names: Sequence[str],
    to_labels: np.ndarray | None = None,
    labels_name: str = "labels",
) -> Path:
    """The similarity of channels in the order of their reachability, which is above it, with the hotspots shaded.

    Args:
        path: the PNG.
        nmi: [K, K], in the order in which channels are drawn, as everything here.
        reachability: [K]; inf where a new group begins.
        hotspots: int [K]; -1 in none.
        names: K.
        to_labels: [K], NMI to the labels, drawn at the left.
        labels_name: what these labels are.
    """
    count = len(nmi)
    side = float(np.clip(2 + 0.16 * count, 5, 9))
    ratios = {"width_ratios": [1.3, 10], "height_ratios": [2.2, 10]}
    figure, axes = new_figure(side + 2.2, side + 1.4, 2, 2, **ratios)
    (corner, top), (left, main) = axes
    corner.axis("off")
    drawn = main.imshow(nmi, vmin=0, vmax=1, cmap="viridis", aspect="auto", interpolation="nearest")
    if count <= MOST_NUMBERS:
        for place, value in np.ndenumerate(nmi):
            color = "white" if value < DARK else "black"
            main.annotate(f"{value:.2f}", place[::-1], ha="center", va="center", fontsize=8, color=color)
    figure.colorbar(drawn, ax=[top, main], label="NMI (1 and more: brightest)", fraction=0.05, pad=0.02)
    _draw_reachability(top, reachability, hotspots)
    top.set_xlim(-0.5, count - 0.5)
    top.tick_params(bottom=False, labelbottom=False)
    top.set_title(f"{count} channels, in order of reachability", fontsize=10)
    _name_ticks(main, names, count)
    main.tick_params(left=False, labelleft=False)
    if to_labels is None:
        left.axis("off")
    else:
        left.barh(np.arange(count), to_labels, height=0.9, color=[_color(one) for one in hotspots])
        left.set_ylim(count - 0.5, -0.5)
        left.set_xlabel(f"NMI to\n{labels_name}", fontsize=8)
        left.tick_params(labelsize=7)
        left.invert_xaxis()
    if count <= MOST_NAMES:
        left.axis("on")
        left.set_yticks(range(count), names, fontsize=_size_of_names(count))
        if to_labels is None:
            left.set_xticks([])
            left.set_ylim(count - 0.5, -0.5)
            for edge in left.spines.values():
                edge.set_visible(False)
    else:
        left.set_yticks([])
    return save_figure(figure, path)


def write_reachability(path: Path, reachability: np.ndarray, hotspots: np.ndarray, names: Sequence[str]) -> Path:
    """The reachability of channels in its order; valleys are channels that say the same. Arguments as of `write_similarity`."""
    count = len(reachability)
    figure, axes = new_figure(float(np.clip(2 + 0.14 * count, 6, 14)), 4.2 if count <= MOST_NAMES else 3.2)
    axis = axes[0, 0]
    _draw_reachability(axis, reachability, hotspots)
    axis.set_xlim(-0.5, count - 0.5)
    _name_ticks(axis, names, count)
    found = int(hotspots.max(initial=-1)) + 1
    axis.set_title(
        f"Reachability of {count} channels: {found} hotspot{'s' if found != 1 else ''}, numbered by size; grey in none",
        fontsize=10,
    )
    return save_figure(figure, path)


def write_regularization(path: Path, name: str, rows: Sequence[Mapping[str, Any]]) -> Path:
    """What becomes of the hotspots as a regularization grows.

    Args:
        path: the PNG.
        name: of the regularization.
        rows: one a strength, as `fragments.ensemble.by_regularization` gives them.
    """
    figure, axes = new_figure(9, 5.6, 2, 2, sharex=True)
    panels = (
        ("hotspots", "hotspots"),
        ("size", "channels a hotspot (mean)"),
        ("bits", "bits a channel of a hotspot (mean)"),
        ("nearest", "median NMI to the nearest\nchannel of another run (± 1 s.e.)"),
    )
    places = np.arange(len(rows))
    for axis, (key, title) in zip(axes.flat, panels, strict=True):
        values = np.array([np.nan if row[key] is None else row[key] for row in rows], dtype=float)
        errors = [row.get(f"{key}_error") or np.nan for row in rows]
        axis.errorbar(places, values, yerr=errors if key == "nearest" else None, marker="o", color=COLORS[0], capsize=3)
        for place, value in zip(places, values, strict=True):
            if np.isnan(value):
                axis.annotate("none", (place, 0.04), xycoords=("data", "axes fraction"), ha="center", fontsize=8)
        largest = np.nanmax(np.append(values, 0))
        axis.set_ylim(0, 1.15 * largest if largest > 0 else 1)
        axis.set_title(title, fontsize=9)
        axis.grid(color="#dddddd", linewidth=0.6)
        axis.set_xticks(places, [f"{row['strength']:g}" for row in rows])
        axis.margins(x=0.1)
    for axis in axes[1]:
        axis.set_xlabel(name)
    return save_figure(figure, path)


def write_fusion(
    path: Path,
    mean: np.ndarray,
    deviation: np.ndarray,
    history: np.ndarray,
    bars: Mapping[str, tuple[float, float]],
    labels: np.ndarray | None = None,
    classes: Sequence[str] = (),
    objective: str = "",
) -> Path:
    """A fused representation, how its fit went, and what it and its baselines share with the learners.

    Args:
        path: the PNG.
        mean: [N, d], of which the first two dimensions are drawn.
        deviation: [N, d].
        history: [steps + 1], the objective in nats.
        bars: (mean NMI to the learners, bits) by the name of a representation.
        labels: int [N], the class of each point.
        classes: their names.
        objective: the name of what was fitted.
    """
    from matplotlib.patches import Ellipse

    figure, axes = new_figure(11, 4.4, 1, 3, width_ratios=[1.25, 1, 1])
    points, fit, bar = axes[0]
    planar = mean if mean.shape[1] > 1 else np.column_stack([mean[:, 0], np.zeros(len(mean))])
    spread = deviation if mean.shape[1] > 1 else np.column_stack([deviation[:, 0], np.zeros(len(mean))])
    groups = [(np.arange(len(mean)), GREY, "o", None)]
    if labels is not None and len(np.unique(labels)) <= MOST_CLASSES:
        groups = [
            (
                np.flatnonzero(labels == one),
                f"C{place}",
                MARKERS[place],
                classes[one] if len(classes) > one else str(one),
            )
            for place, one in enumerate(np.unique(labels))
        ]
    for rows, color, marker, name in groups:
        points.scatter(planar[rows, 0], planar[rows, 1], s=11, color=color, marker=marker, label=name)
        for row in rows:
            points.add_patch(Ellipse(planar[row, :2], *(2 * spread[row, :2]), alpha=0.06, color=color, linewidth=0))
    if groups[0][3] is not None:
        points.legend(fontsize=7, loc="upper right", markerscale=1.6, ncols=2)
    points.set_title("Fused means and one standard deviation", fontsize=9)
    points.set_aspect("equal", adjustable="datalim")
    fit.plot(history, color=COLORS[0], linewidth=1.2)
    fit.set_title(f"Objective {objective} (nats, larger is better)", fontsize=9)
    fit.set_xlabel("step", fontsize=8)
    fit.grid(color="#dddddd", linewidth=0.6)
    names = list(bars)
    bar.barh(range(len(names)), [bars[name][0] for name in names], color=COLORS[: len(names)])
    for place, name in enumerate(names):
        bar.annotate(f" {bars[name][1]:.2f} bits", (0.01, place), va="center", fontsize=8, color="white")
    bar.set_yticks(range(len(names)), names, fontsize=8)
    bar.invert_yaxis()
    bar.set_title("Mean NMI to the learners, and bits held", fontsize=9)
    return save_figure(figure, path)


def _draw_reachability(axis: Any, reachability: np.ndarray, hotspots: np.ndarray) -> None:
    finite = reachability[np.isfinite(reachability)]
    top = 1.08 * float(finite.max()) if finite.size and finite.max() > 0 else 1.0
    shown = np.where(np.isfinite(reachability), reachability, top)
    axis.bar(np.arange(len(shown)), shown, width=1.0, color=[_color(one) for one in hotspots], linewidth=0)
    for start, end, which in _spans(hotspots):
        axis.axvspan(start - 0.5, end + 0.5, color=_color(which), alpha=0.13, linewidth=0)
        axis.annotate(str(which), ((start + end) / 2, top), ha="center", va="bottom", fontsize=8)
    axis.set_ylim(0, 1.14 * top)
    axis.set_ylabel("reachability", fontsize=8)
    axis.tick_params(labelsize=7)


def _spans(hotspots: np.ndarray) -> list[tuple[int, int, int]]:
    """(first, last, hotspot) of each stretch of channels of one hotspot."""
    edges = np.flatnonzero(np.diff(hotspots)) + 1
    stretches = np.split(np.arange(len(hotspots)), edges)
    return [(int(s[0]), int(s[-1]), int(hotspots[s[0]])) for s in stretches if len(s) and hotspots[s[0]] >= 0]


def _color(hotspot: int) -> Any:
    return COLORS[hotspot % len(COLORS)] if hotspot >= 0 else GREY


def _size_of_names(count: int) -> int:
    return 8 if count <= MOST_NUMBERS else 6


def _name_ticks(axis: Any, names: Sequence[str], count: int) -> None:
    if count <= MOST_NAMES:
        axis.set_xticks(range(count), names, rotation=90, fontsize=_size_of_names(count))
    else:
        axis.set_xticks([])
        axis.set_xlabel("channel", fontsize=8)
