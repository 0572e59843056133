"""An editor of shapes whose factors are known, over seeds: python recipes/manipulation/shapes.py

Squares, discs and triangles of any position, size and shade, and a classifier of the shape. What edits keep of the factors is
read by a network that nobody trained against. It writes results/shapes.jsonl (a line an editor; seeds that are there are not
made again), shapes.md and shapes.png beside it. With --report_only nothing is trained.
"""

import argparse
import json
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from drawn_shapes import FACTORS, HIGH, LOW, NAMES, SIDE, draw_factors, render
from torch import Tensor

from atom_hf.tasks import manipulate, read_task
from atom_hf.tasks.kinds import Kind
from atom_hf.tasks.manipulation.arguments import ManipulatorArguments
from atom_hf.tasks.manipulation.baselines import vae_editors
from atom_hf.tasks.manipulation.classifier import Classifier
from atom_hf.tasks.manipulation.equations import judge_task
from atom_hf.tasks.manipulation.evaluation import Editor, Edits, edit_all, editor_of, measure, read_rows
from atom_hf.tasks.manipulation.fitting import fit
from atom_hf.tasks.manipulation.judge import make_judge
from atom_hf.tasks.manipulation.report import edits_figure, shown_rows
from atom_hf.tasks.manipulation.rows import LabelledRows
from atom_hf.tasks.manipulation.sparring import accuracy, read_classes
from atom_hf.tasks.rows import Column, TaskRows
from atom_hf.utils.jsonl import append_line, read_lines
from atom_hf.utils.tables import markdown

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "shapes.jsonl"
SEEDS, STEPS, BATCH, EXAMPLES = 3, 1500, 64, 9
ROWS = {"train": 4000, "judge": 3000, "test": 400}
CLASSIFIER, JUDGE, READER = "conv(16, 32)", "svm", "conv(32, 64)"
CLASSIFIER_STEPS, READER_STEPS, RATE = 600, 1000, 2e-3
ARMS = {
    "the laws alone": (1, 10, 10, 0),
    "with the law in distribution": (1, 10, 10, 3),
}
LAST, UNEDITED = list(ARMS)[-1], "unedited"
KIND = Kind("pixels", (1, SIDE, SIDE))
READ = f"""
type datum = {KIND}, factors = vector({len(FACTORS)})
data D : datum, factors
learner f : datum -> factors
for x, z in D:
    fit: f(x) == z
"""
HEAD = """# A classifier of shapes as an editor, where the factors are known

    python recipes/manipulation/shapes.py                  # trains, and writes this page
    python recipes/manipulation/shapes.py --report_only    # writes this page again from the results

Squares, discs and triangles of {side} x {side} pixels, whose position, size and shade are drawn independently of the shape.
A small convolutional network reads the shape of {classifier:.3f} of {test} test images, and the editor turns each of them into
the two other shapes; {steps:,} steps of {batch} rows.
The weights of the laws are 1, 10 and 10, and that of the law in distribution is 3: of 3 and 10 the one that the judge read more
of on a seed that is not reported.

![Originals, their edits to every shape, an edit undone, and what it changed](shapes.png)

*Judge* is the share of edits that a support vector machine, of other rows, reads as their shape (of the images themselves
{judge:.3f}).
*Identity*, *undo* and *move* are root mean squares of a pixel: of an image whose own shape is written, of an edit that is
undone, and of an edit itself.
*Energy* is the energy distance of edits to images of their shape; other images of the shape have {floor:.3f}.
{seeds}

{table}
{sizes}

## What is kept

A network that learned the factors from the judge's rows reads them from edits, and what it reads is compared with the factors
of the image that was edited: R² is 1 where a factor is kept exactly, and 0 or less where the mean of all images would be as
near.
*Size, as a function* is the squared correlation of the size before and after, for each pair of shapes: 1 where an edit's size
is a linear function of the image's, though it may be another size.
Size is half the side of the square around a shape, so that a disc of the same size covers less than a square.
The line of unedited images says what the network can read; an edit that does not look like its shape changed less, and what is
read from it means less.

{kept}
{says}
"""


class Shapes:
    """Images with their shapes and factors; `part`: one of train, judge and test, which are drawn apart."""

    def __init__(self, seed: int, part: str):
        shapes, factors = draw_factors(ROWS[part], [seed, list(ROWS).index(part)])
        self.rows = LabelledRows(torch.as_tensor(render(shapes, factors)), torch.as_tensor(shapes))
        self.factors = torch.as_tensor(factors, dtype=torch.float32)


