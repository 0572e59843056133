"""The hotspots of beta-VAEs over beta and seeds: python recipes/fragments/vaes.py sprites | digits | fashion

Trains what is missing (`train_vaes.py`), reads the posterior of 300 test images with `atom-hf fragments`, all runs together and
those of one beta alone, and writes tables and pictures into a folder of the data's name here. Of sprites it also tells which
factor each hotspot holds.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from train_vaes import BETAS, RUNS, SEEDS, SIZES, STEPS, train_all

from atom_hf.fragments import Channel, find_hotspots
from atom_hf.fragments.arguments import FragmentsArguments
from atom_hf.fragments.command import Found, run_fragments
from atom_hf.utils.tables import format_number, markdown

HERE = Path(__file__).parent
SHOWN = {"sprites": 4, "digits": 1, "fashion": 4}
"""The beta of the picture of similarity."""
BINS = 5  # of a factor


def run_command(data: str, betas: list[float], output: Path, **flags: Any) -> Found:
    """What `atom-hf fragments` finds in the runs of some betas."""
    models = [str(RUNS / data / f"beta-{beta:g}-seed-{seed}") for beta in betas for seed in SEEDS]
    dataset = str(RUNS / data / f"{data}.npz")
    run = FragmentsArguments(models=models, dataset=dataset, channels="posterior", output_dir=str(output), **flags)
    return run_fragments(run)[0]


def truths(data: str, channel: Channel, labels: torch.Tensor) -> list[Channel]:
    """What is known of the points: of sprites their factors in five equal bins, else the class."""
    with np.load(RUNS / data / f"{data}.npz") as file:
        factors, images = file.get("f_test"), file["x_test"]
    if factors is None:
        return [Channel.hard(labels, name="class", ids=channel.ids)]
    from sprites import FACTORS

    # The points were drawn from the images: each is found again by its pixels.
    rows = rows_of(data, images, channel)
    ranks = factors.argsort(0).argsort(0)[rows]
    bins = ranks * BINS // len(factors)
    return [Channel.hard(torch.as_tensor(bins[:, i]), name=name, ids=channel.ids) for i, name in enumerate(FACTORS)]


def rows_of(data: str, images: np.ndarray, channel: Channel) -> list[int]:
    """The rows of the test images that the data points are."""
    from atom_hf.data.load import load_data
    from atom_hf.fragments.points import find_points

    points = find_points(load_data(str(RUNS / data / f"{data}.npz")), len(channel.ids))
    place = {image.tobytes(): row for row, image in enumerate(images)}
    return [place[np.asarray(row["image"]).tobytes()] for row in points.rows]


def factor_rows(found: Found, data: str, beta: float) -> list[dict[str, Any]]:
    """The hotspots of the runs of one beta, each with its NMI to what is known."""
    own = {f"beta-{beta:g}-seed-{seed}" for seed in SEEDS}
    channels = [channel for channel in found.channels if channel.run in own]
    try:
        spots = find_hotspots(channels)
    except ValueError:  # all have collapsed
        return []
    return spots.summary(truths(data, channels[0], found.labels))


def report(data: str, result: dict[str, Any]) -> str:
    """The page, in Markdown."""
    spots = [row for rows in result["hotspots"].values() for row in rows]
    known = list(dict.fromkeys(name.removeprefix("nmi ") for row in spots for name in row if name.startswith("nmi ")))
    rows = []
    for beta, found in result["hotspots"].items():
        for row in found:
            cells = [
                beta,
                str(row["size"]),
                f"{row['runs']:.0%}",
                format_number(row["bits"]),
                format_number(row["nmi"]),
            ]
            rows.append([*cells, *(f"{row[f'nmi {name}']:.3f} ({row[f'chance {name}']:.3f})" for name in known)])
        if not found:
            rows.append([beta, "none", *[""] * (3 + len(known))])
    head = ["beta", "channels", "of the runs", "bits", "NMI within", *(f"NMI to {name} (chance)" for name in known)]
    by_beta = []
    for row in result["by beta"]:
        near = "" if row["nearest"] is None else f"{row['nearest']:.3f} ± {row['nearest_error']:.3f}"
        counts = [str(row[name]) for name in ("channels", "informative", "hotspots")]
        by_beta.append([f"{row['strength']:g}", *counts, near])
    source = " --dataset fashion_mnist.npz" if data == "fashion" else ""
    counted = ["beta", "channels", "informative", "hotspots", "median NMI to the nearest channel of another run ± s.e."]
    parts = [
        f"# Hotspots of beta-VAEs: {data}",
        f"    python recipes/fragments/vaes.py {data}{source}    # trains what is missing, and writes this page\n"
        f"    python recipes/fragments/vaes.py {data} --report_only    # writes this page again from the results",
        f"{len(SEEDS)} seeds for each beta, {SIZES['latent_size']} latents, dense encoder and decoder of widths "
        f"{SIZES['hidden_sizes']}, {STEPS:,} steps.\n{result['points']} test images, so that at most "
        f"{np.log2(result['points']):.2f} bits can be told.",
        markdown(counted, by_beta),
        "![By beta](regularization.png)",
        "Hotspots of the runs of each beta by themselves."
        + (f"\nFactors are in {BINS} bins of equal size." if data == "sprites" else ""),
        markdown(head, rows),
        f"The informative latents of the runs at beta {SHOWN[data]:g}:",
        "![Similarity](similarity.png)",
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def study(data: str, source: str | None) -> None:
    """Trains what is missing, and writes results, tables and pictures."""
    train_all(data, source)
    whole, alone = (RUNS / data / name for name in ("report", f"report-beta-{SHOWN[data]:g}"))
    found = run_command(data, list(BETAS[data]), whole, regularization="beta", min_size=len(SEEDS) // 2)
    run_command(data, [SHOWN[data]], alone)
    result = {
        "points": found.comparison.points,
        "by beta": found.regularization,
        "hotspots": {f"{beta:g}": factor_rows(found, data, beta) for beta in BETAS[data]},
    }
    folder = HERE / data
    folder.mkdir(exist_ok=True)
    for source, name in ((whole, "regularization.png"), (alone, "similarity.png"), (whole, "channels.csv")):
        shutil.copy(source / name, folder / name)
    (folder / "results.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=list(BETAS))
    parser.add_argument("--dataset", help="for fashion: an npz file of Fashion-MNIST")
    parser.add_argument("--report_only", action="store_true", help="train and read nothing")
    given = parser.parse_args()
    if given.data == "fashion" and given.dataset is None and not given.report_only:
        parser.error("fashion needs --dataset: an npz file with x_train, y_train, x_test and y_test")
    if not given.report_only:
        study(given.data, given.dataset)
    result = json.loads((HERE / given.data / "results.json").read_text(encoding="utf-8"))
    (HERE / given.data / "README.md").write_text(report(given.data, result), encoding="utf-8")


if __name__ == "__main__":
    main()
