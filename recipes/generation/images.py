"""Generators of images, over seeds: python recipes/generation/images.py digits (or mnist, fashion --dataset FILE.npz)

A small UNet by flow matching and a small GAN of digits and MNIST, a small VAE of Fashion-MNIST: plain, with the energy in
both forms, with Dispersive Loss, the GAN also with mode seeking and the VAE with another beta; and again with 300 images. It
writes results/NAME.jsonl (a line a run; runs that are there are not made again), the classifier that measures beside it, and
NAME.md with its pictures. With --report_only nothing is trained.
"""

import argparse
from pathlib import Path

import image_report
import image_runs
import torch
from arms import ARMS, BETA, MODE_SEEKING, Row, Setting, reported, run_missing
from image_data import load_classifier, load_images

from atom_hf.errors import AtomError
from atom_hf.utils.jsonl import read_lines

HERE = Path(__file__).parent
KINDS = {"digits": ("flow", "gan"), "mnist": ("flow", "gan"), "fashion": ("vae",)}
"""The generators of each data set."""
FLOW_ARMS = tuple(arm for arm in ARMS if arm != MODE_SEEKING)
KIND_ARMS = {"flow": FLOW_ARMS, "gan": ARMS, "vae": (*FLOW_ARMS, BETA)}
WEIGHTS = (0.003, 0.03, 0.3)
BETAS = (0.3, 2.0, 4.0)  # as many as weights; plain has 1
FEW = 300  # images where data are scarce
SEEDS, FEW_SEEDS = 5, 3
KIND_SEEDS = {"flow": FEW_SEEDS, "gan": SEEDS, "vae": SEEDS}
"""The flow has fewer seeds: its runs are long, and differ less."""


def settings(name: str) -> list[Setting]:
    """Each generator of a data set with all images, then each with few."""
    found = [
        Setting(
            f"{name}, {kind}",
            KIND_ARMS[kind],
            WEIGHTS,
            KIND_SEEDS[kind],
            own_weights=((BETA, BETAS),) if BETA in KIND_ARMS[kind] else (),
        )
        for kind in KINDS[name]
    ]
    few = [
        one._replace(name=f"{name} {FEW}, {one.name.split(', ')[1]}", seeds=FEW_SEEDS, weights_of=one.name)
        for one in found
    ]
    return found + few


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=KINDS)
    parser.add_argument("--dataset", help="an .npz of x_train, y_train, x_test, y_test; the digits are built in")
    parser.add_argument("--report_only", action="store_true")
    parser.add_argument("--minutes", type=float, help="start no run after so many minutes")
    given = parser.parse_args()
    file = HERE / "results" / f"{given.name}.jsonl"
    file.parent.mkdir(exist_ok=True)
    if given.report_only:
        rows = read_lines(file)
    else:
        if given.name != "digits" and not given.dataset:
            raise AtomError(f"--dataset: give {given.name} as an .npz of x_train, y_train, x_test, y_test")
        torch.set_num_threads(1)
        data = load_images(given.name, given.dataset)
        classifier = load_classifier(data, file.with_suffix(".safetensors"))

        def run(setting: Setting, arm: str, weight: float, seed: int) -> Row:
            some = data.first(FEW if f" {FEW}," in setting.name else None)
            found = image_runs.train(some, classifier, setting.name.split(", ")[1], arm, weight, seed)
            return {"score": -found["frechet"], **found}

        rows = run_missing(file, settings(given.name), run, given.minutes)
    if not reported(rows, settings(given.name)):
        print("no page yet: it takes two plain runs of a setting")
        return
    page = HERE / f"{given.name}.md"
    page.write_text(image_report.report(given.name, rows, settings(given.name)), encoding="utf-8")
    pictures = image_report.pictures(given.name, rows, settings(given.name), HERE)
    print("\n".join(f"written   {path}" for path in (page, *pictures)))


if __name__ == "__main__":
    main()
