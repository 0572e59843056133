"""What a card knows of a run, a trainer or a model, and that it says nothing else: no path, no token, no guess."""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import datasets
import pytest
from huggingface_hub import ModelCard
from huggingface_hub.repocard import metadata_load
from transformers import AutoConfig, AutoModelForSequenceClassification, Trainer

from atom_hf import (
    AtomConfig,
    AtomError,
    AtomTrainer,
    AtomTrainerMixin,
    AtomTrainingArguments,
    attach_atoms,
    load_atom_model,
)
from atom_hf.attaching import add_tied, untie
from atom_hf.card import MARK, CardFacts, is_own, model_card, write_card
from atom_hf.card_facts import base_facts, facts_of_model, facts_of_trainer, pipeline_tag
from atom_hf.card_kept import saved_again
from atom_hf.cli import main
from atom_hf.compare import _rows_of, find_comparison
from atom_hf.data import TaskData, load_data
from atom_hf.flags import parse_flags
from atom_hf.licenses import LICENSES
from atom_hf.paired import training_fingerprint
from atom_hf.run import RunArguments, load_run_data, run_facts
from helpers import card_rules
from helpers.card_rules import empty_values, metadata_errors
from helpers.hub_server import Hub
from helpers.models import TINY, collator_for, make_tokenizer, rows_for, tiny
from helpers.paths import ROOT
from helpers.training import arguments

SECRET = "hf_aSecretThatNobodyMayRead"
DIGITS = [
    "--model",
    "vit-fashion-mnist",
    "--dataset",
    "digits",
    "--max_train_samples",
    "40",
    "--max_eval_samples",
    "50",
]
DIGITS += ["--max_steps", "2", "--per_device_train_batch_size", "8", "--use_cpu", "--save_strategy", "no"]


def run(*arguments):
    with contextlib.redirect_stdout(io.StringIO()):
        assert main(list(arguments)) == 0


def check(card):
    """That the Hub takes the metadata of a card, and that nothing in it is empty."""
    data = ModelCard(card).data.to_dict()
    assert data and metadata_errors(card) == [] and empty_values(data) == []


def section(card, title):
    return card.split(f"\n## {title}\n")[1].split("\n## ")[0]


def make_trainer(folder, name="bert", cls=AtomTrainer, model=None, **options):
    return cls(
        model=model or tiny(name),
        args=arguments(folder, **{"atom": True, **options}),
        train_dataset=rows_for(name),
        eval_dataset=rows_for(name)[:6],
        data_collator=collator_for(name),
    )


# The card of a run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with a run of the command line in it, with a comparison of the same settings beside it."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cards")
        patch.chdir(folder)
        patch.setenv("HF_TOKEN", SECRET)
        run("compare", *DIGITS, "--seeds", "2")
        run("train", *DIGITS, "--atom", "--no_tie", "--hub_token", SECRET)
        run("train", *DIGITS, "--atom", "--no_tie", "--output_dir", "other", "--atom_weight", "0.2", "--data_seed", "5")
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
    before = _rows_of(data)
    assert _rows_of(data) == before
    os.utime(file, (1, 1))
    assert _rows_of(data) != before


def test_settings_that_were_changed_stand_out(runs):
    other = section((runs / "other" / "README.md").read_text(), "Atom settings")
    assert "| **weight** | 0.2 | 0.1 |" in other and other.count("**") == 2
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
        flags = ["--model", "org/base", "--dataset", "org/lines", "--max_steps", "2", "--use_cpu", "--atom", "--no_tie"]
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
    run("train", *flags, "--atom", "--no_tie", "--output_dir", str(tmp_path / "out"), "--save_strategy", "no")
    card = (tmp_path / "out" / "README.md").read_text()
    check(card)
    assert "alice" not in card and "`my-base` (a local checkpoint)" in card and "Data set: `my-reviews`." in card
    assert "The evaluation samples were held out" in card
    data = ModelCard(card).data
    assert data.base_model is None and data.datasets is None
    assert {(r.dataset_type, r.dataset_split) for r in data.eval_results} == {("my-reviews", None)}