def factor_reader(shapes: Shapes, args: ManipulatorArguments) -> Callable[[Tensor], Tensor]:
    """A network that learned the factors of images, from images [N, 1, h, w] to factors [N, 4]."""
    low, high = (torch.as_tensor(one, dtype=torch.float32) for one in (LOW, HIGH))
    scaled = (shapes.factors - low) / (high - low)
    rows = TaskRows({"D": [Column(shapes.rows.values), Column(scaled)]}, args.seed)
    module = fit(read_task(READ), {"f": READER}, rows, args, READER_STEPS, RATE).boxes["f"].cpu().eval()

    @torch.no_grad()
    def read(values: Tensor) -> Tensor:
        return torch.cat([module(some) for some in values.split(512)]) * (high - low) + low

    return read


def kept_factors(before: Tensor, after: Tensor, pairs: Tensor) -> dict[str, float]:
    """What edits keep.

    Args:
        before, after: factors [M, 4] of the images that were edited, and as they are read from the edits.
        pairs: [M] a number for each pair of shapes, before and after.

    Returns:
        R² of each factor, 1 - its squared error over its variance; and size_as_function, the squared correlation of the size
        before and after within a pair of shapes, the mean over pairs.
    """
    spread = (before - before.mean(0)).square().sum(0)
    found = dict(zip(FACTORS, (1 - (after - before).square().sum(0) / spread).tolist(), strict=True))
    size, squares = FACTORS.index("size"), []
    for pair in pairs.unique():
        sizes = torch.stack([before[pairs == pair, size], after[pairs == pair, size]])
        squares.append(float(torch.corrcoef(sizes)[0, 1].nan_to_num() ** 2))
    return found | {"size_as_function": float(np.mean(squares))}


def run(seed: int, more: dict[str, Any]) -> list[dict[str, Any]]:
    """What the editors of one seed reach, and conditional VAEs of the size of the last one."""
    train, judging, test = (Shapes(seed, part) for part in ROWS)
    own, held_out = (train.rows.take(part) for part in reversed(train.rows.split(0.1, seed)))
    with tempfile.TemporaryDirectory() as folder:

        def arguments(name: str) -> ManipulatorArguments:
            options = {"save_strategy": "no", "report_to": "none", "seed": seed, "logging_steps": 200}
            sizes = {"max_steps": STEPS, "per_device_train_batch_size": BATCH}
            return ManipulatorArguments(f"{folder}/{name}", **options, **sizes, **more).with_rate("pixels")

        task = judge_task(KIND, len(NAMES))
        module = fit(task, {"f": CLASSIFIER}, own, arguments("get"), CLASSIFIER_STEPS, RATE).boxes["f"].cpu().eval()
        classifier = Classifier(module, {"architecture": CLASSIFIER}, list(NAMES))
        judge = make_judge(JUDGE, judging.rows, list(NAMES), arguments("judge"))
        reader = factor_reader(judging, arguments("reader"))
        about = {"seed": seed, "test": len(test.rows), "classifier": accuracy(module, test.rows)}
        about["judge_accuracy"] = judge.accuracy(test.rows)

        def factors(edits: Edits) -> dict[str, float]:
            pairs = test.rows.labels[edits.source] * len(NAMES) + edits.to
            return kept_factors(test.factors[edits.source], reader(edits.values), pairs)

        def measured(editor: Editor, own: Tensor) -> dict[str, Any]:
            edits = edit_all(editor, test.rows, own, len(NAMES))
            found = measure(editor, test.rows, own, edits, judge, judging.rows, seed)
            success = float((read_classes(module, edits.values) == edits.to).float().mean())
            found = {key: value for key, value in found.items() if isinstance(value, float)}
            return {**about, **found, "success_classifier": success, "kept": factors(edits)}

        rows = []
        args = arguments("editor")  # one folder: its sparring copy is made once
        for arm, weights in ARMS.items():
            made = manipulate(classifier, own, held_out, weights=weights, args=args).cpu()
            classes = read_rows(made, test.rows)
            size = sum(parameter.numel() for parameter in made.put.parameters())
            rows.append({"editor": arm, "parameters": size, **measured(editor_of(made), classes)})
        if seed == 0:
            shown = test.rows.take(shown_rows(test.rows, EXAMPLES))
            (HERE / "shapes.png").write_bytes(edits_figure(made, shown).png)
        for beta, (editor, size) in vae_editors(made, own, args).items():
            name = f"conditional VAE, beta {beta:.3g}"
            rows.append({"editor": name, "parameters": size, **measured(editor, classes)})
        as_they_are = Edits(torch.arange(len(test.rows)), test.rows.labels, test.rows.values)
        rows.append({"editor": UNEDITED, **about, "kept": factors(as_they_are)})
    return rows


