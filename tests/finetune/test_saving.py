"""Runs whose disk fills, or whose training diverges: what is printed, kept and said."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from atom_hf import AtomError, load_atom_model
from atom_hf.errors import WriteError
from atom_hf.finetune.resume import last_checkpoint, last_good_checkpoint
from atom_hf.utils.lock import lock_folder
from helpers.commands import command

VIT = (
    "train --model_type vit --config_overrides hidden_size=16,num_hidden_layers=1,num_attention_heads=2,"
    "intermediate_size=16,image_size=8,patch_size=4,num_channels=1 --dataset digits --max_train_samples 24 "
    "--max_eval_samples 10 --per_device_train_batch_size 8 --use_cpu --report_to none --output_dir run"
)
PLAIN, ATOM = f"{VIT} --max_steps 3", f"{VIT} --max_steps 3 --atom --no_explainer"
DIVERGES = "--learning_rate 1e38 --lr_scheduler_type constant --optim sgd --max_grad_norm 0"
FULL = OSError(errno.ENOSPC, "No space left on device")

pytestmark = [
    pytest.mark.usefixtures("digits_once", "own_folder"),
    pytest.mark.promise(
        "A full disk loses no results, and a model of NaNs is not saved.",
        "disks that fill in a checkpoint, at the last save and while the results are written; runs that diverge",
    ),
]


def full(*_, **__):
    raise FULL


def last_line(err):
    assert "Traceback" not in err
    return err.splitlines()[-1]


@pytest.mark.parametrize("line", [PLAIN, ATOM], ids=["plain", "atom"])
@pytest.mark.parametrize(
    "writer",
    [
        "transformers.modeling_utils.safe_save_file",
        "torch.save",
        "os.fsync",
        "transformers.PreTrainedConfig.save_pretrained",
    ],
)
def test_results_are_printed_though_the_model_cannot_be_saved(monkeypatch, line, writer):
    monkeypatch.setattr(writer, full)
    status, out, err = command(f"{line} --save_strategy no")
    assert status == 2 and "accuracy" in out and "model " not in out and "next " not in out
    assert last_line(err).startswith("atom-hf: error: --output_dir 'run': the model")
    assert last_line(err).endswith(
        "could not be saved: No space left on device; make room, and give another --output_dir"
    )
    written = os.listdir("run") if os.path.exists("run") else []
    assert set(written) <= {"trainer_state.json", "eval_results.json", "all_results.json"}


@pytest.mark.parametrize("line", [PLAIN, ATOM], ids=["plain", "atom"])
def test_training_goes_on_without_a_checkpoint_that_cannot_be_written(monkeypatch, line):
    real = torch.save

    def save(what, file, *args, **options):
        if "checkpoint-2" in str(file):
            raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0")
        return real(what, file, *args, **options)

    monkeypatch.setattr(torch, "save", save)
    status, out, err = command(f"{line} --save_steps 1")
    assert status == 2 and "accuracy" in out and "model     run" in out
    assert "checkpoint-2 could not be saved: a file could not be written to its end" in last_line(err)
    assert last_line(err).endswith("; the model is saved")
    folders = sorted(name for name in os.listdir("run") if name.startswith("checkpoint-"))
    assert folders == ["checkpoint-1", "checkpoint-3"]
    shutil.rmtree("run/checkpoint-3")
    monkeypatch.setattr(torch, "save", real)
    assert command(f"{line} --save_steps 1 --resume_from_checkpoint true")[0] == 0
    assert last_checkpoint("run") == "run/checkpoint-3"


def test_metrics_that_cannot_be_saved_are_printed_and_the_model_stays(monkeypatch):
    monkeypatch.setattr("transformers.TrainerState.save_to_json", full)
    status, out, err = command(f"{ATOM} --save_strategy no")
    assert status == 2 and "accuracy" in out and "model     run" in out
    assert "trainer_state.json and eval_results.json could not be saved: No space left" in last_line(err)
    load_atom_model("run")


def test_a_fitted_importance_that_cannot_be_saved_leaves_the_trained_model(monkeypatch, few_steps):
    monkeypatch.setattr("atom_hf.modeling.mixin.write_heads", fail_with_explainer)
    status, out, err = command(f"{VIT} --max_steps 3 --atom --explainer_samples 16 --save_strategy no")
    assert status == 2 and "masking explained" in out and "model     run" in out
    assert "the fitted importance could not be saved: No space left" in last_line(err)
    assert load_atom_model("run").atom_heads.explainer is None


def fail_with_explainer(heads, folder, config=None):
    from atom_hf.modeling.heads_file import write_heads

    if config.has_explainer:
        raise FULL
    write_heads(heads, folder, config)


def test_an_error_of_another_kind_is_no_full_disk(monkeypatch):
    monkeypatch.setattr("torch.save", lambda *_, **__: {}["missing"])
    with pytest.raises(KeyError, match="missing"):
        command(f"{ATOM} --save_strategy no")


@pytest.mark.parametrize("line", [PLAIN, ATOM], ids=["plain", "atom"])
def test_weights_can_be_read_by_whoever_reads_other_files(line):
    before = os.umask(0o022)
    try:
        assert command(f"{line} --save_steps 2")[0] == 0
    finally:
        os.umask(before)
    files = [path for path in Path("run").rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o644}
    assert len([path for path in files if path.suffix == ".safetensors"]) == 3 + line.count("--atom")


# Divergence


@pytest.mark.parametrize("flags", ["", "--atom --no_explainer"], ids=["plain", "atom"])
def test_a_model_of_nans_is_not_saved_and_the_last_good_checkpoint_is_named(flags, caplog):
    status, out, err = command(f"{VIT} --max_steps 4 --save_steps 1 {flags}")
    assert status == 0, err
    for step in (3, 4):
        file = f"run/checkpoint-{step}/model.safetensors"
        weights = load_file(file)
        weights[sorted(weights)[0]].view(-1)[0] = float("nan")
        save_file(weights, file, metadata={"format": "pt"})
    assert last_checkpoint("run") == "run/checkpoint-4" and last_good_checkpoint("run") == "run/checkpoint-2"
    # Goes on from the last good one; from then on it diverges.
    for name in ("model.safetensors", "config.json"):
        os.remove(f"run/{name}")
    shutil.rmtree("run/checkpoint-4")
    going_on = f"{VIT} --max_steps 4 --save_strategy no {flags} --resume_from_checkpoint true"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", diverge)
        status, out, err = command(going_on)
    assert (
        "checkpoint-3 is skipped: run/checkpoint-3/model.safetensors holds numbers that are not finite" in caplog.text
    )
    assert status == 1 and "next " not in out and not os.path.exists("run/model.safetensors")
    line = last_line(err)
    assert line.startswith("atom-hf: error: training diverged: weights are not finite numbers (NaN, the first in ")
    assert "the model is not saved; the last good checkpoint is run/checkpoint-2: start a new run from it by" in line
    assert line.endswith("--model run/checkpoint-2, with a lower --learning_rate")
    assert command(f"{VIT} --model run/checkpoint-2 {flags}".replace("--output_dir run", "--output_dir new"))[0] == 2


def diverge(self, closure=None):
    for group in self.param_groups:
        for parameter in group["params"]:
            parameter.data.fill_(float("nan"))


@pytest.mark.parametrize("flags", ["", "--atom --no_explainer"], ids=["plain", "atom"])
def test_a_run_that_diverges_without_checkpoints_says_so(flags):
    status, _, err = command(f"{VIT} --max_steps 3 --save_strategy no {DIVERGES} {flags}")
    assert status == 1 and "there is no good checkpoint of it: start again, with a lower --learning_rate" in last_line(
        err
    )
    assert not os.path.exists("run")


def test_a_model_of_nans_is_not_fitted(tmp_path):
    assert command(f"{ATOM} --save_strategy no")[0] == 0
    weights = load_file("run/model.safetensors")
    weights["classifier.bias"][0] = float("nan")
    save_file(weights, "run/model.safetensors", metadata={"format": "pt"})
    status, _, err = command("fit-explainer --model run --dataset digits --samples 24")
    assert status == 2 and "--model 'run' holds numbers that are not finite (NaN), in classifier.bias" in last_line(err)
    from atom_hf.cli.push import check_folder

    with pytest.raises(AtomError, match=r"model\.safetensors holds numbers that are not finite .*'classifier\.bias'"):
        check_folder("run")


# Checkpoints to resume from


@pytest.mark.parametrize("cut", ["", "{", "[1]", None])
def test_a_checkpoint_whose_state_was_cut_short_is_passed_over(tmp_path, cut):
    for step, text in ((2, "{}"), (4, cut)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if text is not None:
            (folder / "trainer_state.json").write_text(text)
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")


@pytest.mark.parametrize("line", [PLAIN, ATOM], ids=["plain", "atom"])
def test_the_folder_of_a_finished_run_is_no_checkpoint(line):
    assert command(f"{line} --save_steps 2")[0] == 0
    again = line.replace("--output_dir run", "--output_dir again")
    status, _, err = command(f"{again} --resume_from_checkpoint run")
    assert status == 2 and "--resume_from_checkpoint 'run' is the folder of a finished run, not a checkpoint" in err
    assert command(f"{again} --resume_from_checkpoint run/checkpoint-2")[0] == 0


# Two runs in one folder


@pytest.mark.parametrize("line", [PLAIN, ATOM], ids=["plain", "atom"])
def test_a_folder_in_use_is_refused_before_the_model_is_made(monkeypatch, line):
    monkeypatch.setattr("atom_hf.finetune.run.prepare_run_inputs", None)
    with lock_folder("run"):
        status, _, err = command(line)
        assert status == 2 and last_line(err).startswith(
            "atom-hf: error: --output_dir 'run' is being written to by process"
        )
        assert [name for name in os.listdir("run")] == [".atom-hf.lock"]


def test_the_lock_is_held_while_the_run_writes_and_released_after(monkeypatch):
    seen, real = [], transformers.TrainerState.save_to_json

    def save_to_json(self, path):
        seen.append(json.loads(Path("run/.atom-hf.lock").read_text())["pid"])
        real(self, path)

    monkeypatch.setattr(transformers.TrainerState, "save_to_json", save_to_json)
    assert command(f"{ATOM} --save_strategy no")[0] == 0
    assert seen == [os.getpid()] and not os.path.exists("run/.atom-hf.lock")


def test_a_write_error_is_both_an_atom_error_and_an_error_of_the_system():
    error = WriteError("run could not be written", "full")
    assert isinstance(error, AtomError) and isinstance(error, OSError)
    assert str(error) == "run could not be written" and error.exit_status == 2
