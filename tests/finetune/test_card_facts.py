"""The card of a run of the command line: what the run found, and what it was compared with."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import datasets
import pytest
from huggingface_hub import ModelCard
from huggingface_hub.repocard import metadata_load

from atom_hf import AtomTrainingArguments
from atom_hf.cli.main import main
from atom_hf.data.load import TaskData, load_data
from atom_hf.experiments.comparability import hashed_rows
from atom_hf.experiments.comparison_results import find_comparison
from atom_hf.experiments.paired_runs import training_fingerprint
from atom_hf.finetune.arguments import RunArguments
from atom_hf.finetune.flags import parse_flags
from helpers.cards import DIGITS, SECRET, check, run, section
from helpers.hub_server import Hub
from helpers.models import make_tokenizer, tiny
from helpers.paths import ROOT


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with a run of the command line in it, with a comparison of the same settings beside it."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cards")
        patch.chdir(folder)
        patch.setenv("HF_TOKEN", SECRET)
        run("compare", *DIGITS, "--seeds", "2")
        run("train", *DIGITS, "--atom", "--no_explainer", "--hub_token", SECRET)
        run(
            "train",
            *DIGITS,
            "--atom",
            "--no_explainer",
            "--output_dir",
            "other",
            "--atom_weight",
            "0.2",
            "--data_seed",
            "5",
        )
    return folder


def test_the_card_of_a_run_says_what_the_run_found(runs):
    folder = runs / "runs" / "digits-vit-fashion-mnist-atom"
    card = (folder / "README.md").read_text()
    check(card)
    found = json.loads((folder / "eval_results.json").read_text())
    results, data = ModelCard(card).data.eval_results, metadata_load(folder / "README.md")
    assert [(r.metric_type, r.metric_value) for r in results] == [
        ("accuracy", round(found["accuracy"], 6)),
        ("f1", round(found["f1"], 6)),
        ("matthews_correlation", round(found["mcc"], 6)),
    ]
    # Fifty rows of a split are no result on the split.
    assert {(r.task_type, r.dataset_type, r.dataset_split) for r in results} == {
        ("image-classification", "digits", None)
    }
    assert results[0].metric_name == "accuracy on 50 samples of test"
    assert data["library_name"] == "transformers" and data["pipeline_tag"] == "image-classification"
    # The ViT that ships with the package is nowhere on the Hub.
    assert "base_model" not in data and "datasets" not in data and data["license"] == "apache-2.0"
    assert {"atom-hf", "atom", "token-importance", "generated_from_trainer"} <= set(data["tags"])
    assert "ships with atom-hf" in card.split("## ")[0]
    assert f"| accuracy | {found['accuracy']:.4f} |" in section(card, "Results")
    rows = section(card, "Data")
    assert (
        "40 samples of split `train`" in rows
        and "50 samples of split `test`" in rows
        and "Classes (10): `0`, `1`" in rows
    )
    assert "| seed | 42 |" in section(card, "Training") and "| steps | 2 |" in section(card, "Training")
    assert f"mean |importance| {found['importance']:.4f}" in section(card, "Reading importances")
    assert 'ViTForImageClassification.from_pretrained("path/to/model")' in card and "load_atom_model(" in card
    assert "tuan2022dynamic" in section(card, "Citation")


def test_no_path_and_no_token_is_in_a_card(runs):
    for card in runs.rglob("README.md"):
        text = card.read_text()
        places = (str(runs), str(Path.home()), str(ROOT), os.sep + "tmp", SECRET, os.uname().nodename)
        assert not [place for place in places if len(place) > 1 and place in text]


def test_a_comparison_of_the_same_settings_is_shown_and_no_other(runs):
    card = (runs / "runs" / "digits-vit-fashion-mnist-atom" / "README.md").read_text()
    results = (runs / "runs/digits-vit-fashion-mnist-compare/results.jsonl").read_text().splitlines()
    lines = [json.loads(line) for line in results[1:]]
    plain = [line["accuracy"] for line in lines if line["arm"] == "plain"]
    shown = section(card, "With and without the atom loss")
    assert f"| accuracy | {sum(plain) / 2:.4f} ±" in shown and "2 seeds (42, 43)" in shown
    assert "interval holds 0 is not evidence" in shown and "This model is not one of them" in shown
    other = (runs / "other" / "README.md").read_text()
    assert "With and without" not in other and "No comparison with a plain run was found beside" in section(
        other, "Limits"
    )


def test_where_a_model_is_pushed_is_no_setting_of_its_training(runs, monkeypatch):
    monkeypatch.chdir(runs)
    data = load_data("digits", max_train_samples=40, max_eval_samples=50)

    def found(*more):
        flags = [*DIGITS, "--atom", *more]
        return find_comparison(*parse_flags("train", flags, [RunArguments, AtomTrainingArguments]))(data)

    assert (
        found() and found("--push_to_hub", "--hub_model_id", "org/x", "--hub_strategy", "end") and found("--seed", "7")
    )
    watched = ["--eval_strategy steps --eval_steps 2", "--save_strategy steps --save_steps 1 --save_total_limit 1"]
    watched += ["--resume_from_checkpoint true", "--logging_steps 1 --report_to none", "--run_name x --log_level error"]
    for more in watched:
        assert found(*more.split())
    different = [
        "--learning_rate 1e-3",
        "--max_length 64",
        "--atom_layer 1",
    ]
    # Paired runs do not go back to their best checkpoint.
    different += ["--load_best_model_at_end --eval_strategy steps --eval_steps 1 --save_strategy steps --save_steps 1"]
    for more in different:
        assert found(*more.split()) is None
    plateau = "--lr_scheduler_type reduce_lr_on_plateau --eval_strategy steps --eval_steps"
    given = [parse_flags("train", f"{plateau} {n}".split(), [RunArguments, AtomTrainingArguments]) for n in (1, 1, 2)]
    hashes = [training_fingerprint(*pair) for pair in given]
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_comparison_on_other_rows_is_not_shown(runs, monkeypatch, capsys):
    monkeypatch.chdir(runs)
    data = load_data("digits", max_train_samples=40, max_eval_samples=50)
    find = find_comparison(*parse_flags("train", [*DIGITS, "--atom"], [RunArguments, AtomTrainingArguments]))
    turned = data.train["label"][:1] + data.train["label"][:-1]
    rows = data.train.remove_columns("label").add_column("label", turned, feature=data.train.features["label"])
    rows = rows.select_columns(data.train.column_names)
    assert turned != data.train["label"][:]
    assert (
        find(data)
        and find(replace(data, train=data.train.select(range(40))))
        and find(replace(data, train=rows)) is None
    )
    assert find(replace(data, eval=data.eval.select(range(49)))) is None
    results = runs / "runs/digits-vit-fashion-mnist-compare/results.jsonl"
    before = results.read_text()
    head, rest = before.split("\n", 1)
    results.write_text(json.dumps({**json.loads(head), "rows": "0" * 16}) + "\n" + rest)
    assert find(data) is None
    assert main(["compare", *DIGITS, "--seeds", "2"]) == 2
    assert "holds a comparison on other rows" in capsys.readouterr().err
    # Results from before that was kept can be gone on with, and tell no card what they are of.
    old = {key: value for key, value in json.loads(head).items() if key not in ("rows", "training")}
    results.write_text(json.dumps(old) + "\n" + rest)
    run("compare", *DIGITS, "--seeds", "2")
    assert find(data) is None and results.read_text() == json.dumps(old) + "\n" + rest
    results.write_text(before)


def test_a_picture_in_a_file_of_its_own_counts_by_its_time(tmp_path):
    file = tmp_path / "one.png"
    file.write_bytes(b"1")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    rows = datasets.Dataset.from_dict({"image": [str(file)], "label": [0]}, features=features)
    data = TaskData("x", "image-classification", rows, rows, ["a", "b"])
    before = hashed_rows(data)
    assert hashed_rows(data) == before
    os.utime(file, (1, 1))
    assert hashed_rows(data) != before


def test_settings_that_were_changed_stand_out(runs):
    other = section((runs / "other" / "README.md").read_text(), "Atom settings")
    assert "| **weight** | 0.2 | 0.5 |" in other and other.count("**") == 2
    default = section((runs / "runs/digits-vit-fashion-mnist-atom/README.md").read_text(), "Atom settings")
    assert "**" not in default and "All are atom-hf's defaults." in default
    for field in ("weighting", "softening", "head_learning_rate", "hidden_size"):
        assert f"| {field} | " in other and f"| {field} | " in default


def test_what_came_from_the_hub_is_named_by_its_id(tmp_path):
    base = tiny("bert", num_labels=2)
    base.save_pretrained(tmp_path / "base")
    make_tokenizer().save_pretrained(tmp_path / "base")
    (tmp_path / "base" / "README.md").write_text("---\nlicense: mit\n---\n# Base\n")
    table = "verse,label\n" + "".join(f"the sea is cold {i},{i % 2}\n" for i in range(24))
    with Hub() as hub:
        hub.add("org/base", tmp_path / "base")
        hub.add("org/lines", {"train.csv": table.encode(), "test.csv": table.encode()}, kind="datasets")
        flags = [
            "--model",
            "org/base",
            "--dataset",
            "org/lines",
            "--max_steps",
            "2",
            "--use_cpu",
            "--atom",
            "--no_explainer",
        ]
        done = subprocess.run(
            [sys.executable, "-m", "atom_hf", "train", *flags, "--output_dir", "out", "--save_strategy", "no"],
            env={**os.environ, **hub.environment(tmp_path / "home"), "PYTHONPATH": str(ROOT)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    card = (tmp_path / "out" / "README.md").read_text()
    check(card)
    data = metadata_load(tmp_path / "out" / "README.md")
    assert (data["base_model"], data["base_model_relation"], data["license"]) == ("org/base", "finetune", "mit")
    assert data["datasets"] == ["org/lines"]
    assert data["model-index"][0]["results"][0]["dataset"] == {"name": "lines", "type": "org/lines", "split": "test"}
    assert "[org/base](https://huggingface.co/org/base)" in card


def test_a_local_file_is_named_without_its_folder(tmp_path):
    private = tmp_path / "alice" / "my-reviews.csv"
    private.parent.mkdir()
    private.write_text("text,label\n" + "".join(f"the sea is cold {i},{i % 2}\n" for i in range(20)))
    tiny("bert").save_pretrained(private.parent / "my-base")
    make_tokenizer().save_pretrained(private.parent / "my-base")
    flags = ["--model", str(private.parent / "my-base"), "--dataset", str(private), "--max_steps", "1", "--use_cpu"]
    run("train", *flags, "--atom", "--no_explainer", "--output_dir", str(tmp_path / "out"), "--save_strategy", "no")
    card = (tmp_path / "out" / "README.md").read_text()
    check(card)
    assert "alice" not in card and "`my-base` (a local checkpoint)" in card and "Data set: `my-reviews`." in card
    assert "The evaluation samples were held out" in card
    data = ModelCard(card).data
    assert data.base_model is None and data.datasets is None
    assert {(r.dataset_type, r.dataset_split) for r in data.eval_results} == {("my-reviews", None)}
