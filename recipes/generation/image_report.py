"""The page of a study of images, and its pictures, from its results."""

from pathlib import Path
from typing import Any

import numpy as np
from arms import ABOUT, PLAIN, Row, Setting, differences, reported, rows_of
from image_runs import BATCH, LATENTS, ON_THE_WAY, STEPS, unpacked
from tables import curve_ends, found_sentences, progress, results_table, tuning_table

from atom_hf.visualization.figures import new_figure, save_figure

NAMES = {
    "frechet": "Fréchet",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "class_diversity": "diversity in a class",
    "class_divergence": "KL of classes",
    "memorised": "memorised",
}
LATENT_NAMES = {
    "active_units": "active units",
    "effective_rank": "effective rank",
    "reconstruction": "reconstruction error",
}
"""Of VAEs alone."""
LESS_IS_BETTER = ("frechet", "class_divergence", "memorised", "reconstruction")
NO_BETTER = ("active_units", "effective_rank")  # for being more or less
KIND_TITLES = {"flow": "Flow", "gan": "GAN", "vae": "VAE"}
ABOUT_DATA = {
    "digits": "Handwritten digits of 8 x 8 pixels, built in: 1,000 images to train on, 797 others to compare with.",
    "mnist": "MNIST.",
    "fashion": "Fashion-MNIST.",
}
HEAD = """# Generators of {name}

    python recipes/generation/images.py {name}{more}
    python recipes/generation/images.py {name} --report_only    # writes this page again from the results

{about}
{networks}

Each arm has the best of three weights by the Fréchet distance on a seed that is not reported ([below](#weights)), also for the
300 images, for which nothing was tuned again.
Samples are measured beside images that were not trained on, on the features of a small convolutional classifier
([digits.safetensors](results/digits.safetensors), trained by the recipe with a fixed seed), which also reads their classes:
{diversity}*KL of classes* is from the shares of the classes to those of the images, in nats.
{measures}*Memorised* is the share of samples that are less than a third as far from the nearest training image as from the \
second.
The arms of a seed start from the same weights and see the same images in the same order.
Differences are paired over seeds, with 95 % t intervals; bold ones hold after Holm's correction over the {tests} of this page
(p < 0.05).
*Time* is the median ratio of the training's CPU time to plain's.

{missing}{findings}

"""
FLOW_AND_GAN = """A small UNet by flow matching ({flow:,} steps of {batch} images, a moving average of its weights), and a small
convolutional GAN with R1 ({gan:,} steps), each also with 300 images alone.
The arms differ in one term: the energy in either form, [Dispersive Loss](https://arxiv.org/abs/2506.09027), and for the GAN
[mode seeking](https://arxiv.org/abs/1903.05628).
The energy and Dispersive Loss work on the same hidden states: the block at a quarter of the UNet's depth, and the
generator's last."""
VAE = """A small convolutional VAE of {latents} latents ({vae:,} steps of {batch} images), also with 300 images alone.
Its loss is the evidence lower bound, divided by the number of pixels.
The arms differ in one term: the energy in either form, [Dispersive Loss](https://arxiv.org/abs/2506.09027), and another
[beta](https://openreview.net/forum?id=Sy2fzU9gl) than plain's 1, which is tuned and stands in the tables as a weight does.
The energy and Dispersive Loss work on the same hidden state: the encoder's last, of which the posterior is made; the
energy's tokens are its cells.
Samples are the expected pixels of latents that are drawn from the prior."""
ABOUT_KINDS = {("flow", "gan"): FLOW_AND_GAN, ("vae",): VAE}
ABOUT_DIVERSITY = """*Diversity in a class* is the mean distance between two samples of a class, by that of two real ones.
"""
ABOUT_LATENTS = """*Active units* are the latents whose posterior mean varies (a variance above 0.01) over images that were not
trained on, *effective rank* is that of these means, and *reconstruction error* the mean squared error of a pixel in [0, 1]
when they are decoded.
Neither more active units nor a higher rank count as better.
"""


def kind_of(setting: Setting) -> str:
    """A key of `KIND_TITLES`."""
    return setting.name.split(", ")[1]


def names_of(rows: list[Row], setting: Setting) -> dict[str, str]:
    """The measures that the runs of a setting have."""
    some = rows_of(rows, setting)[0]
    return {measure: name for measure, name in {**NAMES, **LATENT_NAMES}.items() if measure in some}