# The card of a trainer, and of a model alone


def test_a_trainer_of_ones_own_script_says_what_it_knows(tmp_path):
    trainer = make_trainer(tmp_path / "mine", hub_model_id="org/mine", atom_softening=0.5)
    trainer.train()
    loss = trainer.evaluate()["eval_loss"]
    trainer.save_model(str(tmp_path / "final"))
    card = (tmp_path / "final" / "README.md").read_text()
    check(card)
    assert f"| loss | {loss:.4f} |" in section(card, "Results") and "at step 3 of one run:" in section(card, "Results")
    assert "Training: 16 samples." in section(card, "Data") and "Data set" not in card
    assert 'load_atom_model("org/mine")' in card and "\n# mine\n" in card
    assert (
        "`, trained with the atom loss" in card and "nothing" not in card.split("##")[0]
    )  # of its base nothing is known
    last = [line for line in trainer.state.log_history if "atom_importance" in line][-1]
    assert f"mean |importance| {last['atom_importance']:.4f}" in section(card, "Reading importances")
    data = metadata_load(tmp_path / "final" / "README.md")
    assert not {"base_model", "datasets", "model-index", "license", "metrics"} & set(data)

    # Trained from what lies where it is pushed to.
    trainer.card_facts["base_model"] = "org/mine"
    again = model_card(facts_of_trainer(trainer))
    assert again.data.base_model is None and "from `org/mine` (an earlier state of this repository)" in again.text
    del trainer.card_facts["base_model"]

    trainer.card_facts |= {"dataset": "my reviews", "metrics": {"accuracy": 0.5}}
    trainer.save_model(str(tmp_path / "final"))
    result = ModelCard.load(tmp_path / "final" / "README.md").data.eval_results[0]
    assert (result.dataset_name, result.metric_value, result.dataset_split) == ("my reviews", 0.5, None)


