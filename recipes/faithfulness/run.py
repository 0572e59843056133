"""Measure the faithfulness of importance to the prediction on real models: python recipes/faithfulness/run.py

Trains the models of four recipes with and without the flag (three seeds), fits their importance to the prediction, measures it
beside other methods with `atom-hf faithfulness`, and writes `README.md` here, one folder a recipe, and the table between the
marks in the project's README.md. Finished steps are not run again; `--report_only` writes the reports alone.

Without the Hub give local copies: --data poem=TRAIN.parquet,TEST.parquet (also cola, cifar10). About two hours on
two CPU cores.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from faithfulness_report import HERE, write_reports

ROOT = HERE.parents[1]
RUNS = Path("runs", "faithfulness")
SEEDS = (1, 2, 3)
# The explainer is fitted on samples of the whole training split; the fit does not use their labels.
FITS = {
    "poem": ["--samples", "440", "--copies", "4"],
    "cola": ["--samples", "320", "--copies", "4"],
    "digits": ["--samples", "1000", "--copies", "4"],
    "cifar10": ["--samples", "1000", "--copies", "4"],
}
HUB = {
    "poem": ["google-research-datasets/poem_sentiment"],
    "cola": ["nyu-mll/glue", "--dataset_config", "cola"],
    "digits": ["digits"],
    "cifar10": ["uoft-cs/cifar10"],
}
# A sample is passed forward some hundred times for each method, model and masking strategy.
SAMPLES = {"poem": "16", "cola": "16", "digits": "24", "cifar10": "24"}
MEASURED = ["--check_samples", "4", "--perturbations", "20", "--curve_steps", "10"]
METHODS = "importance,charge,-charge,|charge|,random,attention_rollout,input_x_gradient,integrated_gradients"
# Random orders take hundreds of passes a sample: under one masking strategy.
SAMPLED, FIRST = "shapley_sampling", {"poem": "mask", "cola": "mask", "digits": "mean", "cifar10": "mean"}
PLAIN = "hidden_norm,attention_rollout,integrated_gradients"


def data_flags(recipe: str, local: dict[str, list[str]]) -> list[str]:
    """The flags that name a recipe's data."""
    if recipe not in local:
        return ["--dataset", *HUB[recipe]]
    return ["--dataset", local[recipe][0], "--eval_dataset", local[recipe][1]]


def call(command: str, *flags: str) -> None:
    """Runs `atom-hf COMMAND`, in a process of its own."""
    print(f"atom-hf {command} {' '.join(flags)}", flush=True)
    subprocess.run([sys.executable, "-m", "atom_hf", command, *flags], check=True, cwd=ROOT)


def make_models(recipe: str, local: dict[str, list[str]]) -> dict[str, list[str]]:
    """The folders of a recipe's trained models, of each arm one a seed."""
    found: dict[str, list[str]] = {"atom": [], "plain": []}
    for arm, folders in found.items():
        for seed in SEEDS:
            folder = str(RUNS / f"{recipe}-{arm}-{seed}")
            folders.append(folder)
            if not Path(ROOT, folder, "config.json").is_file():
                flags = ["--config", f"recipes/{recipe}/{arm}.yaml", *data_flags(recipe, local), "--seed", str(seed)]
                if recipe in local and recipe == "cola":
                    flags += ["--dataset_config", ""]
                call("train", *flags, "--output_dir", folder, "--save_strategy", "no", "--no_explainer")
            config = Path(ROOT, folder, "atom_config.json")
            if arm == "atom" and json.loads(config.read_text(encoding="utf-8")).get("explainer_classes") is None:
                call(
                    "fit-explainer",
                    "--model",
                    folder,
                    *data_flags(recipe, local),
                    *FITS[recipe],
                    "--sample_seed",
                    str(seed),
                )
    return found


def measure(recipe: str, local: dict[str, list[str]]) -> None:
    """Trains, fits the explainer and measures, as far as not done yet."""
    models = make_models(recipe, local)
    flags = [
        *data_flags(recipe, local),
        "--samples",
        SAMPLES[recipe],
        *MEASURED,
        "--output_dir",
        str(HERE.relative_to(ROOT) / recipe),
    ]
    call("faithfulness", "--model", *models["atom"], "--methods", METHODS, *flags)
    call("faithfulness", "--model", *models["atom"], "--methods", SAMPLED, "--masking", FIRST[recipe], *flags)
    call("faithfulness", "--plain", *models["plain"], "--methods", PLAIN, *flags)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=FITS, action="append", help="this recipe; may be given several times")
    parser.add_argument(
        "--data", action="append", default=[], metavar="RECIPE=TRAIN,EVAL", help="local files in place of the Hub's"
    )
    parser.add_argument("--report_only", action="store_true", help="write the reports from the results that are there")
    options = parser.parse_args()
    local = {name: files.split(",") for name, _, files in (part.partition("=") for part in options.data)}
    if unknown := [name for name, files in local.items() if name not in FITS or len(files) != 2]:
        parser.error(f"--data {unknown[0]}: give RECIPE=TRAIN,EVAL with one of {', '.join(FITS)}")
    if not options.report_only:
        for recipe in options.only or FITS:
            measure(recipe, local)
    for path in write_reports(FITS):
        print(f"written   {path}")


if __name__ == "__main__":
    main()
