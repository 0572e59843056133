"""Editors of images, over seeds: python recipes/manipulation/images.py digits (or fashion --dataset FILE)

Three editors of each seed: trained against the classifier as it is, against a sparring copy tuned on noise, and with the law in
distribution; beside the last a conditional VAE of equal size and steps, over four betas. It writes results/NAME.jsonl (a line a
run; runs that are there are not made again), and NAME.md and NAME.png beside it. With --report_only nothing is trained.
"""

import argparse
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image

from atom_hf.cli.main import main as atom_hf
from atom_hf.finetune.flags import parse_flags
from atom_hf.finetune.pretrained import find_model, read_config
from atom_hf.tasks.manipulation.arguments import ManipulateOptions, ManipulatorArguments
from atom_hf.tasks.manipulation.command import make_manipulator
from atom_hf.utils.jsonl import append_line, read_lines
from atom_hf.utils.tables import markdown

HERE = Path(__file__).parent
RUNS = Path("runs", "manipulation")
SEEDS = 3
ARMS = {
    "against the classifier": "--sigma 0 --weights 1 10 10 0",
    "against a noise-tuned copy": "--weights 1 10 10 0",
    "against a noise-tuned copy, with the law": "--weights 1 10 10 {law} --compare true",
}
LAST = list(ARMS)[-1]
DATA = {
    "digits": {
        "classifier": f"{RUNS / 'digits-classifier'}:f",
        "flags": "--dataset digits --max_steps 1500 --per_device_train_batch_size 64",
        # The energy distance grows with the square root of the number of pixels, and the other laws are means over them.
        "law": "1",
        "about": "Handwritten digits of 8 x 8 pixels. The classifier is a small convolutional network "
        "([supervised.yaml](../tasks/supervised.yaml)), trained on the same 1,000 rows as the editor. Of 797 others, half "
        "teach the judge, a support vector machine, and half are edited to the nine other classes. Steps and the weight of "
        "the law in distribution were chosen with another seed, on the same rows.",
    },
    "fashion": {
        "classifier": "vit-fashion-mnist",
        "flags": "--dataset zalando-datasets/fashion_mnist --max_train_samples 6000 --max_eval_samples 2000 "
        "--max_steps 400 --edit_rows 200",
        "law": "0.3",
        "about": "Clothes of 28 x 28 pixels, 6,000 training rows. The classifier is the built-in ViT, which was pretrained on "
        "all training rows. Of 2,000 evaluation rows, half teach the judge, a support vector machine, and 200 of the others "
        "are edited to the nine other classes.",
    },
}
MEASURES = ("success_classifier", "judge", "gap", "identity", "undo", "undo_after_noise", "move", "energy")
HEAD = """# {title}

{about}

    python recipes/manipulation/images.py {name}{more}
    python recipes/manipulation/images.py {name} --report_only    # writes this page again from the results

![Originals, their edits to every class, an edit undone, and what it changed]({name}.png)

The weights of the laws are 1, 10 and 10, and that of the law in distribution {law}.
Means over seeds, with the least and the largest in brackets.
*Classifier* and *judge* are the shares of edits that the given classifier and the judge read as their class.
The judge reads the class of {judge:.3f} of the rows themselves.
*Gap* is the share that the classifier that was trained against reads, minus the judge's.
*Identity*, *undo* and *move* are root mean squares of a pixel: of a row whose own class is written, of an edit that is undone
(also after noise of 0.05 was added to the edit), and of an edit itself.
*Energy* is the energy distance of edits to rows of their class; other rows of the class have {floor:.3f}.

{table}
{sizes}

The probability of the class rises with every strength from 0 to 1 in {rising:.1%} of the edits.

## Edits and importance

Of the quarter of the patches that an edit changes most, {agreement:.3f} are among the quarter whose hiding lowers the
probability of the row's class most; by chance it would be {chance:.3f}.
"""


def named_copy(file: str) -> tuple[str, str]:
    """A local copy of Fashion-MNIST in Keras' layout (.npz), as two files with the names of the classes.

    (Its labels are numbers, and a classifier is not taken for data of other classes.)
    """
    values, names = np.load(file), read_config(find_model("vit-fashion-mnist"), {}).id2label
    paths = []
    for part in ("train", "test"):
        pictures = [Image.fromarray(pixels) for pixels in values[f"x_{part}"]]
        labels = [names[int(label)] for label in values[f"y_{part}"]]
        features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
        path = RUNS / f"fashion-{part}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_dict({"image": pictures, "label": labels}, features=features).to_parquet(path)
        paths.append(str(path))
    return paths[0], paths[1]


