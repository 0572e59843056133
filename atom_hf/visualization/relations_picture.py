"""Relations between samples as one PNG: how far apart they lie in several models, and where."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import AtomError
from .figures import new_figure, save_figure

MOST = 300  # samples in a panel: more are not told apart at this size
MOST_NAMES = 20  # labels that are written out


class Panel(NamedTuple):
    """The samples in one model."""

    title: str
    features: np.ndarray
    """[n, h]: the same samples in every panel."""


def write_relations(
    path: str | Path, panels: Sequence[Panel], classes: Sequence[str], labels: Sequence[str], *, caption: str = ""
) -> Path:
    """Write a PNG of the relations between the same samples in several models; return its path.

    Above, the distance of each pair of samples as a share of the root mean square over pairs, samples in the order of their
    class and within it of their label: what a model does not tell apart makes a dark square. Below, the samples on the first
    two principal axes, a colour for each label and a mark for each class. At most 300 samples are drawn, evenly from all.

    Args:
        panels: a column each; features [n, h].
        classes: of each of the n samples, what the models were trained on.
        labels: of each of the n samples, what training did not have.
        caption: a line above.

    Raises:
        AtomError: no panels, fewer than two samples, numbers of samples that differ, features that are not finite, or no
            Matplotlib.
    """
    count = len(labels)
    if not panels or count < 2:
        raise AtomError("write_relations: needs one panel or more, of two samples or more")
    if len(classes) != count or any(len(panel.features) != count for panel in panels):
        raise AtomError(
            f"write_relations: classes and the features of every panel must have {count} rows, as labels has"
        )
    if broken := [panel.title for panel in panels if not np.isfinite(panel.features).all()]:
        raise AtomError(f"write_relations: features of {broken[0]!r} are not finite numbers")
    chosen = np.unique(np.linspace(0, count - 1, min(count, MOST)).round().astype(int))
    order = np.array(sorted(range(count), key=lambda i: (classes[i], labels[i])))[chosen]
    kinds = [(classes[i], labels[i]) for i in order]
    figure, axes = new_figure(4.1 * len(panels) + 0.9, 8.2, 2, len(panels))
    for (above, below), panel in zip(axes.T, panels, strict=True):
        features = panel.features[order].astype(np.float64)
        shown = _draw_distances(above, features, kinds)
        above.set_title(panel.title, fontsize=11)
        _draw_places(below, features, kinds)
    figure.colorbar(shown, ax=axes[0].tolist(), shrink=0.8, label="distance, of the root mean square")
    handles, names = axes[1][0].get_legend_handles_labels()
    if len(names) <= MOST_NAMES:
        figure.legend(handles, names, loc="outside lower center", ncols=min(10, len(names)), fontsize=9, frameon=False)
    if caption:
        figure.suptitle(caption, fontsize=12)
    return save_figure(figure, Path(path))


def _draw_distances(axis, features: np.ndarray, kinds: list[tuple[str, str]]):
    from scipy.spatial.distance import pdist, squareform

    distances = pdist(features)
    scale = math.sqrt(np.mean(distances**2)) or 1.0
    shown = axis.imshow(squareform(distances) / scale, cmap="magma", vmin=0, vmax=1.8, interpolation="nearest")
    starts = [i for i in range(len(kinds)) if i == 0 or kinds[i] != kinds[i - 1]]
    ends = [*starts[1:], len(kinds)]
    for start in starts[1:]:
        wide = kinds[start][0] != kinds[start - 1][0]
        if not wide and len(starts) > MOST_NAMES:
            continue
        for line in (axis.axhline, axis.axvline):
            line(start - 0.5, color="white", linewidth=1.6 if wide else 0.35)
    middles = [(start + end - 1) / 2 for start, end in zip(starts, ends, strict=True)]
    names = [kinds[start][1] for start in starts]
    if len(names) <= MOST_NAMES:
        axis.set_xticks(middles, names, fontsize=8)
        axis.set_yticks(middles, names, fontsize=8)
    else:
        axis.set_xticks([])
        axis.set_yticks([])
    axis.tick_params(length=0)
    groups: dict[str, list[int]] = {}
    for place, (group, _) in enumerate(kinds):
        groups.setdefault(group, []).append(place)
    if len(groups) <= 6:
        for group, places in groups.items():
            axis.text(np.mean(places), len(kinds) * 1.085, group, ha="center", va="top", fontsize=9)
    return shown


def _draw_places(axis, features: np.ndarray, kinds: list[tuple[str, str]]) -> None:
    from matplotlib import colormaps

    centred = features - features.mean(0)
    _, values, components = np.linalg.svd(centred, full_matrices=False)
    places = centred @ components[:2].T
    if places.shape[1] < 2:
        places = np.column_stack([places, np.zeros(len(places))])
    share = (values[:2] ** 2).sum() / max((values**2).sum(), 1e-30)
    names, groups = list(dict.fromkeys(kinds)), list(dict.fromkeys(group for group, _ in kinds))
    colours = colormaps["tab10" if len(names) <= 10 else "turbo"].resampled(max(10, len(names)))
    for number, (group, label) in enumerate(names):
        mine = [i for i, kind in enumerate(kinds) if kind == (group, label)]
        named = label if len(groups) == len(names) else f"{label} ({group})"
        mark = "os^Dv"[groups.index(group) % 5]
        axis.scatter(*places[mine].T, s=14, marker=mark, color=colours(number), label=named, linewidths=0, alpha=0.85)
    axis.set_xlabel(f"two principal axes: {share:.0%} of the variance", fontsize=9)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_aspect("equal", adjustable="datalim")
