"""Writes the tables of the recipes' paired runs: python recipes/report.py

They go into README.md here and in `defaults/`, and between the two marks in the project's README.md.
"""

import json
from pathlib import Path

from atom_hf.compare import RESULTS_NAME, paired_table

HERE = Path(__file__).parent
MAIN_METRIC = {"cola": "mcc", "gutenberg": "perplexity"}
MARKS = "<!-- results: python recipes/report.py -->", "<!-- end of results -->"
HEAD = """# Recipes

One folder a recipe: `plain.yaml` and `atom.yaml` differ in one line. Data sets are named by their Hub id; each file says how
to name a local copy instead.

    atom-hf train --config recipes/digits/atom.yaml
    atom-hf compare --config recipes/digits/atom.yaml --seeds 5

The table is what the flag does, in paired runs on two CPU cores at the size that each recipe states: same seed, same samples,
same initial weights, same order, same number of steps. Differences are atom minus plain, with a 95 % t interval over seeds.
A difference whose interval holds 0 is not evidence of anything. `defaults/` has the runs by which the defaults were chosen.

"""
TAIL = """
`vit_fashion_mnist/plain.yaml` remakes the ViT that ships with the package; it was run here on 12,000 of the 60,000 images.

Remade by, for each recipe `R` (with `--dataset`, and `--eval_dataset` where the data has no split of its own, naming a local
copy if there is no Hub; results of other settings or paths are not added to, so remove `results.jsonl` first):

    atom-hf compare --config recipes/R/atom.yaml --seeds N --output_dir recipes/R/results
    python recipes/report.py
"""


def read(folder: Path) -> tuple[dict, list[int], dict]:
    """(description, seeds that every arm has, results by seed and arm) of a comparison."""
    about, *lines = [json.loads(line) for line in (folder / RESULTS_NAME).read_text(encoding="utf-8").splitlines()]
    done = {(line.pop("seed"), line.pop("arm")): line for line in lines}
    arms = list(dict.fromkeys(arm for _, arm in done))
    seeds = sorted(seed for seed in {s for s, _ in done} if all((seed, arm) in done for arm in arms))
    return {**about, "arms": arms}, seeds, done


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, ["---"] * len(header), *rows]) + "\n"


def main() -> None:
    rows = []
    for folder in sorted(HERE.glob("*/results")):
        name = folder.parent.name
        about, seeds, done = read(folder)
        table = paired_table("", about["arms"], seeds, done)
        wanted = (MAIN_METRIC.get(name, "accuracy"), "loss")
        for metric, *cells in table.rows:
            if metric.split()[0] in wanted:
                rows.append([name, str(about["train_samples"]), str(len(seeds)), metric, *cells])
    header = ["recipe", "training samples", "seeds", "metric", "plain", "atom", "difference [95 %]"]
    table = markdown(header, rows)
    (HERE / "README.md").write_text(HEAD + table + TAIL, encoding="utf-8")
    readme = HERE.parent / "README.md"
    before, rest = readme.read_text(encoding="utf-8").split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    readme.write_text(f"{before}{MARKS[0]}\n\n{table}\n{MARKS[1]}{after}", encoding="utf-8")

    parts = []
    for folder in sorted(path.parent for path in (HERE / "defaults").glob(f"*/{RESULTS_NAME}")):
        about, seeds, done = read(folder)
        table = paired_table("", about["arms"], seeds, done)
        by_arm = []
        for number, arm in enumerate(about["arms"]):
            cells = [arm]
            for metric, *values in table.rows:
                if metric.split()[0] in ("accuracy", "mcc", "loss", "perplexity"):
                    cells += [values[0], ""] if number == 0 else values[2 * number - 1 : 2 * number + 1]
            by_arm.append(cells)
        names = [m.split()[0] for m, *_ in table.rows if m.split()[0] in ("accuracy", "mcc", "loss", "perplexity")]
        header = ["arm"] + [cell for name in names for cell in (name, "difference [95 %]")]
        size = (
            f"{about['train_samples']} training samples, {about['eval_samples']} evaluation samples, {len(seeds)} seeds"
        )
        parts.append(f"## {folder.name}\n\n{size}.\n\n{markdown(header, by_arm)}")
    notes = (HERE / "defaults" / "notes.md").read_text(encoding="utf-8")
    (HERE / "defaults" / "README.md").write_text(notes + "\n" + "\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
