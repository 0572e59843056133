"""The model that a comparison keeps: its card, and the commands that are printed with it, each run as it is printed."""

import os
import shlex
import subprocess
import sys

import datasets
import pytest

from atom_hf import load_atom_model
from atom_hf.cli.main import main
from atom_hf.explainer.fit import FEWEST
from helpers.cards import section
from helpers.hub_client import client, succeeded
from helpers.hub_server import TOKEN

SIZES = "hidden_size=16,num_hidden_layers=1,num_attention_heads=2,intermediate_size=16"
TEXTS = (
    f"compare --model_type bert --config_overrides {SIZES} --vocabulary_size 300 --dataset lines.csv --output_dir texts"
)
PICTURES = (
    f"compare --model_type vit --config_overrides image_size=8,patch_size=4,num_channels=1,{SIZES} --dataset digits "
    "--max_train_samples 40 --max_eval_samples 20 --output_dir pictures"
)
SHORT = "--seeds 2 --max_steps 2 --per_device_train_batch_size 8 --keep_model"


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Two comparisons that keep their models: their folder, and what was printed."""
    folder = tmp_path_factory.mktemp("kept")
    lines = ["the sea's cold and grey,no", "a fire is warm and red,yes", '"it said ""sing"" by the $(fire)",yes']
    lines += ["no,no", f"{'a long line ' * 20},no"]
    (folder / "lines.csv").write_text("text,label\n" + "\n".join(lines * 6) + "\n", encoding="utf-8")
    printed = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
        patch.setattr("atom_hf.experiments.compare.EXPLAINER_SAMPLES", FEWEST)
        patch.setattr("atom_hf.explainer.descent.STEPS", 20)
        patch.setattr("atom_hf.explainer.descent.LOOK", 10)
        for name, flags in (("texts", TEXTS), ("pictures", PICTURES)):
            with open(folder / f"{name}.out", "w", encoding="utf-8") as out:
                patch.setattr(sys, "stdout", out)
                assert main(shlex.split(f"{flags} {SHORT}")) == 0
            printed[name] = (folder / f"{name}.out").read_text(encoding="utf-8")
    return folder, printed


def commands_of(printed):
    """The last lines: what is to be tried."""
    before, after = printed.split("\nTry it:\n\n")
    assert "\nmodel     " in before and len(after.splitlines()) == 3
    return [line.strip() for line in after.splitlines()]


@pytest.mark.parametrize("name", ["texts", "pictures"])
def test_explain_and_the_pipeline_run_as_they_are_printed(kept, name):
    folder, printed = kept
    explain, pipeline, _ = commands_of(printed[name])
    for command, part in ((explain, "importance.html"), (pipeline, "'label': ")):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0 and part in done.stdout, done.stderr[-2000:]
    assert (folder / "importance.html").exists()


# The code of a card, block by block, as a reader of the repository would run it.
RUN_CARD = """
import re, huggingface_hub
with open(huggingface_hub.hf_hub_download("REPOSITORY", "README.md"), encoding="utf-8") as card:
    blocks = re.findall(r"```python\\n(.*?)```", card.read(), re.S)
names = {}
for block in blocks:
    exec(block, names)
