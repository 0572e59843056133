"""Write the tables and reports of the recipes' and the study's results: python recipes/report.py

The tables of the recipes go into README.md here, the report of the study into `study/README.md`, the study's main table into
`docs/results.md`, and what it found into the project's README.md. Nothing is trained.
"""

import sys
from pathlib import Path

from atom_hf.errors import AtomError
from atom_hf.experiments.comparison_results import read_comparison
from atom_hf.experiments.differences import Difference, differences
from atom_hf.experiments.study import StudyArguments, run_study
from atom_hf.experiments.study_file import Study
from atom_hf.experiments.study_report import family_table, interval, plot_differences, tables
from atom_hf.utils.jsonl import RESULTS_NAME
from atom_hf.utils.statistics import holm
from atom_hf.utils.tables import fill_block, markdown

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import separation_findings as findings  # noqa: E402

MAIN_METRIC = {"cola": "mcc", "gutenberg": "perplexity"}
# The studies that put the default beside a plain run, on test data; those that do it again where the first spoke for the
# flag; and those that search, or take the method apart.
MAIN_STUDIES = ("digits", "mnist", "cifar10", "gaussians", "text", "cola", "gutenberg")
CONFIRMING = ("confirm_images", "confirm_text")
OTHER_STUDIES = ("arms_images", "search_images")
# The studies of the separation form: one family of comparisons, reported with as many runs as there are so far.
SEPARATION_STUDIES = ("separation_scratch", "separation_pretrained")
TUNING, ABLATIONS, FURTHER = "separation_tuning", "separation_ablations", "separation_further"
PAPER_IMAGES = "paper_images"
NOT_YET = "This has not been run yet.\n"
OVERVIEW = "overview.png"
AGAIN = (
    "Three settings of 300 samples or more spoke for the flag, in accuracy or cross-entropy, before MNIST, CIFAR-10, CoLA and "
    "Gutenberg had run.\n"
    "They were run again with fresh seeds; digits 1,000 and poem 892 use all training rows, so there only initial weights and "
    "order are fresh:"
)
HEAD = """# Recipes

One folder for each recipe: `plain.yaml` and `atom.yaml` differ in one line.
Data sets are named by their Hub id; each file says how to name a local copy instead.

    atom-hf train --config recipes/digits/atom.yaml
    atom-hf compare --config recipes/digits/atom.yaml --seeds 5

The table shows what the flag does, in paired runs on two CPU cores at the size that each recipe states: same seed, samples, initial weights, order and number of steps.
Differences are atom minus plain, with a 95 % t interval over seeds.
A difference whose interval contains 0 is no evidence of a difference.
All recipes but `parity` were run in the paper's form, which they name.
`scaled_loss` is the loss after temperature scaling, and `label probe` the accuracy of a linear probe of the digit where a model was trained on its parity.
[`study/`](study/README.md) is the evidence for the defaults.

"""  # noqa: E501
TAIL = """
`parity/relations.png` is what `make quickstart` writes as `runs/quickstart/parity.relations.png`.
`make pictures` trains the SST-2, verse and digits recipes, fits their importance to the prediction, and remakes `sst2/importance.png`, `verse/importance.png`, `digits/importance.png` and `digits/atoms.png`.

`vit_fashion_mnist/plain.yaml` remakes the ViT that ships with the package; it was run here on 12,000 of the 60,000 images.

To remake the results of a recipe `R`, remove its `results.jsonl` (results of other settings or paths are not added to), and run

    atom-hf compare --config recipes/R/atom.yaml --seeds N --output_dir recipes/R/results
    python recipes/report.py

Without the Hub, name a local copy by `--dataset`, and by `--eval_dataset` if the data has no evaluation split of its own.
"""  # noqa: E501


def recipes_table() -> str:
    """What the flag does to each recipe."""
    rows = []
    for folder in sorted(file.parent for file in HERE.glob(f"*/results/{RESULTS_NAME}")):
        name = folder.parent.name
        _, found = read_comparison(folder)
        wanted = (MAIN_METRIC.get(name, "accuracy"), "loss", "scaled_loss")
        for metric, *cells in found.rows:
            if metric.split()[0] in wanted or metric.endswith(" probe"):
                rows.append([name, str(found.train_samples), str(len(found.seeds)), metric, *cells])
    return markdown(["recipe", "training samples", "seeds", "metric", "plain", "atom", "difference [95 %]"], rows)


def read_studies(names: tuple[str, ...], whole: bool = True) -> dict[str, tuple[Study, list[dict]]]:
    """The studies of these names with their results. Raises `AtomError` for results of other flags.

    Missing results are an error too, unless a study need not be `whole`: then one without any is left out.
    """
    found = {}
    for name in names:
        study, lines, _ = run_study(str(HERE / "study" / f"{name}.yaml"), StudyArguments(report_only=True))
        if not whole and not lines:
            continue
        if whole and len(lines) != runs_of(study):
            runs = runs_of(study)
            raise AtomError(f"study {name} has {len(lines)} of {runs} runs; run it to its end, or give it fewer seeds")
        found[name] = study, lines
    return found


def runs_of(study: Study) -> int:
    """How many runs a study has when it is whole."""
    return study.seeds * len(study.arms) * sum(len(setting.sizes) for setting in study.settings)


