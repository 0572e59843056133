"""Generators of Gaussian mixtures, over seeds: python recipes/generation/mixtures.py

A ring of 8 modes and a grid of 25, by a GAN and by flow matching: plain, with the energy in both forms, with Dispersive Loss,
and for GANs with mode seeking. It writes results/mixtures.jsonl (a line a run; runs that are there are not made again), and
mixtures.md and its pictures beside it. With --report_only nothing is trained.
"""

import argparse
from pathlib import Path

import mixture_report
import mixture_runs
import torch
from arms import ARMS, MODE_SEEKING, Row, Setting, reported, run_missing

from atom_hf.utils.jsonl import read_lines

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "mixtures.jsonl"
WEIGHTS = (0.01, 0.1, 1.0)
SEEDS = 10
FLOW_ARMS = tuple(arm for arm in ARMS if arm != MODE_SEEKING)
SETTINGS = [
    *(Setting(f"grid, {kind}", arms, WEIGHTS, SEEDS) for kind, arms in (("gan", ARMS), ("flow", FLOW_ARMS))),
    # With the weights of the grid: what is tuned there should do here.
    *(
        Setting(f"ring, {kind}", arms, WEIGHTS, SEEDS, weights_of=f"grid, {kind}")
        for kind, arms in (("gan", ARMS), ("flow", FLOW_ARMS))
    ),
]


def run(setting: Setting, arm: str, weight: float, seed: int) -> Row:
    """The share of modes that are covered times the share of high quality is what weights are chosen by."""
    name, kind = setting.name.split(", ")
    found = mixture_runs.train(name, kind, arm, weight, seed)
    if seed != 0:
        found.pop("shown")
    modes = len(mixture_runs.MIXTURES[name].centres)
    return {"score": found["covered"] / modes * found["high_quality"], **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report_only", action="store_true")
    parser.add_argument("--minutes", type=float, help="start no run after so many minutes")
    given = parser.parse_args()
    torch.set_num_threads(1)
    RESULTS.parent.mkdir(exist_ok=True)
    rows = read_lines(RESULTS) if given.report_only else run_missing(RESULTS, SETTINGS, run, given.minutes)
    if not reported(rows, SETTINGS):
        print("no page yet: it takes two plain runs of a setting")
        return
    page = HERE / "mixtures.md"
    page.write_text(mixture_report.report(rows, SETTINGS), encoding="utf-8")
    pictures = mixture_report.pictures(rows, SETTINGS, HERE)
    print("\n".join(f"written   {path}" for path in (page, *pictures)))


if __name__ == "__main__":
    main()
