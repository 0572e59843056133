"""`atom-hf manipulate --put fill`: an editor of texts from flags, its folder, and edits by it."""

import json
from pathlib import Path
from typing import Any

import torch

from ....data.load import TaskData, load_data
from ....errors import AtomError, first_line
from ....finetune.arguments import DATA_FIELDS
from ....utils.files import write_atomically
from ...boxes import TextModel
from ...drawing import draw_task
from ..arguments import ManipulateOptions, ManipulatorArguments
from ..equations import text_task, text_weights
from ..judge import check_judge_rows
from ..sparring import sigmas_to_try
from .classifier import TextClassifier, load_text_classifier
from .evaluation import (
    edit_texts,
    evaluate_text_manipulator,
    measure_texts,
    text_editor_of,
    unedited,
)
from .judge import USUAL, make_text_judge
from .manipulator import TextManipulator
from .report import write_text_report
from .rows import TextRows
from .train import MadeOfTexts, manipulate_texts

EDITED_NAME = "edited.txt"


class TextInputs:
    """The rows and the classifier of an editor of texts, from flags. Raises `AtomError`.

    Attributes:
        name: of the data.
        classifier: what is made an editor of.
        train: the rows to train on.
        judge: a part of the evaluation rows, of which the judge learns, and on which a sparring copy is chosen.
        test: the others, which are edited.
    """

    def __init__(self, options: ManipulateOptions):
        text_weights(options.weights or None)
        sigmas_to_try(options.sigma)
        data: TaskData = load_data(options.dataset, **{name: getattr(options, name) for name in DATA_FIELDS})
        if data.labels is None or data.is_image or "text_pair" in data.train.column_names:
            what = (
                "has no labels" if data.labels is None else "holds images" if data.is_image else "holds pairs of texts"
            )
            raise AtomError(f"--dataset {options.dataset!r} {what}; --put fill edits single texts of classes")
        if len(data.labels) < 2:
            raise AtomError(f"--dataset {options.dataset!r} has one class, and there is nothing to turn it into")
        self.name = data.name
        self.classifier: TextClassifier = load_text_classifier(
            options.classifier, data.labels, options.classifier_revision
        )
        labels = self.classifier.labels
        order = torch.tensor([labels.index(label) for label in data.labels])
        self.train, held = (
            TextRows(list(rows["text"]), order[torch.tensor(rows["label"])]) for rows in (data.train, data.eval)
        )
        self.judge, self.test = map(held.take, held.split(options.judge_fraction, options.sample_seed))
        if (options.judge or USUAL) == USUAL:
            check_judge_rows(self.judge, labels)
        if not len(self.test):
            raise AtomError("no evaluation rows are left to edit; give a smaller --judge_fraction, or more rows")


def make_text_manipulator(
    inputs: TextInputs, options: ManipulateOptions, args: ManipulatorArguments, names: dict[str, str]
) -> tuple[TextManipulator, dict[str, Any], list[Path]]:
    """Train, judge and save, as flags say. Raises `AtomError`.

    Args:
        names: of the files task, drawing and metrics.

    Returns:
        the manipulator, what was measured, and the pages that were written.
    """
    made = manipulate_texts(
        inputs.classifier,
        inputs.train,
        inputs.judge,
        filler=options.filler,
        weights=options.weights or None,
        sigma=options.sigma,
        share=options.hidden_share,
        filling_steps=options.filling_steps,
        max_length=options.max_length,
        dataset=inputs.name,
        args=args,
    )
    found = judge_texts(made, inputs.classifier, inputs.test, inputs.judge, options.judge, options.edit_rows, args.seed)
    manipulator, folder = made.manipulator, Path(args.output_dir)
    manipulator.config.evaluation = {
        name: value for name, value in found.items() if isinstance(value, float | int | str)
    }
    written = write_text_report(folder, manipulator, inputs.test, found, options.samples)
    classes = len(inputs.classifier.labels)
    spec = text_task(len(inputs.classifier.tokenizer), classes, manipulator.config.weights)
    write_atomically(folder / names["task"], str(spec))
    write_atomically(folder / names["drawing"], draw_task(spec))
    write_atomically(folder / names["metrics"], json.dumps(found, indent=1) + "\n")
    manipulator.save_pretrained(folder)
    return manipulator, found, written


def judge_texts(
    made: MadeOfTexts,
    classifier: TextClassifier,
    test: TextRows,
    judge_rows: TextRows,
    judge: str | None = None,
    most: int = 400,
    seed: int = 0,
) -> dict[str, Any]:
    """What `evaluate_text_manipulator` measures, beside texts as they are, and the filler that learned to fill gaps alone."""
    manipulator, labels = made.manipulator, classifier.labels
    get = TextModel(classifier.model.to(manipulator.device).eval())
    found = evaluate_text_manipulator(manipulator, test, judge_rows, judge=judge, classifier=get, most=most, seed=seed)
    rows = test.draw(most, seed)
    own = manipulator.classify(rows.texts).argmax(1)
    by = make_text_judge(found["judge_name"], judge_rows, labels, manipulator.config.max_length)
    found["compared"] = {}
    for name, editor in (("filling gaps alone", text_editor_of(made.denoiser)), ("unedited", unedited)):
        edits = edit_texts(editor, rows, own, len(labels))
        one = measure_texts(editor, rows, own, edits, by)
        success = float((manipulator.classify(edits.texts).argmax(1) == edits.to).float().mean())
        found["compared"][name] = {"success": success} | {k: v for k, v in one.items() if isinstance(v, float)}
    found["parameters"] = sum(parameter.numel() for parameter in manipulator.put.parameters())
    return found


def read_text_file(given: str) -> list[str]:
    """The texts of a .txt file, one a line, or the text that was given itself. Raises `AtomError`."""
    if not given.endswith(".txt"):
        return [given]
    try:
        lines = Path(given).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise AtomError(f"--edit {given!r} is no readable text file: {first_line(error)}") from error
    texts = [line for line in lines if line.strip()]
    if not texts:
        raise AtomError(f"--edit {given!r} holds no text; give one a line")
    return texts


def edit_text_input(
    manipulator: TextManipulator, given: str, to: int, strengths: list[float], folder: str
) -> tuple[list[tuple[float, float, str]], str, Path]:
    """Edit a text, or those of a file, with a manipulator that was made.

    Returns:
        (strength, probability of the class, the first edited text) of each strength, the probability as mean over texts; the
        class that was read before; the file of all edits, a line each.
    """
    texts = read_text_file(given)
    own = manipulator.classify(texts).argmax(1)
    found, lines = [], []
    for strength in strengths:
        edited = manipulator.edit(texts, to, strength, own=own)
        sure = float(manipulator.classify(edited).softmax(1)[:, to].mean())
        found.append((strength, sure, edited[0]))
        lines += edited
    before = ", ".join(dict.fromkeys(manipulator.config.labels[number] for number in own.tolist()))
    return found, before, write_atomically(Path(folder, EDITED_NAME), "\n".join(lines) + "\n")