found = [len(blocks), list(names["importance"].shape[:1])]
"""


def test_push_runs_as_it_is_printed_and_so_does_the_code_of_the_card(kept, hub):
    folder, printed = kept
    steps = {}
    for name in ("texts", "pictures"):
        words = shlex.split(commands_of(printed[name])[2])
        steps[name] = {"arguments": words[words.index("push") :], "environment": {"HF_TOKEN": TOKEN}}
        code = RUN_CARD.replace("REPOSITORY", f"org/{words[words.index('--repo') + 1]}")
        steps[f"{name}, used"] = {"python": code, "environment": {"HF_TOKEN": TOKEN}}
    answers = client(hub, folder, steps)
    for name, repository in (("texts", "org/lines-new-bert-atom"), ("pictures", "org/digits-new-vit-atom")):
        succeeded(answers[name])
        _, files = answers[name]["heads"][f"{repository}@main"]
        shown = {"importance.png"} | ({"sample.png"} if name == "pictures" else set())
        assert {"config.json", "model.safetensors", "atom_heads.safetensors", "README.md", *shown} <= set(files)
        assert succeeded(answers[f"{name}, used"])["found"] == [3, [1]]


def test_the_model_is_whole_and_its_card_has_the_comparison_that_it_is_of(kept):
    folder, _ = kept
    assert load_atom_model(folder / "texts" / "model").atom_config.has_explainer
    card = (folder / "texts" / "model" / "README.md").read_text(encoding="utf-8")
    assert "# lines-new-bert-atom" in card and "| metric | plain | atom | atom - plain [95 %] |" in card
    assert "This model is one of them." in card and "/tmp" not in card and str(folder) not in card
    assert "![Evaluation samples under their importance](importance.png)" in card
    assert len(section(card, "Examples").split("\n| ")) == 1 + 2 + 3 and "widget:\n- text: " in card
    results, training = section(card, "Results"), section(card, "Training")
    assert "| class | samples | precision | recall | F1 |" in results and "| yes | " in results
    assert "| step | epoch | training loss | task loss | atom energy |" in training and "\n| 2 | " in training


def test_the_sample_is_one_word_of_a_command_line(kept):
    """A short text that is a whole line, quoted as a shell needs it."""
    folder, printed = kept
    explain, pipeline, _ = commands_of(printed["texts"])
    words = shlex.split(explain)
    text = words[words.index("explain") + 1]
    assert text in ("the sea's cold and grey", "a fire is warm and red", 'it said "sing" by the $(fire)')
    assert repr(text) in shlex.split(pipeline)[-1]
    assert (folder / "pictures" / "sample.png").exists()


def test_programs_are_called_by_name_where_the_path_finds_them(kept, tmp_path, monkeypatch):
    from atom_hf.cli import compare
    from atom_hf.experiments.kept_model import KeptModel
    from atom_hf.hub.card import CardFacts

    model = KeptModel(tmp_path / "m", CardFacts(name="m"), "the sea")
    monkeypatch.setattr(sys, "argv", ["/somewhere/atom_hf/__main__.py"])
    assert [shlex.split(line)[0] for line in compare.commands(model)] == [sys.executable] * 3
    for name in ("atom-hf", "python"):
        (tmp_path / "bin" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text("#!/bin/sh\n")
        (tmp_path / "bin" / name).chmod(0o755)
    program = str(tmp_path / "bin" / "atom-hf")
    monkeypatch.setattr(sys, "argv", [program])
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert [shlex.split(line)[0] for line in compare.commands(model)] == [
        program,
        str(tmp_path / "bin/python"),
        program,
    ]
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    assert [shlex.split(line)[0] for line in compare.commands(model)] == ["atom-hf", "python", "atom-hf"]


def test_no_model_is_kept_where_no_arm_has_atoms(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(f"{PICTURES} {SHORT} --change learning_rate=1")) == 2
    assert "--keep_model keeps the model of a run with --atom, and no arm has it" in capsys.readouterr().err


def test_the_same_command_again_leaves_the_model_and_prints_the_same(kept, monkeypatch, capsys):
    folder, printed = kept
    monkeypatch.chdir(folder)
    monkeypatch.setattr("atom_hf.experiments.compare.EXPLAINER_SAMPLES", FEWEST)
    monkeypatch.setattr("atom_hf.explainer.descent.STEPS", 20)
    monkeypatch.setattr("atom_hf.explainer.descent.LOOK", 10)
    before = (folder / "texts" / "model" / "model.safetensors").read_bytes()
    assert main(shlex.split(f"{TEXTS} {SHORT}")) == 0
    assert capsys.readouterr().out == printed["texts"]
    assert (folder / "texts" / "model" / "model.safetensors").read_bytes() == before