def report(name: str, rows: list[Row], settings: list[Setting]) -> str:
    """The page."""
    done = reported(rows, settings)
    found = differences(rows, done, tuple({**NAMES, **LATENT_NAMES}))
    judged = [one for one in found if one.measure not in NO_BETTER]
    kinds = tuple(dict.fromkeys(map(kind_of, settings)))
    counts = [row["images"] for row in rows if "images" in row]
    text = HEAD.format(
        name=name,
        more="" if name == "digits" else " --dataset FILE.npz",
        about=ABOUT_DATA[name] + (f" {max(counts):,} images to train on." if counts else ""),
        networks=ABOUT_KINDS[kinds].format(batch=BATCH, latents=LATENTS, **STEPS),
        diversity=ABOUT_DIVERSITY if any("class_diversity" in row for row in rows) else "",
        measures=ABOUT_LATENTS if "vae" in kinds else "",
        tests=len(found),
        missing=progress(rows, settings),
        findings=found_sentences(judged, {**NAMES, **LATENT_NAMES}, LESS_IS_BETTER),
    ).replace("digits.safetensors", f"{name}.safetensors")
    parts = [text]
    for setting in done:
        parts.append(f"## {title(setting)}\n\n{results_table(rows, setting, found, names_of(rows, setting))}\n")
    parts.append(
        "## Samples\n\nThe same noise, seed 0, unpicked; below each sample the training image that is nearest to it.\n\n"
        f"![Samples of every arm, and the nearest training images]({name}.png)\n\n"
        f"## Over the training\n\nPlain, each reported seed, by {ON_THE_WAY} samples (fewer than in the tables).\n"
        "In the last fifth of the training its mean changes by "
        f"{curve_ends(rows, done, ('frechet', 'coverage'), NAMES)}.\n\n"
        f"![The Fréchet distance and the coverage of plain runs over the training]({name}_training.png)\n\n"
        "## Weights\n\nMinus the Fréchet distance on the tuning seed; the best is bold.\n\n"
        f"{tuning_table(rows, [setting for setting in settings if not setting.weights_of])}"
    )
    return "".join(parts)


def title(setting: Setting) -> str:
    data = setting.name.split(", ")[0]
    few = f", {data.split()[1]} images" if " " in data else ""
    return f"{KIND_TITLES[kind_of(setting)]}{few}"


def pictures(name: str, rows: list[Row], settings: list[Setting], folder: Path) -> list[Path]:
    """Samples of every arm, and plain's measures over the training."""
    done = reported(rows, settings)
    return [
        samples_picture(rows, done, folder / f"{name}.png"),
        curves(rows, done, folder / f"{name}_training.png"),
    ]


def samples_picture(rows: list[Row], settings: list[Setting], path: Path) -> Path:
    """A line for every kind of generator and arm; the settings of a kind, which differ in the images, side by side."""
    kinds: dict[str, list[Setting]] = {}
    for setting in settings:
        kinds.setdefault(kind_of(setting), []).append(setting)
    lines = [(same, arm) for same in kinds.values() for arm in same[0].arms]
    columns = max(len(same) for same in kinds.values())
    figure, axes = new_figure(6.2 * columns, 1.3 * len(lines), len(lines), columns)
    for axis in axes.flat:
        axis.set_axis_off()
    for line, (same, arm) in zip(axes, lines, strict=True):
        for axis, setting in zip(line, same, strict=False):
            for row in shown(rows, setting, arm):
                strips = [strip(unpacked(row[part], row["shape"])) for part in ("shown", "nearest")]
                gap = np.ones((1, *strips[0].shape[1:]))
                axis.imshow(np.concatenate([strips[0], gap, strips[1]]).squeeze(), cmap="gray", vmin=0, vmax=1)
                axis.set_title(f"{title(setting)}: {ABOUT[arm]}", fontsize=8, loc="left", pad=2)
    return save_figure(figure, path)


def shown(rows: list[Row], setting: Setting, arm: str) -> list[Row]:
    return [row for row in rows_of(rows, setting, arm) if "shown" in row][:1]


def strip(images: np.ndarray) -> np.ndarray:
    """Images uint8 [N, C, H, W] side by side, with white between them: [H, width, C] in [0, 1]."""
    values = images.transpose(0, 2, 3, 1) / 255
    gap = np.ones((values.shape[1], 1, values.shape[3]))
    return np.concatenate([part for image in values for part in (image, gap)], axis=1)


def curves(rows: list[Row], settings: list[Setting], path: Path) -> Path:
    figure, axes = new_figure(3.2 * len(settings), 5, 2, len(settings))
    for column, setting in enumerate(settings):
        for axis, measure in zip(axes[:, column], ("frechet", "coverage"), strict=True):
            for row in rows_of(rows, setting, PLAIN):
                points: list[dict[str, Any]] = row["curve"]
                axis.plot(
                    [point["step"] for point in points],
                    [point[measure] for point in points],
                    color="#333333", marker=".", linewidth=1, alpha=0.7,
                )  # fmt: skip
            axis.set_ylim(bottom=0)
            axis.grid(color="#eeeeee")
        axes[0, column].set_title(title(setting), fontsize=10)
        axes[1, column].set_xlabel("step")
    for axis, label in zip(axes[:, 0], ("Fréchet distance", "coverage"), strict=True):
        axis.set_ylabel(label)
    return save_figure(figure, path)
