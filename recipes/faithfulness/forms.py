"""Is fitted importance as faithful under either form of the energy? python recipes/faithfulness/forms.py

The recipes of `run.py` are trained with the paper's form. This trains them with the separation form, fits their importance on
the same samples and measures it in the same way, as far as `run.py` has measured the other form. Writes `forms/README.md` here.
Finished steps are not run again, so that `--only` and the seeds can grow; `--report_only` writes the page alone.
"""

import argparse
import itertools
import json
from pathlib import Path

from faithfulness_report import COMPARED, HERE, sizes
from run import FITS, MEASURED, ROOT, SEEDS, call, data_flags

from atom_hf.faithfulness.report import CHANCE, MEASURES, OURS, REFERENCE, gap, paired, read_blocks, share, write_report
from atom_hf.utils.jsonl import RESULTS_NAME
from atom_hf.utils.tables import markdown

RUNS, FORM = Path("runs", "faithfulness-forms"), "separation"
RECIPES = ("digits", "verse")
TITLES = {"digits": "digits, ViT of Fashion-MNIST", "verse": "verse, MiniLM"}
FOLDERS = {"paper": HERE, FORM: HERE / "forms"}
METHODS = "importance,random,integrated_gradients"
HEAD = (
    "# Fitted importance under either form of the energy\n\nMade by `python recipes/faithfulness/forms.py`, and by "
    "`python recipes/faithfulness/run.py` for the paper's form.\n"
    "Models of either form have the same seeds and data, and importance was fitted to the prediction on the same training "
    "samples.\n"
    "The first table says how far importance gets on the way from random numbers (0 %) to integrated gradients with 50 steps "
    "(100 %).\n"
    "The second one gives importance minus integrated gradients: the mean over seeds, the 95 % interval over samples, then "
    "that over seeds, where there are several; ▲ better, ▼ worse.\n\n"
)


def measure(recipe: str, seeds: list[int], samples: int) -> None:
    """Trains, fits and measures models of the separation form, as far as not done yet."""
    folders, data = [str(RUNS / f"{recipe}-{seed}") for seed in seeds], data_flags(recipe, {})
    for folder, seed in zip(folders, seeds, strict=True):
        flags = ["--config", f"recipes/{recipe}/atom.yaml", "--atom_form", FORM, "--seed", str(seed), "--no_explainer"]
        if not Path(ROOT, folder, "config.json").is_file():
            call("train", *flags, "--output_dir", folder, "--save_strategy", "no")
        config = json.loads(Path(ROOT, folder, "atom_config.json").read_text(encoding="utf-8"))
        if config.get("explainer_classes") is None:
            call("fit-explainer", "--model", folder, *data, "--samples", FITS[recipe], "--sample_seed", str(seed))
    flags = [*MEASURED, "--samples", str(samples), "--check_samples", "0", "--methods", METHODS]
    output = ["--output_dir", str(FOLDERS[FORM].relative_to(ROOT) / recipe)]
    call("faithfulness", "--model", *folders, *data, *flags, *output)


def tables() -> str:
    """Two tables with a row for each recipe, form and masking strategy that has been measured under both forms."""
    ways, gaps = [], []
    for recipe in RECIPES:
        files = [folder / recipe / RESULTS_NAME for folder in FOLDERS.values()]
        if not all(file.is_file() for file in files):
            continue
        found = {form: read_blocks(folder / recipe)[1] for form, folder in FOLDERS.items()}
        strategies = dict.fromkeys(strategy for strategy, _, _ in found[FORM])
        for strategy, form in itertools.product(strategies, FOLDERS):
            ours, chance, reference = (found[form][strategy, "model", its] for its in (OURS, CHANCE, REFERENCE))
            about = [TITLES[recipe], strategy, form]
            ways.append([*about, sizes(ours), *(share(ours, chance, reference, m) for m in COMPARED)])
            gaps.append([*about, *(gap(paired(ours, reference, m), MEASURES[m][1]) for m in COMPARED)])
    names, header = [MEASURES[m][0] for m in COMPARED], ["", "masked by", "form"]
    first = markdown([*header, "seeds x samples", *(name.rstrip(" ↑↓") for name in names)], ways)
    return f"{first}\n{markdown([*header, *names], gaps)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=RECIPES, action="append", help="this recipe; may be given several times")
    parser.add_argument("--seed", type=int, action="append", help=f"this seed, likewise; {SEEDS} if not given")
    parser.add_argument("--samples", type=int, default=200, help="evaluation samples of each model (200)")
    parser.add_argument("--report_only", action="store_true", help="write the page from the results that are there")
    options = parser.parse_args()
    for recipe in () if options.report_only else options.only or RECIPES:
        measure(recipe, options.seed or list(SEEDS), options.samples)
    for recipe in RECIPES:
        if (FOLDERS[FORM] / recipe / RESULTS_NAME).is_file():
            write_report(FOLDERS[FORM] / recipe)
    page = FOLDERS[FORM] / "README.md"
    page.parent.mkdir(exist_ok=True)
    page.write_text(HEAD + tables(), encoding="utf-8")
    print(f"written   {page}")


if __name__ == "__main__":
    main()
