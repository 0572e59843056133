"""Is fitted importance as faithful under either form of the energy? python recipes/faithfulness/forms.py

Trains two recipes with each form (three seeds), fits their importance on the same samples, and measures it beside integrated
gradients with `atom-hf faithfulness`. Writes `forms/README.md` here. Finished steps are not run again, so that `--only` and
the seeds can grow; `--report_only` writes the page alone. Everything is built in; some 10 minutes a recipe on one CPU core.
"""

import argparse
import itertools
from pathlib import Path

from faithfulness_report import COMPARED, HERE
from run import ROOT, call

from atom_hf.faithfulness.report import CHANCE, MEASURES, OURS, REFERENCE, gap, paired, read_blocks, share, write_report
from atom_hf.utils.jsonl import RESULTS_NAME
from atom_hf.utils.tables import markdown

RUNS, SEEDS = Path("runs", "faithfulness-forms"), (1, 2, 3)
# Of each recipe, samples of the training split to fit importance on.
RECIPES = {"digits": "300", "parity": "300"}
TITLES = {"digits": "digits, ViT of Fashion-MNIST", "parity": "parity of digits, ViT from scratch"}
FORMS = ("paper", "separation")
MEASURED = [
    "--samples",
    "100",
    "--masking",
    "mean",
    "--check_samples",
    "0",
    "--perturbations",
    "20",
    "--curve_steps",
    "10",
]
METHODS = "importance,charge,random,integrated_gradients"
HEAD = (
    "# Fitted importance under either form of the energy\n\nMade by `python recipes/faithfulness/forms.py`.\n"
    "Each recipe below was trained in each form, and importance was fitted to the prediction on the same 300 "
    "training images.\nIt is measured on 100 evaluation images, patches masked by the mean colour.\n"
    "The first table gives importance minus integrated gradients with 50 steps: the mean over seeds, the 95 % interval over "
    "samples, then that over seeds; ▲ better, ▼ worse.\n"
    "The second one says how far importance gets on the way from random numbers (0 %) to integrated gradients (100 %).\n\n"
)


def data_of(recipe: str) -> list[str]:
    """The flags that name a recipe's data."""
    return ["--dataset", "digits", *(["--label_column", "parity"] if recipe == "parity" else [])]


def measure(recipe: str, form: str, seeds: list[int]) -> None:
    """Trains, fits and measures, as far as not done yet."""
    folders = []
    for seed in seeds:
        folder = str(RUNS / f"{recipe}-{form}-{seed}")
        folders.append(folder)
        if Path(ROOT, folder, "done").is_file():
            continue
        flags = ["--config", f"recipes/{recipe}/atom.yaml", "--atom_form", form, "--seed", str(seed), "--no_explainer"]
        call("train", *flags, "--output_dir", folder, "--save_strategy", "no")
        fit = ["--samples", RECIPES[recipe], "--copies", "4", "--sample_seed", str(seed)]
        call("fit-explainer", "--model", folder, *data_of(recipe), *fit)
        Path(ROOT, folder, "done").touch()
    output = ["--output_dir", str(folder_of(recipe, form).relative_to(ROOT))]
    call("faithfulness", "--model", *folders, *data_of(recipe), *MEASURED, "--methods", METHODS, *output)


def folder_of(recipe: str, form: str) -> Path:
    """Where the results of a recipe and form lie."""
    return HERE / "forms" / f"{recipe}-{form}"


def tables() -> str:
    """Two tables with a row for each recipe and form that has been measured."""
    gaps, ways = [], []
    for recipe, form in itertools.product(RECIPES, FORMS):
        if not (folder_of(recipe, form) / RESULTS_NAME).is_file():
            continue
        blocks = {(arm, method): its for (_, arm, method), its in read_blocks(folder_of(recipe, form))[1].items()}
        ours, chance, reference = (blocks["model", method] for method in (OURS, CHANCE, REFERENCE))
        seeds = str(len(ours.samples))
        gaps.append([TITLES[recipe], form, seeds, *(gap(paired(ours, reference, m), MEASURES[m][1]) for m in COMPARED)])
        ways.append([TITLES[recipe], form, *(share(ours, chance, reference, m) for m in COMPARED)])
    first = markdown(["", "form", "seeds", *(MEASURES[m][0] for m in COMPARED)], gaps)
    return f"{first}\n{markdown(['', 'form', *(MEASURES[m][0].rstrip(' ↑↓') for m in COMPARED)], ways)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report_only", action="store_true", help="write the page from the results that are there")
    parser.add_argument("--only", choices=RECIPES, action="append", help="this recipe; may be given several times")
    parser.add_argument("--seed", type=int, action="append", help=f"this seed, likewise; {SEEDS} if not given")
    options = parser.parse_args()
    for recipe, form in () if options.report_only else itertools.product(options.only or RECIPES, FORMS):
        measure(recipe, form, options.seed or list(SEEDS))
    for recipe in RECIPES:
        for form in FORMS:
            if (folder_of(recipe, form) / RESULTS_NAME).is_file():
                write_report(folder_of(recipe, form))
    page = HERE / "forms" / "README.md"
    page.write_text(HEAD + tables(), encoding="utf-8")
    print(f"written   {page}")


if __name__ == "__main__":
    main()