def test_facts_that_no_card_knows_are_refused_before_training(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.card_facts["datset"] = "my reviews"
    with pytest.raises(AtomError, match="card_facts has datset, which no card knows; it may have name, repo_id"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_the_metrics_are_those_of_the_weights_that_were_saved(tmp_path):
    class Scripted(AtomTrainer):
        losses = iter([3.0, 1.0, 2.0])

        def evaluate(self, *args, **kwargs):
            value = next(self.losses, 9.0)
            self.log({"eval_loss": value})
            return {"eval_loss": value}

    options = dict(eval_strategy="steps", eval_steps=1, save_strategy="steps", save_steps=1)
    trainer = make_trainer(tmp_path, cls=Scripted, load_best_model_at_end=True, save_total_limit=1, **options)
    trainer.train()
    assert trainer.state.best_global_step == 2
    facts = facts_of_trainer(trainer)
    shown = "with the weights of step 2 of one run; training went on to step 3. That checkpoint was chosen by `loss` on this"
    assert facts.metrics == {"loss": 1.0} and shown in facts.metrics_of
    trainer.evaluate()
    again = facts_of_trainer(trainer)
    assert (
        again.metrics == {"loss": 9.0} and again.metrics_of == facts.metrics_of
    )  # the weights are those of step 2 still
    # While training goes on, a push brings the weights as they are.
    del trainer.state.log_history[-3:]
    assert "train_runtime" not in str(trainer.state.log_history)
    during = facts_of_trainer(trainer)
    assert during.metrics == {"loss": 2.0} and during.metrics_of.endswith("at step 3 of one run:")
    assert not list(tmp_path.glob("checkpoint-*/README.md"))


def test_arguments_of_the_push_go_into_the_card(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.train()
    trainer.evaluate()
    trainer.save_model()
    trainer.create_model_card(
        "en", license="mit", tags=["mine"], model_name="named", finetuned_from="org/base", dataset_tags="org/data"
    )
    card = (tmp_path / "README.md").read_text()
    check(card)
    data = metadata_load(tmp_path / "README.md")
    assert (data["language"], data["license"], data["base_model"], data["datasets"]) == (
        "en",
        "mit",
        "org/base",
        ["org/data"],
    )
    assert {"mine", "generated_from_trainer"} <= set(data["tags"]) and "\n# named\n" in card

    class Other(Trainer):
        _tag_names = ("other-trainer",)
        _paper = {"citation": "@article{other2024}"}

        def create_model_card(self, model_name=None, dataset_name=None, tags=None):
            raise AssertionError("the mixin writes it")

    trainer = make_trainer(tmp_path / "other", cls=type("Mine", (AtomTrainerMixin, Other), {}))
    trainer.save_model()
    trainer.create_model_card("short", "reviews", tags="x")
    card = ModelCard.load(tmp_path / "other" / "README.md")
    assert {"other-trainer", "x"} <= set(card.data.tags) and "\n# short\n" in card.text
    assert "`reviews`" in card.text or "reviews" in section(card.text, "Data")
    assert "@article{other2024}" in card.text


def test_with_the_flag_off_the_card_is_trainers_own(tmp_path):
    cards = []
    for cls, name in ((AtomTrainer, "ours"), (Trainer, "theirs")):
        trainer = make_trainer(tmp_path / name / "run", cls=cls, atom=False)
        trainer.train()
        trainer.save_model()
        assert not (tmp_path / name / "run" / "README.md").exists()
        trainer.create_model_card(language="en", tags="t")
        cards.append((tmp_path / name / "run" / "README.md").read_bytes())
    assert cards[0] == cards[1] and b"atom" not in cards[0]


def test_a_card_of_the_users_own_is_never_written_over(tmp_path):
    own = "---\nlicense: mit\n---\n# Mine\n"
    trainer = make_trainer(tmp_path / "run")
    for folder in ("run", "saved", "model"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "README.md").write_text(own)
    trainer.save_model()
    trainer.create_model_card()
    trainer.save_model(str(tmp_path / "saved"))
    trainer.model.save_pretrained(tmp_path / "model")
    assert {(tmp_path / folder / "README.md").read_text() for folder in ("run", "saved", "model")} == {own}
    (tmp_path / "model" / "README.md").write_bytes(b"\xff\xfe")  # no text, and still somebody's
    trainer.model.save_pretrained(tmp_path / "model")
    assert (tmp_path / "model" / "README.md").read_bytes() == b"\xff\xfe"
    # One of ours is written anew: it would tell of another model.
    write_card(CardFacts(name="of-another-model"), tmp_path / "model")
    trainer.model.save_pretrained(tmp_path / "model")
    assert "of-another-model" not in (tmp_path / "model" / "README.md").read_text()
    assert not is_own(tmp_path / "model") and sorted(p.name for p in (tmp_path / "model").glob(".*")) == []


def test_a_model_alone_claims_no_training(tmp_path):
    model = attach_atoms(tiny("bert"), AtomConfig(layer=1), make_tokenizer())
    model.save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text()
    check(card)
    assert MARK in card and "with the atom heads" in card and "| **layer** | 1 | -2 |" in card
    assert not re.search(r"fine-tuned|\n## (Results|Data|Training|With)", card)
    assert "has not been measured, as far as this card knows" in section(card, "Limits")
    assert set(metadata_load(tmp_path / "README.md")) == {"library_name", "pipeline_tag", "tags"}


def test_weights_that_were_never_loaded_have_no_base(tmp_path):
    tiny("bert").save_pretrained(tmp_path / "base")
    (tmp_path / "base" / "README.md").write_text("---\nlicense: bsd\n---\n")
    config = AutoConfig.from_pretrained(tmp_path / "base")
    assert config._name_or_path == str(tmp_path / "base")
    made = AutoModelForSequenceClassification.from_config(config)
    assert facts_of_model(made).base_name is None
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base")
    facts = facts_of_model(loaded)
    assert (facts.base_model, facts.base_name, facts.license) == (None, "base", "bsd")


def test_only_a_licence_that_the_hub_takes_is_passed_on(tmp_path):
    assert set(LICENSES) == set(card_rules.LICENSES) - {"other", "unknown"}
    for name in ("proprietary", "other", "mit", "llama2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "README.md").write_text(f"---\nlicense: {name}\n---\n")
        facts = base_facts(str(tmp_path / name))
        assert facts["license"] == (name if name in ("mit", "llama2") else None)
        check(str(model_card(CardFacts(**facts))))


def test_the_data_that_was_evaluated_on_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, count in (("a", 20), ("b", 8)):
        rows = "".join(f"the sea is cold {i},{i % 2}\n" for i in range(count))
        (tmp_path / f"{name}.csv").write_text("text,label\n" + rows)

    def facts(*more):
        flags = ["--model_type", "bert", "--dataset", "a.csv", *more]
        given = parse_flags("train", flags, [RunArguments, AtomTrainingArguments])[0]
        return run_facts(given, load_run_data(given), "BertForSequenceClassification")

    def card(*more):
        tag = "text-classification"
        return model_card(CardFacts(**facts(*more), pipeline_tag=tag, metrics={"accuracy": 0.5}, metrics_of="Here:"))

    other = card("--eval_dataset", "b.csv")
    check(str(other))
    assert other.data.eval_results[0].dataset_name == "b" and other.data.eval_results[0].metric_name == "accuracy"
    assert "of another data set, `b`." in other.text and "Data set: `a`." in other.text
    part = card("--eval_dataset", "b.csv", "--max_eval_samples", "6").data.eval_results[0]
    assert (part.dataset_split, part.metric_name) == (None, "accuracy on 6 samples of train")
    held_out = card("--max_train_samples", "6").data.eval_results[0]
    assert (held_out.dataset_name, held_out.dataset_split, held_out.metric_name) == ("a", None, "accuracy")
    # More than there are is all of them.
    assert not facts("--max_eval_samples", "60")["eval_is_part"]
    drawn = "Samples were drawn in proportion to the classes, with seed 3."
    assert drawn in facts("--max_train_samples", "6", "--sample_seed", "3")["data_notes"]
    lines = facts("--max_train_samples", "6", "--sample_seed", "3", "--task", "causal-lm")["data_notes"]
    assert "Samples were drawn with seed 3." in lines


@pytest.mark.parametrize("other", [False, True])
def test_rows_of_the_hub_tell_what_part_of_which_split_they_are(tmp_path, other):
    def rows(name, split, count):
        info = datasets.DatasetInfo(download_checksums={f"hf://datasets/org/{name}@main/x": {}}, config_name="default")
        info.splits = datasets.SplitDict.from_split_dict({s: {"name": s, "num_examples": 8} for s in ("train", "test")})
        return datasets.Dataset.from_dict({"labels": [0, 1] * 4}, info=info, split=split).select(range(count))

    trainer = make_trainer(tmp_path)
    trainer.train_dataset = rows("lines", "train", 8)
    for count, part in ((8, False), (6, True)):
        trainer.eval_dataset = rows("others" if other else "lines", "test", count)
        facts = facts_of_trainer(trainer)
        assert (facts.dataset_id, facts.eval_split, facts.eval_is_part) == ("org/lines", "test", part)
        assert facts.eval_dataset_id == ("org/others" if other else None)


def test_a_folder_that_is_gone_or_elsewhere_is_no_id_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("runs/b1", "runs/b2"):
        attach_atoms(tiny("bert"), AtomConfig(layer=1), make_tokenizer()).save_pretrained(name)
    (tmp_path / "runs" / "b2" / "README.md").write_text("---\nlicense: bsd\n---\n")
    late = AutoModelForSequenceClassification.from_pretrained("runs/b1")
    model = load_atom_model("runs/b2")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    model.save_pretrained("again")
    card = ModelCard.load("again/README.md")
    assert (card.data.base_model, card.data.license) == (None, "bsd") and "`b2` (a local checkpoint)" in card.text
    # Here nobody asked while the folder was there to be seen: it has a name, and nothing else is known.
    facts = facts_of_model(attach_atoms(late, AtomConfig(layer=1)))
    assert (facts.base_model, facts.base_name, facts.base_note) == (None, "b1", None)


def test_the_card_of_a_run_outlives_loading_and_saving(tmp_path):
    trainer = make_trainer(tmp_path / "run")
    trainer.train()
    trainer.save_model()
    card = (tmp_path / "run" / "README.md").read_text()
    model = load_atom_model(tmp_path / "run")
    for _ in range(2):
        model.save_pretrained(tmp_path / "run")
        assert (tmp_path / "run" / "README.md").read_text() == saved_again(card, card) != card
    model.save_pretrained(tmp_path / "other")
    other = (tmp_path / "other" / "README.md").read_text()
    assert "the weights of `run` (a local checkpoint)" in other and "## Training" not in other


def test_a_card_says_whether_importance_is_tied_to_the_prediction(tmp_path):
    trainer = make_trainer(tmp_path / "run")
    trainer.train()
    trainer.save_model()
    run = section((tmp_path / "run" / "README.md").read_text(), "Reading importances")
    model = load_atom_model(tmp_path / "run")
    add_tied(model, model.config.num_labels, 8)
    for place in ("run", "other"):
        model.save_pretrained(tmp_path / place)
    kept, alone = (
        section(card := (tmp_path / place / "README.md").read_text(), "Reading importances")
        for place in ("run", "other")
    )
    assert kept == alone and "## Training" in (tmp_path / "run" / "README.md").read_text()
    check(card)
    # The numbers that the run logged are of the charges.
    assert "mean |importance|" in run and "mean |importance|" not in kept
    for told, says in ((run, "tells the sample apart"), (kept, "the prediction leans on the token")):
        assert says in told and "this very model has not been measured" in told
    assert "leans on" not in run and "tells the sample apart" not in kept
    assert "| tied_classes | 2 |" in section(card, "Atom settings")
    untie(model)
    model.save_pretrained(tmp_path / "run")
    # The section of a run without its numbers.
    assert run.endswith(back := section((tmp_path / "run" / "README.md").read_text(), "Reading importances")[1:])
    assert "It\ndoes not come from the prediction" in back
    add_tied(trainer.model, model.config.num_labels, 8)
    trainer.save_model()
    told = section((tmp_path / "run" / "README.md").read_text(), "Reading importances")
    assert told == kept and "seed" in (tmp_path / "run" / "README.md").read_text()


def test_embedded_models_are_known_by_folder_and_by_name():
    from atom_hf.tasks import EMBEDDED_MODELS, find_model

    for name in EMBEDDED_MODELS:
        assert base_facts(name) == base_facts(find_model(name)) and base_facts(name)["license"] == "apache-2.0"
    assert base_facts("minilm")["base_model"] == "sentence-transformers/all-MiniLM-L6-v2"


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT 0.21.2 on Transformers 5.23
def test_an_adapter_is_called_one():
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny("bert"), LoraConfig(target_modules=["query"], task_type="SEQ_CLS"))
    facts = replace(facts_of_model(model), base_model="org/base")
    card = str(model_card(facts))
    check(card)
    data = ModelCard(card).data
    assert (data.library_name, data.base_model_relation, data.pipeline_tag) == (
        "peft",
        "adapter",
        "text-classification",
    )
    lines = section(card, "How to load it")
    assert (
        'PeftModel.from_pretrained(BertForSequenceClassification.from_pretrained("org/base"), "path/to/model")' in lines
    )
    assert "An adapter of [org/base]" in card and "peft" in section(card, "Versions")


def test_the_task_of_a_model_is_found_by_its_class():
    tasks = {name: pipeline_tag(TINY[name][0]) for name in ("bert", "gpt2", "vit")}
    assert tasks == {"bert": "text-classification", "gpt2": "text-generation", "vit": "image-classification"}
    assert pipeline_tag("BertForMultipleChoice") == "multiple-choice"
    assert pipeline_tag("WhisperForConditionalGeneration") == "automatic-speech-recognition"
    assert pipeline_tag("MyOwnModel") is None
