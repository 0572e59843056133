"""Measure the faithfulness of importance to the prediction on real models: python recipes/faithfulness/run.py

Trains the models of six recipes (three seeds), fits their importance to the prediction, measures it beside other methods with
`atom-hf faithfulness`, and writes `README.md` here, and one folder a recipe beside it. Shapley sampling with 25 orders is
measured under every masking strategy, on fewer samples. Finished steps are not run again, so that `--only` and the number of
seeds can grow; `--report_only` writes the pages alone.

Without the Hub give local copies: --data poem=TRAIN.parquet,TEST.parquet (also cola, cifar10, sst2). Each command says how long
it will take before it starts.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from faithfulness_report import HERE, SUFFIX, write_reports

ROOT = HERE.parents[1]
RUNS = Path("runs", "faithfulness-now")
SEEDS = (1, 2, 3)
# The explainer is fitted on samples of the whole training split; the fit does not use their labels.
FITS = {"digits": "1000", "cifar10": "1000", "verse": "500", "sst2": "500", "poem": "440", "cola": "500"}
HUB = {
    "poem": ["google-research-datasets/poem_sentiment"],
    "cola": ["nyu-mll/glue", "--dataset_config", "cola"],
    "digits": ["digits"],
    "cifar10": ["uoft-cs/cifar10"],
    "sst2": ["SetFit/sst2"],
    "verse": ["verse"],
}
MEASURED = ["--perturbations", "20", "--curve_steps", "10"]
METHODS = "importance,charge,random,input_x_gradient,integrated_gradients"
# Random orders take hundreds of passes a sample: on fewer samples.
SAMPLED = "importance,random,shapley_sampling"
PLAIN = "hidden_norm,attention_rollout,integrated_gradients"


def data_flags(recipe: str, local: dict[str, list[str]]) -> list[str]:
    """The flags that name a recipe's data."""
    if recipe not in local:
        return ["--dataset", *HUB[recipe]]
    return ["--dataset", local[recipe][0], "--eval_dataset", local[recipe][1]]


def call(command: str, *flags: str) -> None:
    """Runs `atom-hf COMMAND`, in a process of its own; ends as it does where it fails, which it has said in a line."""
    print(f"atom-hf {command} {' '.join(flags)}", flush=True)
    if status := subprocess.run([sys.executable, "-m", "atom_hf", command, *flags], cwd=ROOT).returncode:
        sys.exit(status)


def make_models(recipe: str, local: dict[str, list[str]], seeds: list[int], arms: list[str]) -> dict[str, list[str]]:
    """The folders of a recipe's trained models, of each arm one a seed."""
    found: dict[str, list[str]] = {arm: [] for arm in arms}
    for arm, folders in found.items():
        for seed in seeds:
            folder = str(RUNS / f"{recipe}-{arm}-{seed}")
            folders.append(folder)
            if not Path(ROOT, folder, "config.json").is_file():
                flags = ["--config", f"recipes/{recipe}/{arm}.yaml", *data_flags(recipe, local), "--seed", str(seed)]
                if recipe in local and recipe == "cola":
                    flags += ["--dataset_config", ""]
                call("train", *flags, "--output_dir", folder, "--save_strategy", "no", "--no_explainer")
            config = Path(ROOT, folder, "atom_config.json")
            if arm == "atom" and json.loads(config.read_text(encoding="utf-8")).get("explainer_classes") is None:
                fit = ["--samples", FITS[recipe], "--sample_seed", str(seed)]
                call("fit-explainer", "--model", folder, *data_flags(recipe, local), *fit)
    return found


def measure(recipe: str, local: dict[str, list[str]], options: argparse.Namespace) -> None:
    """Trains, fits the explainer and measures, as far as not done yet."""
    models = make_models(recipe, local, options.seed or list(SEEDS), ["atom", "plain"] if options.plain else ["atom"])
    if options.train_only:
        return
    data, folder = data_flags(recipe, local), HERE.relative_to(ROOT) / recipe
    flags = [*data, *MEASURED, "--samples", str(options.samples), "--check_samples", str(options.check_samples)]
    flags += ["--output_dir", str(folder)]
    call("faithfulness", "--model", *models["atom"], "--methods", METHODS, *flags)
    if options.shapley_samples:
        few = ["--samples", str(options.shapley_samples), "--check_samples", "0", "--output_dir", f"{folder}{SUFFIX}"]
        call("faithfulness", "--model", *models["atom"], "--methods", SAMPLED, *data, *MEASURED, *few)
    if "plain" in models:
        call("faithfulness", "--plain", *models["plain"], "--methods", PLAIN, *flags)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=FITS, action="append", help="this recipe; may be given several times")
    parser.add_argument(
        "--data", action="append", default=[], metavar="RECIPE=TRAIN,EVAL", help="local files in place of the Hub's"
    )
    parser.add_argument("--seed", type=int, action="append", help=f"this seed, likewise; {SEEDS} if not given")
    parser.add_argument("--samples", type=int, default=200, help="evaluation samples of each model (200)")
    parser.add_argument("--shapley_samples", type=int, default=50, help="of them for Shapley sampling (50); 0 for none")
    parser.add_argument("--check_samples", type=int, default=0, help="of them for sensitivity and randomization (0)")
    parser.add_argument("--plain", action="store_true", help="also the models that are trained without the flag")
    parser.add_argument("--train_only", action="store_true", help="train the models and fit their importance, no more")
    parser.add_argument("--report_only", action="store_true", help="write the reports from the results that are there")
    options = parser.parse_args()
    local = {name: files.split(",") for name, _, files in (part.partition("=") for part in options.data)}
    if unknown := [name for name, files in local.items() if name not in FITS or len(files) != 2]:
        parser.error(f"--data {unknown[0]}: give RECIPE=TRAIN,EVAL with one of {', '.join(FITS)}")
    if not options.report_only:
        for recipe in options.only or FITS:
            measure(recipe, local, options)
    for path in () if options.train_only else write_reports(FITS):
        print(f"written   {path}")


if __name__ == "__main__":
    main()
