"""Labels that runs were not trained on: `compare --probe_column`, from the measures to the page."""

import json

import numpy as np
import pytest
from PIL import Image

from atom_hf.data.load import load_data
from atom_hf.errors import AtomError
from atom_hf.experiments.compare import CompareArguments, compare_runs
from atom_hf.experiments.other_labels import OtherLabels
from atom_hf.finetune.arguments import RunArguments
from atom_hf.finetune.flags import parse_flags
from atom_hf.training.arguments import AtomTrainingArguments

pytestmark = pytest.mark.usefixtures("own_cache")

SIZES = "image_size=8,patch_size=4,num_channels=1,hidden_size=16,num_hidden_layers=1,num_attention_heads=2,intermediate_size=16"
FLAGS = ["--model_type", "vit", "--config_overrides", SIZES, "--dataset", "digits", "--label_column", "parity"]
FLAGS += [
    "--max_train_samples",
    "60",
    "--num_train_epochs",
    "2",
    "--learning_rate",
    "2e-3",
    "--use_cpu",
    "--seeds",
    "2",
]


def compare(folder, *more):
    kinds = [RunArguments, AtomTrainingArguments, CompareArguments]
    return compare_runs(*parse_flags("compare", [*FLAGS, "--output_dir", str(folder / "results"), *more], kinds))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("other_labels")


@pytest.fixture(scope="module")
def report(folder):
    return compare(folder, "--probe_column", "label", "--page", str(folder / "page.html"), "--page_samples", "4")


def test_the_table_has_the_probe_and_calibration(report):
    names = [row[0] for row in report.table.rows]
    assert names[-3:] == ["scaled_loss (less is better)", "calibration_error (less is better)", "label probe"]
    probe = report.table.rows[-1]
    # Of ten digits, a probe of any features of the images finds more than one in ten.
    assert all(0.15 < float(cell.split(" ")[0]) < 1 for cell in probe[1:3])


def test_the_picture_stands_on_the_page(report, folder):
    picture = folder / "page.relations.png"
    assert str(picture) in report.pictures
    with Image.open(picture) as image:
        assert image.width > 3 * 300  # before training, and each arm
    page = (folder / "page.html").read_text(encoding="utf-8")
    assert "How far apart samples lie" in page and "The same 797 evaluation rows, by label" in page


def test_the_probe_is_one_of_all_training_rows(report, folder, monkeypatch):
    """The measures of a run against scikit-learn on features that are read by hand."""
    lines = [json.loads(line) for line in (folder / "results" / "results.jsonl").read_text().splitlines() if line]
    assert {"scaled_loss", "calibration_error", "label probe"} <= set(lines[1])
    run = RunArguments(dataset="digits", label_column="parity", max_train_samples=60)
    data = load_data("digits", label_column="parity", max_train_samples=60)
    other = OtherLabels("label", run, data, with_picture=False)
    assert len(other._data.train) == 1000 and len(data.train) == 60
    assert [value % 2 for value in other._data.eval["label"][:]] == list(data.eval["label"][:])


def test_finished_runs_are_resumed_with_the_same_column_alone(report, folder):
    again = compare(folder, "--probe_column", "label")
    assert again.table.rows == report.table.rows
    with pytest.raises(AtomError, match="other settings"):
        compare(folder)


@pytest.mark.parametrize(
    ("column", "flags", "message"),
    [
        ("parity", {}, "the labels that the runs are trained on; name another column"),
        ("digit", {}, "--probe_column 'digit'.*digit"),
        ("label", {"max_eval_samples": 100}, "leave out --max_eval_samples"),
    ],
)
def test_rejects(column, flags, message):
    run = RunArguments(dataset="digits", label_column="parity", **flags)
    with pytest.raises(AtomError, match=message):
        OtherLabels(column, run, load_data("digits", label_column="parity", **flags), with_picture=False)


def test_rejects_what_has_no_label(tmp_path):
    (tmp_path / "lines.txt").write_text("one line of text\n" * 20)
    run = RunArguments(dataset=str(tmp_path / "lines.txt"), task="causal-lm")
    data = load_data(str(tmp_path / "lines.txt"), task="causal-lm")
    with pytest.raises(AtomError, match="a probe is for classification"):
        OtherLabels("label", run, data, with_picture=False)


def test_numbers_of_a_page_are_finite(report):
    assert all(np.isfinite(float(cell.split(" ")[0])) for row in report.table.rows for cell in row[1:3])
