"""Editors of sentence embeddings, over seeds: python recipes/manipulation/embeddings.py [--dataset FILE --eval_dataset FILE]

Sentences of SST-2 by their MiniLM embeddings, which a small network classifies. One half of the training rows trains it and its
editors, the other half the judge; the validation rows are edited. It writes results/embeddings.jsonl (a line a run; runs that
are there are not made again), embeddings.md and embeddings.png beside it. With --report_only nothing is trained.
"""

import argparse
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm
from transformers import AutoModel, AutoTokenizer

from atom_hf.data.load import load_data
from atom_hf.finetune.pretrained import find_model
from atom_hf.tasks import evaluate_manipulator, manipulate
from atom_hf.tasks.manipulation.arguments import ManipulatorArguments
from atom_hf.tasks.manipulation.baselines import mean_difference_editor
from atom_hf.tasks.manipulation.classifier import Classifier
from atom_hf.tasks.manipulation.equations import judge_task
from atom_hf.tasks.manipulation.evaluation import Editor, edit_all, editor_of, measure, read_rows
from atom_hf.tasks.manipulation.fitting import fit
from atom_hf.tasks.manipulation.judge import make_judge
from atom_hf.tasks.manipulation.report import nearest, shown_rows
from atom_hf.tasks.manipulation.rows import LabelledRows
from atom_hf.tasks.manipulation.sparring import accuracy
from atom_hf.utils.jsonl import append_line, read_lines
from atom_hf.utils.tables import markdown
from atom_hf.visualization.figures import new_figure, save_figure

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "embeddings.jsonl"
EMBEDDED = Path("runs", "manipulation", "sst2-embeddings.npz")
SEEDS, STEPS, EXAMPLES = 3, 600, 8
HUB, NETWORK = "SetFit/sst2", "mlp(64)"
ARMS = {
    "against the classifier as it is": {"sigma": 0, "weights": (1, 1, 1, 0)},
    "noise-tuned": {"weights": (1, 1, 1, 0)},
    "noise-tuned, with law": {"weights": (1, 1, 1, 0.3)},
}
LAST, VECTOR = list(ARMS)[-1], "mean-difference vector"
HEAD = """# Sentences turned from one sentiment into the other, as embeddings

    python recipes/manipulation/embeddings.py --dataset TRAIN --eval_dataset DEV    # SST-2; without, from the Hub
    python recipes/manipulation/embeddings.py --report_only                         # writes this page again from the results

Sentences of SST-2 by their embeddings of MiniLM (`minilm`), {size} numbers each, and a network of one hidden layer that reads
their sentiment ({classifier:.3f} of the {test} validation sentences right).
One half of the training sentences trains it and the editors, the other half the judge, a logistic regression ({judge:.3f}
right).
The validation sentences are edited to the other sentiment.
*Cosine* is that of an edit and its sentence; *energy* the energy distance of edits to sentences of their class (other sentences
of the class have {floor:.4f}).
*Identity* and *undo* are distances as shares of the distance between two sentences (root mean squares).
{seeds}

{table}

![Sentences and their edits on two axes](embeddings.png)

## What an edit means

The first sentences of each class, and the validation sentence whose embedding is nearest to the edited one (seed 0, with the
law).
No sentence is written: an embedding has no decoder here.

{examples}
"""


def embed(texts: Sequence[str]) -> Tensor:
    """The mean over tokens of MiniLM's last hidden states, [N, 384]."""
    folder = find_model("minilm")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    order, found = np.argsort([len(text) for text in texts]), [Tensor()] * len(texts)
    for start in tqdm(range(0, len(texts), 64), desc="embedding", unit="batch"):
        some = order[start : start + 64]
        encoded = tokenizer([texts[i] for i in some], padding=True, truncation=True, max_length=64, return_tensors="pt")
        with torch.no_grad():
            states = model(**encoded).last_hidden_state
        mask = encoded["attention_mask"][..., None]
        for place, vector in zip(some, (states * mask).sum(1) / mask.sum(1), strict=True):
            found[place] = vector
    return F.normalize(torch.stack(found), dim=1)


