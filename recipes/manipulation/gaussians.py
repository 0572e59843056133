"""Editors where the truth is known: python recipes/manipulation/gaussians.py

Rows of two classes, each normal, and their exact posterior as the classifier. What the laws of an editor fix, and what the law
in distribution adds. It writes results/gaussians.jsonl (a line a run; runs that are there are not made again), gaussians.md
and gaussians.png beside it. With --report_only nothing is trained.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from atom_hf.tasks import TaskArguments, TaskModel, TaskTrainer, read_task
from atom_hf.tasks.laws import energy_distance
from atom_hf.tasks.manipulation.rows import LabelledRows
from atom_hf.tasks.rows import collate
from atom_hf.utils.jsonl import append_line, read_lines
from atom_hf.utils.tables import markdown
from atom_hf.visualization.figures import new_figure, save_figure

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "gaussians.jsonl"
SEEDS, STEPS, BATCH, ROWS, TEST = 3, 2500, 256, 20_000, 4000
MEANS = torch.tensor([[-2.0, 0.0], [2.0, 0.0]])
DRAWN = 250  # rows that the picture shows
DECLARATIONS = """
type datum = vector(2), label = class(2), truth = logit
data D : datum, label
noise A : label = marginal(D.2)
const one : truth = 1
const zero : truth = 0
fixed get : datum -> label
learner put : datum, label -> datum
"""
LAWS = """    putget: get(put(x, a)) == a
    getput: put(x, hard(get(x))) == x
    undo: put(put(x, a), hard(get(x))) == x
"""
LAW = "    law{weight}: (put(x, a), a) ~ (x, y)\n"
WEIGHT = 10  # beside the others: cross-entropy never saturates, and pulls edits outwards
GAN = """    real: dis(x, y) == one trains dis
    fake: dis(put(x, a), a) == zero trains dis
    fool: dis(put(x, a), a) == one trains put
"""
OVER = "for x, y in D; a in A:\n"
DISCRIMINATOR = "learner dis : datum, label -> truth\n"
ARMS = {
    "the laws alone": DECLARATIONS + OVER + LAWS,
    "and the law in distribution": DECLARATIONS + OVER + LAWS + LAW.format(weight=f" {WEIGHT}"),
    "and a discriminator on pairs": DECLARATIONS + DISCRIMINATOR + OVER + LAWS + GAN,
    "the law in distribution alone": DECLARATIONS + OVER + LAW.format(weight=""),
}
HEAD = """# Editors where the truth is known

    python recipes/manipulation/gaussians.py                  # trains, and writes this page
    python recipes/manipulation/gaussians.py --report_only    # writes this page again from the results

Two classes of points of the plane, normal around (-2, 0) and (2, 0) with unit variance, and equally frequent.
The classifier is their exact posterior; the editor trains for {steps:,} steps of {batch} rows.
Beside the others the law in distribution weighs {weight}, which was chosen with another seed.
*Energy* is the energy distance of edits to rows of their class (two other draws of rows have {floor:.4f}), *log-odds* the mean
log-odds of the class that was written (of the rows themselves {odds:.2f}), *spread* the standard deviation of edits along the
axis between the classes (of the rows 1).
Identity and undo are root mean squares of a coordinate.
Means over seeds, with the least and the largest in brackets.

{table}

![Rows and their edits](gaussians.png)

The laws of an editor are kept by many editors, and nothing in them makes edits a sample of the other class: by them alone the
energy distance is {ratio:.1f} times that with the law in distribution, and {gan:.1f} times that with a discriminator on pairs.
The law is what asks for Bayes' rule: (put(x, a), a) distributed as (x, y), for x of all classes, means that what is written as
a class is distributed as the class.
A discriminator on pairs, as in a conditional GAN, is the same law learned.
Alone, the law asks for no edit in particular: a row whose own class is written need not stay as it is, and the rows of both
classes together are to give the class, so that those of the other one may fill a part of it (last picture).
"""


class Posterior(nn.Module):
    """The exact log-densities of the classes, up to a constant: [B, 2] of points [B, 2]."""

    def __init__(self) -> None:
        super().__init__()
        self.means = nn.Parameter(MEANS.clone())

    def forward(self, points: Tensor) -> Tensor:
        return -torch.cdist(points, self.means).square() / 2


def draw(count: int, seed: int) -> LabelledRows:
    """Points with their classes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (count,), generator=generator)
    return LabelledRows(MEANS[labels] + torch.randn(count, 2, generator=generator), labels)


def train(text: str, seed: int, use_cpu: bool) -> nn.Module:
    """The editor of a task."""
    torch.manual_seed(seed)
    boxes: dict[str, Any] = {"get": Posterior(), "put": "mlp(64, 64)"}
    spec = read_task(text)
    if "dis" in spec.learners:
        boxes["dis"] = "mlp(64, 64)"
    with tempfile.TemporaryDirectory() as folder:
        args = TaskArguments(
            folder,
            max_steps=STEPS,
            per_device_train_batch_size=BATCH,
            learning_rate=2e-3,
            lr_scheduler_type="cosine",
            warmup_steps=0.3,
            save_strategy="no",
            report_to="none",
            logging_steps=500,
            seed=seed,
            use_cpu=use_cpu,
        )
        rows = draw(ROWS, seed).as_task_rows(seed)
        model = TaskModel(spec, boxes)
        TaskTrainer(model, args, train_dataset=rows, data_collator=collate).train()
    return model.boxes["put"].cpu().eval()