def run(name: str, seed: int, arm: str, more: list[str]) -> dict[str, Any]:
    """What one editor reaches."""
    folder = RUNS / f"{name}-{list(ARMS).index(arm)}-{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    about = DATA[name]
    flags = f"--classifier {about['classifier']} {about['flags']} {ARMS[arm].format(law=about['law'])} --seed {seed} "
    flags += f"--report_to none --save_strategy no --output_dir {folder}"
    options, args = parse_flags("manipulate", [*flags.split(), *more], [ManipulateOptions, ManipulatorArguments])
    options.check()
    found = make_manipulator(options, args).metrics
    if (seed, arm) == (0, LAST):
        shutil.copy(folder / "edits.png", HERE / f"{name}.png")
    return {"seed": seed, "arm": arm, **found}


def report(name: str, rows: list[dict[str, Any]]) -> str:
    """The page."""

    def cell(found: list[dict[str, Any]], key: str) -> str:
        values = [one[key] for one in found if key in one]
        between = f" [{min(values):.3f}, {max(values):.3f}]" if len(values) > 1 else ""
        return f"{sum(values) / len(values):.3f}{between}" if values else ""

    def line(says: str, found: list[dict[str, Any]]) -> list[str]:
        return [says, str(len(found)), *(cell(found, key) for key in MEASURES)]

    header = ["editor", "seeds", "classifier", "judge", "gap", "identity", "undo", "undo after noise", "move", "energy"]
    arms = {arm: [row for row in rows if row["arm"] == arm] for arm in ARMS}
    lines = [line(arm, found) for arm, found in arms.items() if found]
    last, equals = arms[LAST], "conditional VAE, at equal judge"
    compared = [name for name in last[0]["compared"] if name != equals]
    lines += [line(name, [row["compared"][name] for row in last]) for name in compared]
    equal = [row["compared"][equals] for row in last if equals in row["compared"]]
    sizes = (
        f"The editor has {last[0]['parameters']:,} parameters and the conditional VAE {last[0]['vae_parameters']:,}."
    )
    if equal:
        lines.append(line(equals, equal))
        sizes += " The last row is interpolated between two betas, to the judge's share of each seed's last editor."
    else:
        sizes += (
            " No two betas are around the last editor's share of the judge, so that there is no row at equal judge."
        )

    def mean(*path: str) -> float:
        values = list(last)
        for key in path:
            values = [value[key] for value in values]
        return sum(values) / len(values)

    return HEAD.format(
        title=f"A classifier of {'digits' if name == 'digits' else 'clothes'} as an editor",
        about=DATA[name]["about"],
        name=name,
        more="" if name == "digits" else " --dataset FILE",
        law=DATA[name]["law"],
        judge=mean("judge_accuracy"),
        floor=mean("energy_of_data"),
        table=markdown(header, lines),
        sizes=sizes,
        rising=mean("interpolation"),
        agreement=mean("agreement", "agreement"),
        chance=mean("agreement", "chance"),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=DATA)
    parser.add_argument("--dataset", help="a local copy of the data, in place of the Hub's")
    parser.add_argument("--report_only", action="store_true")
    given, more = parser.parse_known_args()
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    file = HERE / "results" / f"{given.name}.jsonl"
    file.parent.mkdir(exist_ok=True)
    rows = read_lines(file) if file.exists() else []
    if not given.report_only:
        classifier = RUNS / "digits-classifier"
        if given.name == "digits" and not (classifier / "model.safetensors").exists():
            status = atom_hf(
                ["task", str(HERE.parent / "tasks" / "supervised.yaml"), "--train", "--output_dir", str(classifier)]
            )
            if status:
                raise SystemExit(status)
        if given.dataset and given.dataset.endswith(".npz"):
            train, test = named_copy(given.dataset)
            more += ["--dataset", train, "--eval_dataset", test]
        elif given.dataset:
            more += ["--dataset", given.dataset]
        for arm in reversed(ARMS):
            for seed in range(SEEDS):
                if not any((row["seed"], row["arm"]) == (seed, arm) for row in rows):
                    row = run(given.name, seed, arm, more)
                    append_line(file, row)
                    rows.append(json.loads(json.dumps(row)))
    page = HERE / f"{given.name}.md"
    page.write_text(report(given.name, rows), encoding="utf-8")
    print(f"written   {page}")


if __name__ == "__main__":
    main()