def embedded(dataset: str, eval_dataset: str | None) -> tuple[LabelledRows, LabelledRows, list[str]]:
    """Training rows, validation rows, and the texts of the latter; embedded once."""
    column = "label_text" if dataset == HUB else None
    data = load_data(dataset, eval_dataset=eval_dataset, label_column=column)
    if not EMBEDDED.exists():
        EMBEDDED.parent.mkdir(parents=True, exist_ok=True)
        np.savez(EMBEDDED, train=embed(data.train["text"]).numpy(), eval=embed(data.eval["text"]).numpy())
    values = np.load(EMBEDDED)
    rows = [
        LabelledRows(torch.as_tensor(values[name]), torch.tensor(part["label"]))
        for name, part in (("train", data.train), ("eval", data.eval))
    ]
    return rows[0], rows[1], list(data.eval["text"])


def run(seed: int, arms: list[str], parts: Sequence[Any], more: dict[str, Any]) -> list[dict[str, Any]]:
    """What the editors of one seed reach."""
    train, test, texts = parts
    own, judge = map(train.take, train.split(0.5, seed))
    own, held_out = (own.take(part) for part in reversed(own.split(0.15, seed)))
    kind, labels, rows = train.kind, ["negative", "positive"], []
    with tempfile.TemporaryDirectory() as folder:

        def arguments(name: str) -> ManipulatorArguments:
            options = {
                "max_steps": STEPS,
                "logging_steps": 200,
                "save_strategy": "no",
                "report_to": "none",
                "seed": seed,
            }
            return ManipulatorArguments(f"{folder}/{name}", **options, **more).with_rate("vector")

        module = fit(judge_task(kind, 2), {"f": NETWORK}, own, arguments("get"), 300, 2e-3).boxes["f"].cpu()
        classifier = Classifier(module, {"architecture": NETWORK}, labels)
        judging = make_judge("linear", judge, labels, arguments("judge"))
        about = {"seed": seed, "classifier": accuracy(module, test), "test": len(test)}
        scale = float((test.values[:-1] - test.values[1:]).square().mean().sqrt())
        for number, arm in enumerate(arms):
            if arm == VECTOR:
                editor, found, classes = mean_difference_editor(own, 2), {}, module(test.values).argmax(1)
            else:
                made = manipulate(classifier, own, held_out, args=arguments(str(number)), **ARMS[arm])
                found = evaluate_manipulator(made.cpu(), test, judge, classifier=module, most=len(test))
                editor, classes = editor_of(made), read_rows(made, test)
            rows.append({**about, "arm": arm, **found, **more_measures(editor, test, classes, judging, judge, scale)})
            if (seed, arm) == (0, LAST):
                edits = edit_all(editor, test, classes, 2)
                rows[-1]["examples"] = examples(edits.values, test, texts)
                picture(edits.values, test, HERE / "embeddings.png")
    return rows


def more_measures(
    editor: Editor, test: LabelledRows, own: Tensor, judging: Any, judge: LabelledRows, scale: float
) -> dict[str, float]:
    """What all editors are compared by; identity and undo as shares of the distance between two sentences."""
    edits = edit_all(editor, test, own, 2)
    found = measure(editor, test, own, edits, judging, judge)
    return {
        **{name: found[name] for name in ("judge", "energy", "energy_of_data")},
        **{name: found[name] / scale for name in ("identity", "undo", "move")},
        "judge_accuracy": judging.accuracy(test),
        "cosine": float(F.cosine_similarity(edits.values, test.values[edits.source]).mean()),
    }


def examples(edited: Tensor, test: LabelledRows, texts: list[str]) -> list[list[str]]:
    """Sentences, and those nearest to their edits."""
    some = shown_rows(test, EXAMPLES)
    near = nearest(edited[some], test.values, without=some)
    names = ["negative", "positive"]
    return [
        [texts[row], names[test.labels[row]], texts[to], names[test.labels[to]]]
        for row, to in zip(some, near, strict=True)
    ]