@torch.no_grad()
def measure(put: nn.Module, seed: int) -> dict[str, Any]:
    """What an editor reaches on rows of its own."""
    get, rows, others = Posterior(), draw(TEST, 1000 + seed), draw(TEST, 2000 + seed)
    values, hot = rows.values, torch.eye(2)
    own = get(values).argmax(1)
    to = 1 - rows.labels
    edited = put(values, hot[to])
    odds = get(edited).diff(dim=1)[:, 0] * (2 * to - 1)
    real_odds = get(values).diff(dim=1)[:, 0] * (2 * rows.labels - 1)

    def energy(some: Tensor, labels: Tensor) -> float:
        found = [energy_distance([some[labels == c][:1500]], [others.of_class(c)[:1500]], "energy") for c in (0, 1)]
        return float(sum(found) / 2)

    return {
        "putget": float((get(edited).argmax(1) == to).float().mean()),
        "identity": float((put(values, hot[own]) - values).square().mean().sqrt()),
        "undo": float((put(edited, hot[own]) - values).square().mean().sqrt()),
        "energy": energy(edited, to),
        "energy_of_data": energy(values, rows.labels),
        "log_odds": float(odds.mean()),
        "log_odds_of_data": float(real_odds.mean()),
        "spread": float(torch.stack([edited[to == c][:, 0].std() for c in (0, 1)]).mean()),
        "shown": [values[:DRAWN].tolist(), rows.labels[:DRAWN].tolist(), edited[:DRAWN].tolist()]
        if seed == 0
        else None,
    }


def report(rows: list[dict[str, Any]]) -> str:
    """The page."""
    names = ("putget", "identity", "undo", "energy", "log_odds", "spread")
    lines, energies = [], {}
    for arm in ARMS:
        found = [row for row in rows if row["arm"] == arm]
        if not found:
            continue
        cells = [str(len(found))]
        energies[arm] = sum(row["energy"] for row in found) / len(found)
        for name in names:
            values, digits = [row[name] for row in found], 4 if name == "energy" else 3
            mean = sum(values) / len(values)
            between = f" [{min(values):.{digits}f}, {max(values):.{digits}f}]" if len(values) > 1 else ""
            cells.append(f"{mean:.{digits}f}{between}")
        lines.append([arm, *cells])
    return HEAD.format(
        steps=STEPS,
        batch=BATCH,
        weight=WEIGHT,
        floor=sum(row["energy_of_data"] for row in rows) / len(rows),
        odds=sum(row["log_odds_of_data"] for row in rows) / len(rows),
        ratio=energies["the laws alone"] / energies["and the law in distribution"],
        gan=energies["the laws alone"] / energies["and a discriminator on pairs"],
        table=markdown(["trained by", "seeds", "PutGet", "identity", "undo", "energy", "log-odds", "spread"], lines),
    )


def picture(rows: list[dict[str, Any]], path: Path) -> Path:
    """Rows of one class, and their edits to the other, by each editor."""
    drawn = [row for row in rows if row["seed"] == 0]
    figure, axes = new_figure(3.3 * len(drawn), 3.6, 1, len(drawn), sharex=True, sharey=True)
    for axis, row in zip(axes[0], drawn, strict=True):
        values, labels, edited = map(torch.tensor, row["shown"])
        mine = labels == 0
        real = values[~mine]
        axis.scatter(
            *real.T, s=12, marker="s", color="#1f6fb4", alpha=0.5, linewidths=0, label="rows of the other class"
        )
        for before, after in zip(values[mine][:40].tolist(), edited[mine][:40].tolist(), strict=True):
            axis.plot(*zip(before, after, strict=True), color="#999999", linewidth=0.5, zorder=0)
        axis.scatter(*values[mine].T, s=12, color="#777777", alpha=0.5, linewidths=0, label="rows")
        axis.scatter(*edited[mine].T, s=14, marker="^", color="#c44e00", alpha=0.8, linewidths=0, label="their edits")
        axis.set_title(row["arm"], fontsize=10)
        axis.set_aspect("equal")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return save_figure(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report_only", action="store_true")
    parser.add_argument("--use_cpu", action="store_true")
    given = parser.parse_args()
    RESULTS.parent.mkdir(exist_ok=True)
    rows = read_lines(RESULTS)
    for seed in range(0 if given.report_only else SEEDS):
        for arm, text in ARMS.items():
            if not any((row["seed"], row["arm"]) == (seed, arm) for row in rows):
                row = {"seed": seed, "arm": arm, **measure(train(text, seed, given.use_cpu), seed)}
                append_line(RESULTS, row)
                rows.append(row)
    page = HERE / "gaussians.md"
    page.write_text(report(rows), encoding="utf-8")
    print(f"written   {page}\nwritten   {picture(rows, HERE / 'gaussians.png')}")


if __name__ == "__main__":
    main()
