"""The command line on small real runs: what it trains, prints, writes and goes on with."""

import contextlib
import importlib.metadata
import io
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

import atom_hf
from atom_hf import AtomMixin, cli, load_atom_model
from atom_hf.arguments import AtomTrainingArguments
from atom_hf.cli import main
from atom_hf.data import load_data
from atom_hf.flags import parse_flags
from atom_hf.formats import format_number
from atom_hf.run import RunArguments
from atom_hf.study import StudyArguments, run_study
from atom_hf.tasks import find_model
from atom_hf.tie_command import TieArguments
from helpers.paths import ROOT

RECIPES = sorted(path for stem in ("plain", "atom") for path in (ROOT / "recipes").glob(f"*/{stem}.yaml"))
STUDIES = sorted((ROOT / "recipes" / "study").glob("*.yaml"))
SHORT = "--max_steps 3 --per_device_train_batch_size 8 --max_train_samples 24 --max_eval_samples 16"
BERT = (
    "--model_type bert --config_overrides hidden_size=16,num_hidden_layers=1,num_attention_heads=2,intermediate_size=16"
)
GPT2 = "--model_type gpt2 --config_overrides n_embd=16,n_layer=1,n_head=2,n_positions=32 --vocabulary_size 300"
STILL = "--learning_rate 0 --atom_head_learning_rate 0"
COMMANDS = {
    "image": "--model vit-fashion-mnist --dataset digits",
    "text": f"{BERT} --dataset verse.csv --vocabulary_size 400",
    "lm": f"{GPT2} --dataset verse.jsonl --max_length 32",
    "lines": f"{GPT2} --dataset verse.txt --eval_dataset verse.jsonl --max_length 32",
}
TIED = ("image", "atom")  # the one run whose importance is tied at its end; the others' is left alone
METRICS = {"image": ["loss", "accuracy", "f1", "mcc"], "text": ["loss", "accuracy", "f1", "mcc"]}
TASKS = {"image": "image-classification", "text": "text-classification", "lm": "causal-lm", "lines": "causal-lm"}
SUMMARY = ["mean |importance|", "positive share", "negative share"]