def picture(edited: Tensor, test: LabelledRows, path: Path) -> Path:
    """Sentences and their edits: along the difference of the class means, and the first principal axis across it."""
    means = [test.of_class(label).mean(0) for label in (0, 1)]
    axis = F.normalize(means[1] - means[0], dim=0)
    centred = test.values - test.values.mean(0)
    across = centred - (centred @ axis)[:, None] * axis
    second = torch.linalg.svd(across, full_matrices=False).Vh[0]
    figure, axes = new_figure(11, 4.6, 1, 2, sharex=True, sharey=True)
    for label, panel in enumerate(axes[0]):
        mine, name = test.labels == label, ("negative", "positive")[label]
        for values, mark, colour, says in (
            (test.values[~mine], "s", "#1f6fb4", "sentences of the other class"),
            (test.values[mine], "o", "#777777", "sentences"),
            (edited[mine], "^", "#c44e00", "their edits"),
        ):
            panel.scatter(
                values @ axis, values @ second, s=12, marker=mark, color=colour, alpha=0.6, linewidths=0, label=says
            )
        panel.set_title(f"{name} sentences turned {('positive', 'negative')[label]}", fontsize=11)
        panel.set_xlabel("difference of the class means")
    axes[0][0].set_ylabel("first principal axis across it")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return save_figure(figure, path)


def over(seeds: int) -> str:
    """What numbers are."""
    return f"Means over {seeds} seeds, with the least and the largest in brackets." if seeds > 1 else "Of one seed."


def cell(rows: list[dict[str, Any]], key: str) -> str:
    """The mean of a measure over runs, with the least and the largest; nothing where no run has it."""
    values = [row[key] for row in rows if key in row]
    between = f" [{min(values):.3f}, {max(values):.3f}]" if len(values) > 1 else ""
    return f"{sum(values) / len(values):.3f}{between}" if values else ""


def report(rows: list[dict[str, Any]]) -> str:
    """The page."""

    def mean(key: str) -> float:
        return sum(row[key] for row in rows) / len(rows)

    measures = ("success", "success_classifier", "judge", "cosine", "identity", "undo", "energy")
    header = ["editor", "sparring copy", "classifier", "judge", "cosine", "identity", "undo", "energy"]
    table = [
        [arm, *(cell([row for row in rows if row["arm"] == arm], key) for key in measures)] for arm in (*ARMS, VECTOR)
    ]
    told = next(row["examples"] for row in rows if "examples" in row)
    shown = [[one.replace("|", "/") for one in line] for line in told]
    return HEAD.format(
        size=384,
        classifier=mean("classifier"),
        test=rows[0]["test"],
        judge=mean("judge_accuracy"),
        floor=mean("energy_of_data"),
        seeds=over(len({row["seed"] for row in rows})),
        table=markdown(header, table),
        examples=markdown(["sentence", "class", "nearest to its edit", "its class"], shown),
    )


def flags(about: str) -> argparse.ArgumentParser:
    """The flags of a study of sentences."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default=HUB)
    parser.add_argument("--eval_dataset")
    parser.add_argument("--report_only", action="store_true")
    parser.add_argument("--use_cpu", action="store_true")
    return parser


def main() -> None:
    given = flags(__doc__).parse_args()
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    RESULTS.parent.mkdir(exist_ok=True)
    rows = read_lines(RESULTS)
    parts = None if given.report_only else embedded(given.dataset, given.eval_dataset)
    for seed in range(0 if parts is None else SEEDS):
        arms = [arm for arm in (*ARMS, VECTOR) if not any((row["seed"], row["arm"]) == (seed, arm) for row in rows)]
        for row in run(seed, arms, parts, {"use_cpu": given.use_cpu}) if arms else []:
            append_line(RESULTS, row)
            rows.append(row)
    page = HERE / "embeddings.md"
    page.write_text(report(rows), encoding="utf-8")
    print(f"written   {page}")


if __name__ == "__main__":
    main()