def separation(
    studies: dict[str, tuple[Study, list[dict]]], others: dict[str, tuple[Study, list[dict]]]
) -> dict[str, str]:
    """What fills the marks of the notes that are about the separation form."""
    counts = [
        f"{name}.yaml: {len(studies[name][1])} of {runs_of(studies[name][0])} runs"
        if name in studies
        else f"{name}.yaml: none"
        for name in SEPARATION_STUDIES
    ]
    return {
        "separation": f"Runs so far: {'; '.join(counts)}.\n\n{family_table(studies.values())}",
        "ranking": findings.ranking(studies),
        "tuning": findings.tuning(*others[TUNING]) if TUNING in others else NOT_YET,
        "ablations": findings.effects(*others[ABLATIONS]) if ABLATIONS in others else NOT_YET,
        "further": findings.effects(*others[FURTHER]) if FURTHER in others else NOT_YET,
    }


def main_table(main: list[Difference], loss: list[Difference]) -> str:
    """One row a setting and size: the main measure and the cross-entropy."""
    by_key = {(d.setting, d.size): d for d in loss}
    rows = [
        [
            d.setting,
            f"{d.size:,}",
            str(d.seeds),
            d.measure,
            f"{d.first:.3f}" if d.first < 10 else f"{d.first:.1f}",
            interval(d),
            interval(by_key[d.setting, d.size]),
        ]
        for d in main
    ]
    header = ["setting", "samples", "seeds", "measure", "plain", "atom - plain [95 %]", "cross-entropy, atom - plain"]
    return markdown(header, rows)


def verdict(main: list[Difference], loss: list[Difference]) -> str:
    """The main table in sentences."""

    def count(found: list[Difference], sign: int) -> str:
        chosen = [d for d in found if d.verdict == sign]
        corrected = sum(d.holm < 0.05 for d in chosen)
        return f"{len(chosen)} ({corrected} after Holm's correction)"

    worst = [d for d in main if d.verdict < 0]
    named = "; ".join(f"{d.setting}, {d.size:,}: {interval(d)}" for d in worst)
    return (
        f"Of {len(main)} comparisons with a plain run, the flag is better in its main measure (accuracy, MCC or "
        f"perplexity), with a 95 % interval that excludes 0, in {count(main, 1)}, and worse in {count(main, -1)}"
        + (f" ({named})" if worst else "")
        + f".\nIn cross-entropy on the test data it is better in {count(loss, 1)}, and worse in {count(loss, -1)}.\n"
    )


def collect(studies: dict[str, tuple[Study, list[dict]]]) -> tuple[list[Difference], list[Difference]]:
    """All differences of several studies in the main measure and in the loss, corrected together."""
    both = []
    for measure in (None, "loss"):
        found = [d for study, lines in studies.values() for d in differences(study, lines, measure)]
        both.append([d._replace(holm=p) for d, p in zip(found, holm([d.p for d in found]), strict=True)])
    return both[0], both[1]


def section(name: str, study: Study, lines: list[dict]) -> str:
    """One study's part of the report."""
    folder = HERE / "study" / name
    file = HERE / "study" / f"{name}.yaml"
    comments = [line[1:].strip() for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    pictures = [
        f"![{study.title}: {path.stem}]({name}/{path.name})"
        for path in (folder / p for p in ("differences.png", "sizes.png", "latents.png"))
        if path.exists()
    ]
    command = f"    atom-hf study recipes/study/{name}.yaml"
    parts = [f"## {study.title}", " ".join(comments), command, *pictures, tables(study, lines)]
    return "\n\n".join(parts)


def main() -> None:
    (HERE / "README.md").write_text(HEAD + recipes_table() + TAIL, encoding="utf-8")
    main_studies, others = read_studies(MAIN_STUDIES), read_studies(OTHER_STUDIES)
    default, loss = collect(main_studies)
    table, says = main_table(default, loss), verdict(default, loss)
    plot_differences("The paper's form", ["plain", "atom"], default, loss, HERE / "study" / OVERVIEW)

    confirming = read_studies(CONFIRMING)
    confirmed = main_table(*collect(confirming))

    separated = read_studies(SEPARATION_STUDIES, whole=False)
    notes = (HERE / "study" / "notes.md").read_text(encoding="utf-8")
    more = read_studies((TUNING, ABLATIONS, FURTHER, PAPER_IMAGES), whole=False)
    old = {"verdict": says, "table": table, "confirmed": confirmed}
    for mark, text in {**separation(separated, more), **old}.items():
        notes = notes.replace("{{" + mark + "}}", text)
    if "{{" in notes:
        raise AtomError("recipes/study/notes.md has a mark that nothing fills")
    studies = {**separated, **more, **main_studies, **confirming, **others}
    parts = [notes, *(section(name, *found) for name, found in studies.items())]
    (HERE / "study" / "README.md").write_text("\n".join(parts), encoding="utf-8")

    found = f"{findings.headline(separated)}\n([All comparisons](docs/results.md).)"
    fill_block(HERE.parent / "README.md", "results", found)
    page = HERE.parent / "docs" / "results.md"
    fill_block(page, "separation", findings.short_table(separated))
    fill_block(page, "results", f"{says}\n{table}\n{AGAIN}\n\n{confirmed}")


if __name__ == "__main__":
    main()
