"""What runs know of labels that they were not trained on: measures of a comparison, and a picture."""

import dataclasses
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..data.load import TaskData
from ..errors import AtomError
from ..finetune.arguments import RunArguments, load_run_data
from ..finetune.run import Prepared
from ..visualization.relations_picture import Panel, write_relations
from .features import encode, read_outputs, same_inputs
from .measures import calibration_error
from .probes import linear_probe, scaled_loss

PROBE_ROWS = 1000  # of the training split, that a probe is fitted on


class OtherLabels:
    """Labels in another column of a comparison's data set.

    Raises:
        AtomError: data that is not for classification, a column that is not there, is no label or is the one trained on, rows
            that are not those of the runs, or no Matplotlib, which the picture needs.
    """

    def __init__(self, column: str, run: RunArguments, data: TaskData, with_picture: bool):
        given = f"--probe_column {column!r}"
        if data.labels is None or "label" not in data.eval.column_names:
            raise AtomError(f"{given}: a probe is for classification with one label a row, and the task is {data.task}")
        if with_picture and importlib.util.find_spec("matplotlib") is None:
            raise AtomError(f"{given} with --page draws a picture by matplotlib: pip install 'atom-hf[study]'")
        self.column, self._classes = column, data.labels
        if run.max_train_samples is None:
            rows = None if len(data.train) <= PROBE_ROWS else PROBE_ROWS
        else:  # more than training has
            rows = max(PROBE_ROWS, run.max_train_samples)
        other = dataclasses.replace(run, label_column=column, max_train_samples=rows)
        try:
            self._data = load_run_data(other)
        except AtomError as error:
            raise AtomError(f"{given}: {error}") from error
        if self._data.labels is None:
            raise AtomError(f"{given} holds no classes; name a column of labels")
        if not same_inputs(self._data.eval, data.eval):
            raise AtomError(
                f"{given}: the evaluation rows are others with it than without, for rows are drawn by class; leave out "
                "--max_eval_samples, give evaluation data by --eval_dataset or --eval_split, and a column without empty values"
            )
        if self._data.eval["label"][:] == data.eval["label"][:]:
            raise AtomError(f"{given} holds the labels that the runs are trained on; name another column")
        self._panels: dict[str, np.ndarray] = {}

    def read(self, prepared: Prepared, name: str, keep: bool) -> dict[str, float]:
        """The measures of a run, after training or before it.

        Args:
            prepared: the model as it is now.
            name: of the panel in the picture.
            keep: whether the picture is to have a panel of it.

        Returns:
            The loss after temperature scaling, the calibration error, and the accuracy of a linear probe of the other labels.
        """
        from scipy.special import softmax

        logits, labels, features = read_outputs(prepared, encode(prepared, prepared.data.eval))
        _, fitted, known = read_outputs(prepared, encode(prepared, self._data.train))
        scored = np.array(self._data.eval["label"][:])
        probe = linear_probe(known, fitted, features, scored)["accuracy"]
        if keep:
            self._panels[f"{name}: probe of {self.column} {probe:.2f}"] = features
        return {
            "scaled_loss": scaled_loss(logits.astype(np.float64), labels),
            "calibration_error": calibration_error(softmax(logits.astype(np.float64), axis=1), labels),
            f"{self.column} probe": probe,
        }

    def draw(self, path: Path, data: TaskData) -> Path | None:
        """Writes the picture of the evaluation rows in every panel kept; None if there is none."""
        if not self._panels:
            return None
        panels = [Panel(name, features) for name, features in self._panels.items()]
        names = {"classes": (data, self._classes), "labels": (self._data, self._data.labels)}
        shown = {key: [str(known[i]) for i in rows.eval["label"][:]] for key, (rows, known) in names.items()}
        return write_relations(path, panels, **shown, caption=self.caption(data))

    def caption(self, data: TaskData) -> str:
        """What the picture shows."""
        return f"The same {len(data.eval)} evaluation rows, by {self.column}: how far apart they lie, and where"


def note(measures: Mapping[str, Any], column: str) -> str:
    """What the measures are, for below a table."""
    return (
        f" scaled_loss is the loss after temperature scaling; {column} probe is the accuracy of a linear probe of {column}, "
        "which the runs were not trained on."
        if f"{column} probe" in measures
        else ""
    )
