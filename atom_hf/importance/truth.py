"""The labels of rows in a model's own terms, and how well predictions meet them, counted row by row in constant memory."""

import math
from typing import Any

import datasets
import numpy as np

from ..data.rows import Rows
from ..errors import AtomError

MOST_SHOWN = 5


class Truth:
    """Compares predictions with the labels of their rows.

    Args:
        rows: perhaps with a label.
        model_config: says what the model predicts.
        asked: whether the user named the column. One that was found by its name, and does not fit the model, is left out.

    Raises:
        AtomError: a named column that does not fit the model.
    """

    def __init__(self, rows: Rows, model_config: Any, asked: bool = False):
        self.names = dict(model_config.id2label)
        self.ids = {str(name): number for number, name in self.names.items()}
        problem = model_config.problem_type
        self.is_regression = len(self.names) == 1 or problem == "regression"
        self.feature = rows.label_feature
        self.counts = np.zeros((len(self.names), len(self.names)), np.int64)
        self.sums = np.zeros(5)
        self.why_not = ""
        """Why a column of labels is not used; empty if it is, or if there is none."""
        self.exists = "label" in rows.columns
        if self.exists and (why := self._misfit(rows, problem)):
            self.why_not = f"column {rows.columns['label']!r} {why}"
            self.exists = False
            if asked:
                raise AtomError(f"--label_column {rows.columns['label']!r} {why}; give another, or leave it out")

    def _misfit(self, rows: Rows, problem: str | None) -> str:
        if problem == "multi_label_classification":
            return "is not compared with the predictions of a model of several labels"
        if self.is_regression:
            dtype = getattr(self.feature, "dtype", "")
            return (
                "" if len(self.names) == 1 and dtype.startswith(("int", "uint", "float")) else "does not hold numbers"
            )
        if not isinstance(self.feature, datasets.Value | datasets.ClassLabel):
            return "does not hold classes"
        known = self.feature.names if isinstance(self.feature, datasets.ClassLabel) else rows.rows.unique("label")
        strange = sorted({str(v) for v in known if not _is_missing(v) and self.read(v, known=True) is None})
        if not strange:
            return ""
        more = f" and {len(strange) - MOST_SHOWN} more" if len(strange) > MOST_SHOWN else ""
        names = ", ".join(map(str, list(self.names.values())[:20]))
        return f"holds {', '.join(strange[:MOST_SHOWN])}{more}, which are not classes of the model ({names})"

    def read(self, value: Any, known: bool = False) -> str | float | None:
        """A label as the model names it, or the number of a regression; None for none.

        `known`: whether it is the name of a declared class already.
        """
        if _is_missing(value):
            return None
        if self.is_regression:
            return float(value)
        if isinstance(self.feature, datasets.ClassLabel) and not known:
            return None if value < 0 else self.read(self.feature.names[value], known=True)
        if isinstance(value, float) and value.is_integer():  # whole numbers in a column with gaps
            value = int(value)
        name = str(value).strip()
        if name in self.ids:
            return name
        return self.names[int(value)] if isinstance(value, int) and int(value) in self.names else None

    def see(self, record: dict[str, Any]) -> None:
        """Counts a record with a "label" and what is "predicted", also as they are read from a file."""
        label, predicted = record.get("label"), record.get("predicted")
        if not self.exists or label in (None, "") or predicted in (None, ""):
            return
        if self.is_regression:
            true, found = float(label), float(predicted)
            self.sums += (1, true, true**2, (found - true) ** 2, abs(found - true))
        elif str(label) in self.ids and str(predicted) in self.ids:
            self.counts[self.ids[str(label)], self.ids[str(predicted)]] += 1

    def metrics(self) -> dict[str, float]:
        """Of classes "accuracy", "f1" (macro) and "mcc"; of a regression "rmse", "mae" and "r2"; empty without labels."""
        if self.is_regression:
            count, total, squares, error, absolute = self.sums
            if not count:
                return {}
            spread = squares - total**2 / count
            r2 = 1 - error / spread if spread > 0 else math.nan
            return {"rmse": math.sqrt(error / count), "mae": absolute / count, "r2": r2}
        if not self.counts.any():
            return {}
        from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

        truth, found = self.counts.nonzero()
        weights = {"sample_weight": self.counts[truth, found]}
        return {
            "accuracy": float(accuracy_score(truth, found, **weights)),
            "f1": float(f1_score(truth, found, average="macro", zero_division=0, **weights)),
            "mcc": float(matthews_corrcoef(truth, found, **weights)),
        }


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
