"""Judges of edits: classifiers of another architecture, that learned from rows which the editor never saw."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...errors import AtomError
from ..architectures import is_architecture
from ..arguments import TaskArguments
from .classifier import load_classifier
from .equations import judge_task
from .fitting import fit
from .rows import LabelledRows
from .sparring import read_classes

JUDGES = ("svm", "linear")

STEPS, RATE = 600, 2e-3


class Judge(NamedTuple):
    """What reads the classes of edits."""

    name: str
    read: Callable[[Tensor], Tensor]
    """From rows, as floats, to the ids [N] of their classes."""

    def accuracy(self, rows: LabelledRows) -> float:
        """The share of rows whose class it reads."""
        return float((self.read(rows.floats) == rows.labels).float().mean())


def usual_judge(rows: LabelledRows) -> str:
    """The judge of rows of a kind, if none is given."""
    return "svm" if rows.kind.name == "pixels" else "linear"


def make_judge(name: str, rows: LabelledRows, labels: list[str], args: TaskArguments) -> Judge:
    """A judge that learned from rows.

    Args:
        name: "svm" (of radial basis functions), "linear" (logistic regression), a network such as "conv(32, 64)", or the
            folder or Hub id of a classifier, which learns nothing here.
        args: of the run, for a network.

    Raises:
        AtomError: no such judge; a class of which there is no row.
    """
    if name in JUDGES or is_architecture(name):
        check_judge_rows(rows, labels)
    if name in JUDGES:
        from sklearn.linear_model import LogisticRegression
        from sklearn.svm import SVC

        model = SVC(C=10.0) if name == "svm" else LogisticRegression(max_iter=1000)
        model.fit(rows.floats.flatten(1).numpy(), rows.labels.numpy())
        return Judge(name, lambda values: torch.as_tensor(model.predict(values.flatten(1).numpy().astype(np.float64))))
    if is_architecture(name):
        module = fit(judge_task(rows.kind, len(labels)), {"f": name}, rows, args, STEPS, RATE).boxes["f"]
        order = torch.arange(len(labels))
    else:
        try:
            found = load_classifier(name, rows.kind, labels)
        except AtomError as error:
            raise AtomError(str(error).replace("--classifier", "--judge", 1)) from error
        module, order = found.module, torch.tensor([labels.index(label) for label in found.labels])
    module = module.eval().requires_grad_(False)
    return Judge(name, lambda values: order[read_classes(module, values)])


def check_judge_rows(rows: LabelledRows, labels: list[str]) -> None:
    """Raises `AtomError` if a class has no row that a judge could learn from."""
    missing = [label for number, label in enumerate(labels) if not bool((rows.labels == number).any())]
    if missing:
        raise AtomError(
            f"no rows of {', '.join(missing[:5])} are left for the judge; give more evaluation rows (--eval_fraction, "
            "--max_eval_samples), or another --judge_fraction"
        )
