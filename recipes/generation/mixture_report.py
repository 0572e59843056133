"""The page of the study of mixtures, and its pictures, from its results."""

from pathlib import Path
from typing import Any

import numpy as np
from arms import ABOUT, MODE_SEEKING, PLAIN, Row, Setting, differences, reported, rows_of
from mixture_runs import BATCH, MIXTURES, ON_THE_WAY, SAMPLES, STEPS
from tables import curve_ends, found_sentences, progress, results_table, tuning_table

from atom_hf.visualization.figures import new_figure, save_figure

MEASURES = ("covered", "high_quality", "divergence")
NAMES = {"covered": "modes covered", "high_quality": "high quality", "divergence": "KL to mode weights"}
LESS_IS_BETTER = ("divergence",)
COLORS = {
    PLAIN: "#333333",
    "separation": "#c44e00",
    "paper": "#1f6fb4",
    "dispersive": "#4a8f3c",
    MODE_SEEKING: "#8a4fa3",
}
HEAD = """# Generators of Gaussian mixtures

    python recipes/generation/mixtures.py                  # trains what is missing, and writes this page
    python recipes/generation/mixtures.py --report_only    # writes this page again from the results

A ring of 8 and a grid of 25 equal Gaussians of the plane (standard deviations {ring_std} and {grid_std}, neighbours
{ring_gap:.2f} and {grid_gap:.0f} apart), by a small GAN ({gan_grid:,} steps of {gan_batch} points on the grid, {gan_ring:,} on
the ring) and by flow matching with a small MLP ({flow_grid:,} and {flow_ring:,} steps of {flow_batch}).
The arms differ in one term alone: the energy in either form, [Dispersive Loss](https://arxiv.org/abs/2506.09027), and for the
GAN [mode seeking](https://arxiv.org/abs/1903.05628).
The energy and Dispersive Loss work on the same hidden state: the last of the GAN's generator, and the second of five of the
velocity's.
The GAN is trained without a gradient penalty, a setting in which it loses modes; all learning rates fall to 0 by a cosine.

Each arm has the best of three weights, tried on a seed that is not reported, by the share of modes covered times the
share of samples of high quality on the grid ([below](#weights)), and the same on the ring.
The arms of a seed start from the same weights and see the same points in the same order.
A sample is of high quality within three standard deviations of the nearest mode, and a mode is covered by a single one among
{samples:,}; the KL divergence is that of the modes of such samples to equal weights, in nats.
Differences are paired over seeds, with 95 % t intervals; bold ones hold after Holm's correction over the {tests} of this page
(p < 0.05).
*Time* is the median ratio of the training's CPU time to plain's.

{missing}{findings}

"""


def report(rows: list[Row], settings: list[Setting]) -> str:
    """The page."""
    done = reported(rows, settings)
    found = differences(rows, done, MEASURES)
    ring, grid = MIXTURES["ring"], MIXTURES["grid"]
    text = HEAD.format(
        ring_std=ring.std,
        grid_std=grid.std,
        ring_gap=float(np.linalg.norm(ring.centres[0] - ring.centres[1])),
        grid_gap=float(np.linalg.norm(grid.centres[0] - grid.centres[1])),
        gan_grid=STEPS["grid, gan"],
        gan_ring=STEPS["ring, gan"],
        flow_grid=STEPS["grid, flow"],
        flow_ring=STEPS["ring, flow"],
        gan_batch=BATCH["gan"],
        flow_batch=BATCH["flow"],
        samples=SAMPLES,
        tests=len(found),
        missing=progress(rows, settings),
        findings=found_sentences(found, NAMES, LESS_IS_BETTER),
    )
    parts = [text]
    for setting in done:
        parts.append(f"## {title(setting)}\n\n{results_table(rows, setting, found, NAMES)}\n")
    parts.append(
        "## Samples\n\nThe same noise, seed 0, unpicked; the centres of the modes are circles.\n\n"
        "![Samples of every arm](mixtures.png)\n\n"
        f"## Over the training\n\nMeans over the reported seeds, of {ON_THE_WAY:,} samples each.\n"
        "In the last fifth of the training plain changes by "
        f"{curve_ends(rows, done, ('covered', 'high_quality'), NAMES)}.\n\n"
        "![Modes covered and high quality over the training](mixtures_training.png)\n\n"
        "## Weights\n\nScore (modes covered, as a share, times high quality) on the tuning seed; the best is bold.\n\n"
        f"{tuning_table(rows, [setting for setting in settings if not setting.weights_of])}"
    )
    return "".join(parts)


def title(setting: Setting) -> str:
    name, kind = setting.name.split(", ")
    return f"{name.capitalize()} of {len(MIXTURES[name].centres)}, {'GAN' if kind == 'gan' else 'flow'}"


def pictures(rows: list[Row], settings: list[Setting], folder: Path) -> list[Path]:
    """Samples of every arm, and two measures over the training."""
    done = reported(rows, settings)
    return [samples_picture(rows, done, folder / "mixtures.png"), curves(rows, done, folder / "mixtures_training.png")]


def samples_picture(rows: list[Row], settings: list[Setting], path: Path) -> Path:
    columns = max(len(setting.arms) for setting in settings)
    figure, axes = new_figure(2.5 * columns, 2.7 * len(settings), len(settings), columns)
    for line, setting in zip(axes, settings, strict=True):
        mixture = MIXTURES[setting.name.split(", ")[0]]
        reach = 1.25 * float(abs(mixture.centres).max())
        for axis in line[len(setting.arms) :]:
            axis.set_visible(False)
        for axis, arm in zip(line, setting.arms, strict=False):
            axis.scatter(*mixture.centres.T, s=70, facecolors="none", edgecolors="#bbbbbb", linewidths=0.8)
            shown = [row["shown"] for row in rows_of(rows, setting, arm) if "shown" in row]
            if shown:
                axis.scatter(*np.array(shown[0]).T, s=4, color=COLORS[arm], alpha=0.5, linewidths=0)
            axis.set(xlim=(-reach, reach), ylim=(-reach, reach), xticks=[], yticks=[], aspect="equal")
            axis.set_title(f"{title(setting)}\n{ABOUT[arm]}", fontsize=8)
    return save_figure(figure, path)


def curves(rows: list[Row], settings: list[Setting], path: Path) -> Path:
    figure, axes = new_figure(3.3 * len(settings), 5, 2, len(settings))
    lines: dict[str, Any] = {}
    for column, setting in enumerate(settings):
        modes = len(MIXTURES[setting.name.split(", ")[0]].centres)
        for axis, measure, top in zip(axes[:, column], ("covered", "high_quality"), (modes, 1), strict=True):
            for arm in setting.arms:
                found = [row["curve"] for row in rows_of(rows, setting, arm)]
                if found:
                    steps = [point["step"] for point in found[0]]
                    values = np.mean([[point[measure] for point in curve] for curve in found], axis=0)
                    (lines[arm],) = axis.plot(steps, values, color=COLORS[arm], marker=".", linewidth=1.3, markersize=4)
            axis.set_ylim(0, 1.05 * top)
            axis.grid(color="#eeeeee")
        axes[0, column].set_title(title(setting), fontsize=10)
        axes[1, column].set_xlabel("step")
    for axis, name in zip(axes[:, 0], ("modes covered", "high quality"), strict=True):
        axis.set_ylabel(name)
    names = [ABOUT[arm] for arm in lines]
    columns = min(len(names), int(3.3 * len(settings) / 2.1))
    options = {"loc": "outside lower center", "ncols": columns, "frameon": False, "fontsize": 9}
    figure.legend(list(lines.values()), names, **options)
    return save_figure(figure, path)
