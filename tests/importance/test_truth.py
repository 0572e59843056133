"""Labels in a model's terms, and metrics counted record by record, against those of scikit-learn on whole arrays."""

import datasets
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef, mean_absolute_error, r2_score
from transformers import PreTrainedConfig

from atom_hf import AtomError
from atom_hf.data.rows import Rows
from atom_hf.importance.truth import Truth

NAMES = ["calm", "rough", "2"]


def truth_of(values, names=NAMES, feature=None, asked=False, **options):
    config = PreTrainedConfig(id2label=dict(enumerate(names)), **options)
    features = datasets.Features({"label": feature}) if feature else None
    rows = datasets.Dataset.from_dict({"label": values}, features=features)
    return Truth(Rows(rows, {"label": "mood"}, rows.features["label"]), config, asked)


@pytest.mark.parametrize(
    ("values", "feature", "expected"),
    [
        (["calm", " rough ", "2", None], None, ["calm", "rough", "2", None]),
        ([0, 1, 2], None, ["calm", "rough", "2"]),
        ([1.0, 0.0, None, float("nan")], datasets.Value("float64"), ["rough", "calm", None, None]),
        ([0, 1, -1], datasets.ClassLabel(names=["rough", "calm"]), ["rough", "calm", None]),
    ],
)
def test_labels_are_read_as_the_model_names_them(values, feature, expected):
    truth = truth_of(values, feature=feature)
    assert truth.exists and [truth.read(value) for value in values] == expected


def test_metrics_of_classes_are_those_of_whole_arrays():
    rng = np.random.default_rng(0)
    true, found = rng.integers(0, 2, 500), rng.integers(0, 3, 500)
    truth = truth_of(["calm", "rough"])
    for t, f in zip(true, found, strict=True):
        truth.see({"label": NAMES[t], "predicted": NAMES[f]})
    truth.see({"label": None, "predicted": "calm"})
    truth.see({"label": "", "predicted": "calm"})
    expected = {
        "accuracy": accuracy_score(true, found),
        "f1": f1_score(true, found, average="macro", zero_division=0),
        "mcc": matthews_corrcoef(true, found),
    }
    assert truth.metrics() == pytest.approx(expected)


def test_metrics_of_a_regression_are_those_of_whole_arrays():
    rng = np.random.default_rng(0)
    true, found = rng.normal(3, 1, 300), rng.normal(3, 1, 300)
    truth = truth_of([1.0, 2.5], names=["value"])
    assert truth.read(2) == 2.0
    for t, f in zip(true, found, strict=True):
        truth.see({"label": str(t), "predicted": f})
    expected = {"rmse": np.sqrt(np.mean((true - found) ** 2)), "mae": mean_absolute_error(true, found)}
    assert truth.metrics() == pytest.approx({**expected, "r2": r2_score(true, found)})


@pytest.mark.parametrize(
    ("values", "options", "says"),
    [
        (["calm", "storm"], {}, "holds storm, which are not classes of the model (calm, rough, 2)"),
        ([5, 1], {}, "holds 5, which are not classes"),
        ([list("ab")], {}, "does not hold classes"),
        (["a"], {"names": ["value"]}, "does not hold numbers"),
        ([0], {"problem_type": "multi_label_classification"}, "is not compared with"),
    ],
)
def test_labels_that_do_not_fit_are_left_out_or_rejected_where_they_were_asked_for(values, options, says):
    truth = truth_of(values, **options)
    assert not truth.exists and truth.why_not.startswith(f"column 'mood' {says}")
    truth.see({"label": "calm", "predicted": "calm"})
    assert truth.metrics() == {}
    with pytest.raises(AtomError) as error:
        truth_of(values, asked=True, **options)
    assert str(error.value).startswith("--label_column 'mood' ") and says in str(error.value)
