"""`atom-hf train` on tiny runs: what it prints, writes and says to do next, and going on."""

import json
import math
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import datasets
import pandas as pd
import pytest
import torch
import transformers
from safetensors.torch import load_file

from atom_hf import AtomMixin, load_atom_model
from atom_hf.data.load import load_data
from atom_hf.finetune.pretrained import find_model
from atom_hf.utils.tables import format_number
from helpers.commands import BERT, COMMANDS, SHORT, STILL, closing, command, parse, results, train

FITTED = ("image", "atom")  # the one run that fits an explainer at its end
METRICS = {"image": ["loss", "accuracy", "f1", "mcc"], "text": ["loss", "accuracy", "f1", "mcc"]}
TASKS = {"image": "image-classification", "text": "text-classification", "lm": "causal-lm", "lines": "causal-lm"}
SUMMARY = ["mean |importance|", "positive share", "negative share"]


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """The folder in which the commands run, with verse as a table, as objects and as lines."""
    folder = tmp_path_factory.mktemp("cli")
    verse = load_data("verse", max_train_samples=60, max_eval_samples=2)
    rows = pd.DataFrame({"text": verse.train["text"][:], "label": [verse.labels[i] for i in verse.train["label"]]})
    rows.to_csv(folder / "verse.csv", index=False)
    rows[["text"]].to_json(folder / "verse.jsonl", orient="records", lines=True)
    (folder / "verse.txt").write_text("\n".join(rows["text"]) + "\n", encoding="utf-8")
    odd = rows.rename(columns={"text": "title", "label": "mood"})
    odd.assign(note="a remark that is far longer than any of the verses and says nothing about them at all").to_csv(
        folder / "odd.csv", index=False
    )
    return folder


@pytest.fixture(autouse=True)
def in_folder(here, monkeypatch):
    monkeypatch.chdir(here)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", here / "cache")
    datasets.disable_progress_bars()


