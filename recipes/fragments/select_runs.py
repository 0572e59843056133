"""Which of 20 fine-tunes to put into an ensemble, without labels: python recipes/fragments/select_runs.py

Twenty runs of the digits recipe (100 images), each of its own seed and its own draw of the images, 8 times over, after 8
repeats on which a second rule, `closest_to_all`, was chosen among three. Their
probabilities on the 797 evaluation images are kept in `runs/fragments/select/`; runs that are there are not trained again, and
repeats that are in the results are not measured again.
300 of the images choose four runs: without labels by `select_runs`, with labels by accuracy; the other 497 measure the
accuracy of the mean probability. It writes `select/results.jsonl`, a line a repeat, and `select/README.md`.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from fine_tunes import RUNS, trained
from tqdm import tqdm

from atom_hf.fragments import Channel, compare_channels, select_runs
from atom_hf.fragments.read import read_channels
from atom_hf.utils.quiet import quiet
from atom_hf.utils.statistics import paired_t_test, t_interval
from atom_hf.utils.tables import markdown

HERE = Path(__file__).parent / "select"
RESULTS = HERE / "results.jsonl"
TRIED, REPEATS, MODELS, CHOSEN = 8, 8, 20, 4
CHOOSING = 300  # images
DRAWS = 500  # of random ensembles

WAYS = {
    "select_runs": "four by `select_runs`, without labels",
    "consensus": "four whose mean is closest to that of all, without labels",
    "random": "four at random (mean of 500 draws)",
    "all": "all twenty",
    "accuracy": "four by accuracy, with labels",
    "best": "the best single run, with labels",
    "single": "a single run (mean of twenty)",
}


def read_run(repeat: int, model: int) -> tuple[np.ndarray, np.ndarray]:
    """(probabilities [797, 10], labels [797]) of one run, trained if need be."""
    file = RUNS / "select" / f"{repeat}-{model}.npz"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        seed = MODELS * repeat + model
        found = trained("digits", seed, sample_seed=seed)
        processor = found.task.processing_class
        (classes,) = read_channels(found.trainer.model, found.data, kind="classes", processor=processor)
        np.savez(file, probabilities=classes.probabilities.numpy(), labels=np.array(found.data.eval["label"]))
    with np.load(file) as stored:
        return stored["probabilities"], stored["labels"]


def closest_to_all(probabilities: np.ndarray) -> list[int]:
    """One after another, the four of probabilities [20, n, 10] whose mean p is closest to that of all, q: least KL(q || p)."""
    aim, chosen = probabilities.mean(0), []
    for size in range(1, CHOSEN + 1):
        means = (probabilities[chosen].sum(0) + probabilities) / size
        closeness = (aim * np.log(means.clip(1e-300))).sum(2).mean(1)
        closeness[chosen] = -np.inf
        chosen.append(int(closeness.argmax()))
    return chosen


def measure(probabilities: np.ndarray, labels: np.ndarray, seed: int) -> dict[str, float]:
    """The accuracy by each of `WAYS` on the images that nothing was chosen on, of probabilities [20, 797, 10]."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    seen, unseen = order[:CHOOSING], order[CHOOSING:]
    channels = [Channel.soft(one[seen], run=str(number)) for number, one in enumerate(probabilities)]
    alone = (probabilities[:, seen].argmax(2) == labels[seen]).mean(1)

    def accuracy(models: list[int]) -> float:
        return float((probabilities[models][:, unseen].mean(0).argmax(1) == labels[unseen]).mean())

    drawn = [rng.choice(MODELS, CHOSEN, replace=False).tolist() for _ in range(DRAWS)]
    return {
        "select_runs": accuracy(select_runs(channels, CHOSEN)),
        "consensus": accuracy(closest_to_all(probabilities[:, seen])),
        "random": float(np.mean([accuracy(models) for models in drawn])),
        "all": accuracy(list(range(MODELS))),
        "accuracy": accuracy(np.argsort(-alone, kind="stable")[:CHOSEN].tolist()),
        "best": accuracy([int(alone.argmax())]),
        "single": float(np.mean([accuracy([model]) for model in range(MODELS)])),
        "bits": float(compare_channels(channels).information.mean()),
    }


def table(lines: list[dict[str, float]]) -> str:
    """The accuracy by each way, and beside that of random ensembles, over some repeats."""
    rows = []
    for way in [way for way in WAYS if way in lines[0]]:
        mean, low, high = t_interval([line[way] for line in lines])
        difference, p = paired_t_test([line["random"] for line in lines], [line[way] for line in lines])
        against = "" if way == "random" else f"{difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"
        spread = f"{mean:.4f} [{low:.4f}, {high:.4f}]"
        rows.append([WAYS[way], spread, against, "" if way == "random" else f"{p:.2g}"])
    return markdown(["ensemble", "accuracy [95 %]", "minus four at random [95 %]", "p"], rows)


def report(lines: list[dict[str, float]]) -> str:
    """The page, in Markdown."""
    tried, lines = lines[:TRIED], lines[TRIED:]
    repeats = "" if len(lines) == REPEATS else f" --repeats {len(lines)}"
    return (
        "# Which fine-tunes to put into an ensemble\n\n"
        f"{MODELS} fine-tunes of the [digits recipe](../../digits/plain.yaml) on 100 images, each of its own seed and draw of "
        f"the images; {len(lines)} repeats, each of its own {MODELS} runs.\n"
        f"{CHOOSING} evaluation images choose, the other {797 - CHOOSING} measure; the ensemble's prediction is the mean "
        "probability.\nIntervals are t intervals over repeats.\n\n"
        f"    python recipes/fragments/select_runs.py{repeats}    # trains what is missing, and writes this page\n"
        "    python recipes/fragments/select_runs.py --report_only    # writes this page again from the results\n\n"
        f"{table(lines)}\n"
        "## The repeats before\n\n"
        f"In {len(tried)} repeats before these, the runs that share the most information made no good ensemble: they are much "
        "alike.\nSo three rules that look at the ensemble were tried on five of them: the largest S, the largest NMI and the "
        "smallest KL divergence between the mean of all and that of those taken.\nThe last one did best there, and is in the "
        "table above: on fresh runs nothing of that is left."
        f"\n\n{table(tried)}"
    )


def read_lines() -> list[dict[str, float]]:
    """The repeats that have been measured."""
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]


def measure_all(repeats: int) -> None:
    """Writes a line for each repeat; those of an earlier call are taken as they are."""
    lines = read_lines()[: TRIED + repeats] if RESULTS.is_file() else []
    with quiet(), tqdm(total=(TRIED + repeats) * MODELS, initial=len(lines) * MODELS, desc="digits", unit="run") as bar:
        for repeat in range(len(lines), TRIED + repeats):
            found = []
            for model in range(MODELS):
                found.append(read_run(repeat, model))
                bar.update()
            probabilities, labels = np.stack([one for one, _ in found]), found[0][1]
            lines.append({"repeat": repeat, **measure(probabilities, labels, repeat)})
            RESULTS.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--repeats",
        type=int,
        default=REPEATS,
        help=f"of {MODELS} runs each, after the {TRIED} first; {REPEATS} if not given",
    )
    parser.add_argument("--report_only", action="store_true", help="train nothing")
    given = parser.parse_args()
    if not given.report_only:
        HERE.mkdir(exist_ok=True)
        measure_all(given.repeats)
    (HERE / "README.md").write_text(report(read_lines()), encoding="utf-8")


if __name__ == "__main__":
    main()