def report(rows: list[dict[str, Any]]) -> str:
    """The page."""
    from embeddings import cell, over

    names = list(dict.fromkeys(row["editor"] for row in rows))
    of = {name: [row for row in rows if row["editor"] == name] for name in names}
    last, first = of[LAST], rows[0]

    def mean(found: list[dict[str, Any]], key: str) -> float:
        return sum(row[key] for row in found) / len(found)

    measures = ("success_classifier", "judge", "identity", "undo", "move", "energy")
    header = ["editor", "seeds", "classifier", *measures[1:]]
    table = [
        [name, str(len(of[name])), *(cell(of[name], key) for key in measures)] for name in names if name != UNEDITED
    ]
    kept = {name: [row["kept"] for row in found] for name, found in of.items()}
    columns = [*FACTORS, "size_as_function"]
    vaes = [name for name in names if name not in (*ARMS, UNEDITED)]
    # The conditional VAE that is most like the editor by the judge, and the best one.
    near = min(vaes, key=lambda name: distance(of[name], last))
    best = max(vaes, key=lambda name: mean(of[name], "judge"))
    success, judged = mean(last, "success_classifier"), mean(last, "judge")
    sizes = (
        f"The editor has {last[0]['parameters']:,} parameters and the conditional VAE {of[near][0]['parameters']:,}.\n"
        f"The classifier reads {success:.3f} of the edits of the last editor as their shape, and the judge {judged:.3f}:\n"
        "the difference is edits that this classifier takes for the shape and another reader does not."
    )
    says = [
        f"The R² of *{name}* are {', '.join(f'{mean(kept[name], key):.2f} ({key})' for key in FACTORS)}."
        for name in dict.fromkeys((LAST, near, best))
    ]
    says[1] += (
        f"\nIt is the conditional VAE whose edits the judge reads most nearly as often: {mean(of[near], 'judge'):.3f} of them, "
        f"beside {judged:.3f}."
    )
    if best != near:
        says[2] += f"\nOf its edits the judge reads the most: {mean(of[best], 'judge'):.3f}."
    lost = [key for key in FACTORS if mean(kept[LAST], key) < 0.9]
    says.append(f"Not kept by the editor, with an R² below 0.9: {', '.join(lost)}." if lost else "All are above 0.9.")
    return HEAD.format(
        side=SIDE,
        classifier=mean(last, "classifier"),
        test=first["test"],
        steps=STEPS,
        batch=BATCH,
        judge=mean(last, "judge_accuracy"),
        floor=mean(last, "energy_of_data"),
        seeds=over(len(last)),
        table=markdown(header, table),
        sizes=sizes,
        kept=markdown(
            ["editor", *FACTORS, "size, as a function"],
            [[name, *(cell(kept[name], key) for key in columns)] for name in names],
        ),
        says="\n".join(says),
    )


def distance(found: list[dict[str, Any]], last: list[dict[str, Any]]) -> float:
    """How far the judge's shares of two editors are apart, as means over seeds."""
    return abs(float(np.mean([row["judge"] for row in found]) - np.mean([row["judge"] for row in last])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report_only", action="store_true")
    parser.add_argument("--use_cpu", action="store_true")
    given = parser.parse_args()
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    RESULTS.parent.mkdir(exist_ok=True)
    rows = read_lines(RESULTS)
    for seed in range(0 if given.report_only else SEEDS):
        if not any((row["seed"], row["editor"]) == (seed, UNEDITED) for row in rows):
            for row in run(seed, {"use_cpu": given.use_cpu}):
                append_line(RESULTS, row)
                rows.append(json.loads(json.dumps(row)))
    page = HERE / "shapes.md"
    page.write_text(report(rows), encoding="utf-8")
    print(f"written   {page}")


if __name__ == "__main__":
    main()