@pytest.fixture(scope="module")
def runs(here):
    """What `train` prints for each task, without and with the flag; the folders are called after both."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", here / "cache")
        return {
            (kind, arm): train(
                f"{flags} {SHORT} {'--atom' if arm == 'atom' else ''} --output_dir {kind}-{arm}", (kind, arm) == FITTED
            )
            for kind, flags in COMMANDS.items()
            for arm in ("plain", "atom")
        }


BOTH = pytest.mark.parametrize("arm", ["plain", "atom"])
KINDS = pytest.mark.parametrize("kind", COMMANDS)


# Training


@BOTH
@KINDS
def test_closing_table(runs, kind, arm):
    header, rows, below = closing(runs[kind, arm])
    name = COMMANDS[kind].split("--dataset ")[1].split()[0].removesuffix(f".{kind}").split(".")[0]
    assert header.split() == [f"{name},", TASKS[kind], arm]
    metrics = METRICS.get(kind, ["loss", "perplexity"])
    fitted = ["masking explained"] if (kind, arm) == FITTED else []
    assert list(rows) == metrics + (SUMMARY if arm == "atom" else []) + fitted
    saved = results(f"{kind}-{arm}")
    for metric in metrics:
        assert rows[metric] == format_number(saved[metric])
        assert math.isfinite(float(rows[metric]))
    if arm == "atom":
        assert 0 < float(rows[SUMMARY[0]]) <= 1
        assert float(rows[SUMMARY[1]]) + float(rows[SUMMARY[2]]) == pytest.approx(1, abs=1e-3)
        assert rows[SUMMARY[0]] == format_number(saved["importance"])
    assert below["model"] == f"{kind}-{arm}"


@BOTH
@KINDS
def test_what_is_written(runs, kind, arm):
    folder = Path(f"{kind}-{arm}")
    files = {path.name for path in folder.iterdir()}
    assert {"config.json", "model.safetensors", "all_results.json"} <= files
    assert ({"atom_config.json", "atom_heads.safetensors"} <= files) == (arm == "atom")
    assert ("preprocessor_config.json" if kind == "image" else "tokenizer.json") in files
    # The base loads as if there were no atoms.
    auto = {"image": "ImageClassification", "text": "SequenceClassification"}.get(kind, "CausalLM")
    model, info = getattr(transformers, f"AutoModelFor{auto}").from_pretrained(folder, output_loading_info=True)
    assert not isinstance(model, AtomMixin) and not any(info.values())


@pytest.mark.parametrize("kind", ["lm", "lines"])
def test_perplexity_is_of_the_loss(runs, kind):
    found = results(f"{kind}-plain")
    assert found["perplexity"] == pytest.approx(math.exp(found["loss"]))


@KINDS
def test_the_flag_changes_what_is_learnt(runs, kind):
    assert results(f"{kind}-plain")["loss"] != results(f"{kind}-atom")["loss"]


def test_labels_have_their_names(runs):
    assert set(transformers.AutoConfig.from_pretrained("text-atom").label2id) == {"intact", "swapped"}
    assert transformers.AutoConfig.from_pretrained("image-plain").id2label[7] == "7"


def test_default_folder_is_named_after_the_run(runs):
    out = train(f"{COMMANDS['image']} {SHORT} --atom")
    folder = Path("runs", "digits-vit-fashion-mnist-atom")
    assert closing(out)[2]["model"] == str(folder) and (folder / "atom_heads.safetensors").is_file()
    assert results(folder) == results("image-atom")  # the folder is all that differs


# The next command


@KINDS
def test_next_command_after_a_plain_run_is_the_same_run_with_the_flag(runs, kind, tmp_path):
    words = shlex.split(closing(runs[kind, "plain"])[2]["next"])
    assert words[:2] == ["atom-hf", "train"] and words.count("--atom") == 1
    given = parse(shlex.split(f"{COMMANDS[kind]} {SHORT}"))[0]
    proposed, args = parse(words[2:])
    # Another model or other data would be no comparison.
    for name in ("model", "model_type", "config_overrides", "dataset", "eval_dataset", "vocabulary_size", "max_length"):
        assert getattr(proposed, name) == getattr(given, name), name
    assert args.atom
    train(f"{shlex.join(words[2:])} {SHORT} --output_dir {tmp_path / 'next'}")
    assert load_atom_model(tmp_path / "next").atom_config.hidden_size
    assert results(tmp_path / "next") == results(f"{kind}-atom")


@KINDS
def test_next_command_after_an_atom_run_explains_it(runs, kind, tmp_path):
    words = shlex.split(closing(runs[kind, "atom"])[2]["next"])
    assert words[:2] == ["atom-hf", "explain"]
    status, out, err = command([*words[1:], "--page", str(tmp_path / "page.html")])
    assert status == 0, err
    assert f"page      {tmp_path / 'page.html'}\npicture   {tmp_path / 'page.png'}\n" in out
    assert (tmp_path / "page.html").is_file() and (tmp_path / "page.png").is_file()


def test_next_commands_know_the_columns(here, tmp_path):
    columns = "--text_column title --label_column mood --task text-classification"
    plain = train(f"{BERT} --dataset odd.csv {columns} {SHORT} --output_dir {tmp_path / 'plain'}")
    proposed = parse(shlex.split(closing(plain)[2]["next"])[2:])[0]
    assert (proposed.text_column, proposed.label_column) == ("title", "mood")
    atom = train(f"{BERT} --dataset odd.csv {columns} {SHORT} --output_dir {tmp_path / 'atom'} --atom")
    words = shlex.split(closing(atom)[2]["next"])
    assert command([*words[1:], "--page", str(tmp_path / "page.html")])[0] == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "remark" not in page and "swapped" in page


# Explaining


def png_size(path):
    start = path.read_bytes()[:24]
    assert start[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(start[16:20], "big"), int.from_bytes(start[20:24], "big")


def test_explain_texts(runs, tmp_path):
    page = tmp_path / "deep" / "page.html"
    status, out, _ = command(
        ["explain", "--model", "text-atom", "--text", "Shall I <b>compare</b> thee", "a day"] + ["--page", str(page)]
    )
    assert status == 0 and "Shall(" in out and f"\npage      {page}\n" in out
    text = page.read_text(encoding="utf-8")
    assert "compare" in text and "<b>compare" not in text and "day" in text
    assert "intact" in text or "swapped" in text
    assert min(png_size(page.with_suffix(".png"))) > 100


def test_explain_as_many_samples_as_asked(runs, tmp_path):
    for samples in (2, 5):
        page = tmp_path / f"{samples}.html"
        status, _, _ = command(f"explain --model image-atom --dataset digits --samples {samples} --page {page}")
        assert status == 0
        assert page.read_text(encoding="utf-8").count("data:image/png;base64,") == 2 * samples
        assert min(png_size(page.with_suffix(".png"))) > 100


def test_explain_takes_a_checkpoint(runs, tmp_path):
    page = tmp_path / "page.html"
    status, _, err = command(f"explain --model text-atom/checkpoint-3 --text 'a day' --page {page}")
    assert status == 0, err
    assert "day" in page.read_text(encoding="utf-8")


# Going on


@pytest.mark.promise("A killed run resumes as if it had not been interrupted.")
@BOTH
def test_resumed_ends_where_an_unbroken_run_ends(tmp_path, arm):
    flags = f"{COMMANDS['text']} --max_steps 6 --save_steps 3 --per_device_train_batch_size 8 --max_eval_samples 16"
    flags += " --atom" if arm == "atom" else ""
    train(f"{flags} --output_dir {tmp_path / 'whole'}")
    # What is there when a run is cut after step 3.
    shutil.copytree(tmp_path / "whole" / "checkpoint-3", tmp_path / "cut" / "checkpoint-3")
    out = train(f"{flags} --output_dir {tmp_path / 'cut'} --resume_from_checkpoint true")
    assert results(tmp_path / "cut") == results(tmp_path / "whole")
    names = ["model.safetensors", *(["atom_heads.safetensors"] if arm == "atom" else [])]
    for name in names:
        whole, cut = load_file(tmp_path / "whole" / name), load_file(tmp_path / "cut" / name)
        assert whole.keys() == cut.keys() and all(torch.equal(whole[key], cut[key]) for key in whole)
    steps = [line for line in out.splitlines() if line.startswith("trained 3 steps in ")]
    assert len(steps) == 1
    state = json.loads((tmp_path / "cut" / "trainer_state.json").read_text())
    assert state["global_step"] == 6


def test_interrupted(monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(transformers.Trainer, "_inner_training_loop", stop)
    status, _, err = command(f"train {COMMANDS['image']} {SHORT} --output_dir stopped")
    assert status == 130 and "interrupted" in err.splitlines()[-1] and "Traceback" not in err


def test_classes_other_than_the_checkpoints_start_anew(tmp_path):
    train(f"{COMMANDS['image']} {SHORT} {STILL} --output_dir {tmp_path / 'run'}")
    before = load_file(Path(find_model("vit-fashion-mnist")) / "model.safetensors")
    after = load_file(tmp_path / "run" / "model.safetensors")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"classifier.weight", "classifier.bias"}
    assert not torch.isclose(before["classifier.weight"], after["classifier.weight"]).any()


def test_a_model_with_heads_goes_on_with_them(runs, tmp_path):
    train(f"--model image-atom --dataset digits {SHORT} {STILL} --atom --output_dir {tmp_path / 'still'}")
    for name in ("atom_heads.safetensors", "model.safetensors"):
        before, after = load_file(Path("image-atom") / name), load_file(tmp_path / "still" / name)
        # An explainer is fitted to a model as it was: training removes it.
        assert after.keys() == {key for key in before if not key.startswith("explainer.")}, name
        assert all(torch.equal(before[key], after[key]) for key in after), name
    # And they train on.
    train(f"--model image-atom --dataset digits {SHORT} --atom --output_dir {tmp_path / 'on'}")
    before, after = (load_file(Path(folder) / "atom_heads.safetensors") for folder in ("image-atom", tmp_path / "on"))
    assert any(not torch.equal(before[key], after[key]) for key in after)
    # Without the flag they are not part of the run.
    train(f"--model image-atom --dataset digits {SHORT} --output_dir {tmp_path / 'plain'}")
    assert not list((tmp_path / "plain").rglob("atom_*"))


def test_horizontal_flip_is_of_training_only(runs, tmp_path):
    train(f"{COMMANDS['image']} {SHORT} --horizontal_flip --output_dir {tmp_path / 'flipped'}")
    assert results(tmp_path / "flipped")["loss"] != results("image-plain")["loss"]
    # Nothing is learnt here: the evaluation sees the pictures as they are.
    for name, flag in (("a", ""), ("b", "--horizontal_flip")):
        train(f"{COMMANDS['image']} {SHORT} {STILL} {flag} --output_dir {tmp_path / name}")
    assert results(tmp_path / "a")["loss"] == results(tmp_path / "b")["loss"]


# Several processes


def test_two_processes_print_one_table_and_learn_what_one_does(tmp_path):
    flags = f"{BERT},hidden_dropout_prob=0,attention_probs_dropout_prob=0 --dataset verse.csv --vocabulary_size 400"
    flags += " --atom --max_steps 3 --max_eval_samples 16"
    train(f"{flags} --per_device_train_batch_size 8 --output_dir {tmp_path / 'one'}")
    launch = f"-m atom_hf train --accelerate_config ddp --num_processes 2 --use_cpu {flags}"
    done = subprocess.run(
        [sys.executable, *shlex.split(f"{launch} --per_device_train_batch_size 4 --output_dir {tmp_path / 'two'}")],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    header, rows, below = closing(done.stdout)
    assert "masking explained" in rows  # fitted by both
    assert header.split() == ["verse,", "text-classification", "atom"] and done.stdout.count("\nloss ") == 1
    assert below["model"] == str(tmp_path / "two") and below["next"].startswith("atom-hf explain")
    one, two = results(tmp_path / "one"), results(tmp_path / "two")
    # Not the loss: Transformers multiplies that of an evaluation by the number of processes.
    assert all(two[metric] == pytest.approx(one[metric]) for metric in ("accuracy", "f1", "mcc"))
    assert two["importance"] == pytest.approx(one["importance"], rel=0.05)