def command(line):
    """(exit status, what it prints, what it says on stderr)."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(shlex.split(line) if isinstance(line, str) else line)
        except SystemExit as stop:
            status = stop.code
    return status, out.getvalue(), err.getvalue()


def parse(arguments):
    return parse_flags("train", arguments, [RunArguments, AtomTrainingArguments, TieArguments])[:2]


def train(line, tie=False):
    status, out, err = command(f"train {line} --tie {tie}")
    assert status == 0, err
    return out


def results(folder):
    values = json.loads((Path(folder) / "all_results.json").read_text(encoding="utf-8"))
    return {name.removeprefix("eval_"): value for name, value in values.items()}


def closing(out):
    """The closing table: its header, its rows, and the lines below it by their first word."""
    lines = out.splitlines()
    rule = next(i for i, line in enumerate(lines) if line.startswith("-----"))
    end = lines.index("", rule)
    rows = dict(line.rsplit(None, 1) for line in lines[rule + 1 : end])
    return lines[rule - 1], rows, dict(line.split(None, 1) for line in lines[end + 1 :])


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
                f"{flags} {SHORT} {'--atom' if arm == 'atom' else ''} --output_dir {kind}-{arm}", (kind, arm) == TIED
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
    tied = ["erased tokens explained"] if (kind, arm) == TIED else []
    assert list(rows) == metrics + (SUMMARY if arm == "atom" else []) + tied
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


# Files of flags


def test_flags_win_over_the_file(tmp_path):
    (tmp_path / "recipe.yaml").write_text(
        "dataset: digits\nlearning_rate: 1e-3\nmax_steps: 7\natom: true\natom_weight: 2\nhorizontal_flip: true\n"
        "config_overrides:\n  hidden_size: 16\n  hidden_act: relu\n  qkv_bias: false\n",
        encoding="utf-8",
    )
    file = str(tmp_path / "recipe.yaml")
    run, args = parse(["--config", file])
    assert (run.dataset, run.horizontal_flip, args.learning_rate, args.max_steps) == ("digits", True, 1e-3, 7)
    assert args.atom is True and args.atom_weight == 2.0
    for flags in (["--config", file, "--max_steps", "2"], ["--max_steps", "2", f"--config={file}"]):
        run, args = parse([*flags, "--atom", "false", "--config_overrides", "hidden_size=8"])
        assert (args.max_steps, args.atom, run.config_overrides) == (2, False, "hidden_size=8")
        assert (args.learning_rate, run.dataset) == (1e-3, "digits")


def test_overrides_as_a_mapping_reach_the_model(tmp_path):
    sizes = {"image_size": 8, "patch_size": 4, "num_channels": 1, "hidden_size": 12, "num_hidden_layers": 1}
    lines = [
        f"  {name}: {value}" for name, value in {**sizes, "num_attention_heads": 2, "intermediate_size": 8}.items()
    ]
    text = "\n".join(["model_type: vit", "dataset: digits", "config_overrides:", *lines, "  qkv_bias: false"])
    (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
    train(f"--config {tmp_path / 'recipe.yaml'} {SHORT} --output_dir {tmp_path / 'run'}")
    config = transformers.AutoConfig.from_pretrained(tmp_path / "run")
    assert {name: getattr(config, name) for name in sizes} == sizes and config.qkv_bias is False


def test_every_recipe_is_seen():
    assert len(RECIPES) > 10
    assert {*RECIPES, *STUDIES} == {*(ROOT / "recipes").glob("*/*.yaml")}


@pytest.mark.parametrize("recipe", RECIPES, ids=[f"{path.parent.name}-{path.stem}" for path in RECIPES])
def test_recipe_is_read(recipe):
    run, args = parse(["--config", str(recipe)])
    assert run.dataset and (run.model is None) != (run.model_type is None)
    assert args.atom == (recipe.stem == "atom")
    if args.atom:
        args.atom_config()


@pytest.mark.parametrize("folder", sorted({path.parent for path in RECIPES}), ids=lambda folder: folder.name)
def test_a_pair_of_recipes_differs_in_the_flag_alone(folder):
    pair = {path.stem: path.read_text(encoding="utf-8").splitlines() for path in folder.glob("*.yaml")}
    if set(pair) == {"plain"}:  # how a checkpoint that ships was made
        assert pair["plain"].count("atom: false") == 1
        return
    assert set(pair) == {"plain", "atom"}
    different = [(a, b) for a, b in zip(pair["plain"], pair["atom"], strict=True) if a != b]
    assert different == [("atom: false", "atom: true")]


@pytest.mark.parametrize("file", STUDIES, ids=lambda path: path.stem)
def test_the_flags_of_a_study_are_read(tmp_path, file):
    """Of each arm in each setting at each size; what else a study refuses is told by its first run."""
    found, lines, _ = run_study(str(file), StudyArguments(seeds=2, output_dir=str(tmp_path), report_only=True))
    assert len(found.arms) > 1 and found.settings and lines == []


def test_a_recipe_with_flags_behind_it_runs(tmp_path):
    recipe = ROOT / "recipes" / "digits" / "atom.yaml"
    out = train(f"--config {recipe} --max_steps 1 --max_train_samples 16 --output_dir {tmp_path / 'run'}")
    assert closing(out)[0].endswith("atom")
    assert json.loads((tmp_path / "run" / "trainer_state.json").read_text())["global_step"] == 1


# Help


def test_help_and_version_of_the_module():
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "atom_hf", "--help"], capture_output=True, text=True, env=environment, check=True
    )
    usage = done.stdout.split("\n\n")[1]
    assert sorted(line.split()[0] for line in usage.splitlines()) == sorted(cli.COMMANDS) and done.stderr == ""
    assert command("--version") == (0, f"atom-hf {atom_hf.__version__}\n", "")
    assert command([])[0] == command("-h")[0] == 0


def test_the_installed_script_is_the_same():
    entry = next(e for e in importlib.metadata.entry_points(group="console_scripts") if e.name == "atom-hf")
    assert entry.load() is main


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("train", ["--model", "--dataset", "--atom", "--atom_weight", "--learning_rate", "--config"]),
        ("compare", ["--seeds", "--arms", "--page", "--atom_weight"]),
        ("explain", ["--model", "--dataset", "--text", "--file", "--samples", "--page"]),
    ],
)
def test_each_command_lists_its_flags(name, flags):
    status, out, _ = command(f"{name} --help")
    assert status == 0 and f"atom-hf {name}" in out
    assert all(f"{flag} " in out for flag in flags)


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
    steps = [line for line in out.splitlines() if "'train_runtime'" in line]
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
        # A tie is to a model as it was: training takes it away.
        assert after.keys() == {key for key in before if not key.startswith("tied.")}, name
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
    assert "erased tokens explained" in rows  # tied, by both
    assert header.split() == ["verse,", "text-classification", "atom"] and done.stdout.count("\nloss ") == 1
    assert below["model"] == str(tmp_path / "two") and below["next"].startswith("atom-hf explain")
    one, two = results(tmp_path / "one"), results(tmp_path / "two")
    # Not the loss: Transformers multiplies that of an evaluation by the number of processes.
    assert all(two[metric] == pytest.approx(one[metric]) for metric in ("accuracy", "f1", "mcc"))
    assert two["importance"] == pytest.approx(one["importance"], rel=0.05)
