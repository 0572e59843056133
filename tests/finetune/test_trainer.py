"""Plain runs of models that Transformers saves under other names than their parameters have in memory."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageClassification, PreTrainedModel

from atom_hf.finetune.saving import RunTrainer
from helpers.commands import command, results
from helpers.models import rows_for, tiny
from helpers.training import equal, make

SIZES = "hidden_size=16,num_hidden_layers=2,num_attention_heads=2,intermediate_size=16"
VIT = f"--model_type vit --config_overrides {SIZES},image_size=8,patch_size=2,num_channels=1 --dataset digits"
RUN = "--max_train_samples 24 --max_eval_samples 8 --per_device_train_batch_size 8 --report_to none --use_cpu --max_steps 6"
BEST = "--eval_strategy steps --eval_steps 1 --save_steps 1 --metric_for_best_model loss --load_best_model_at_end true"

pytestmark = pytest.mark.usefixtures("own_folder", "digits_once")


def train(line):
    status, _, err = command(f"train {VIT} {RUN} {line}")
    assert status == 0, err


@pytest.mark.promise("A killed run resumes as if it had not been interrupted.")
def test_a_plain_run_goes_on_from_all_of_its_weights(tmp_path, library_log):
    train(f"--save_steps 2 --output_dir {tmp_path / 'whole'}")
    in_file = load_file(tmp_path / "whole" / "checkpoint-2" / "model.safetensors")
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "whole")
    assert not set(in_file) <= set(model.state_dict()), "this version of Transformers renames nothing any more"
    shutil.copytree(tmp_path / "whole" / "checkpoint-2", tmp_path / "cut" / "checkpoint-2")
    train(f"--save_steps 2 --output_dir {tmp_path / 'cut'} --resume_from_checkpoint true")
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert equal(one, other) and results(tmp_path / "cut") == results(tmp_path / "whole")
    assert not [message for message in library_log if "missing keys" in message]


@pytest.mark.promise("A killed run resumes as if it had not been interrupted.")
def test_a_plain_run_ends_with_its_best_model(tmp_path):
    # The loss falls, and the largest one counts as the best: an early checkpoint.
    train(f"{BEST} --greater_is_better true --output_dir {tmp_path / 'run'}")
    state = json.loads((tmp_path / "run" / "trainer_state.json").read_text())
    best = load_file(f"{state['best_model_checkpoint']}/model.safetensors")
    assert not state["best_model_checkpoint"].endswith("checkpoint-6")
    assert equal(best, load_file(tmp_path / "run" / "model.safetensors"))
    assert results(tmp_path / "run")["loss"] == pytest.approx(state["best_metric"])


@pytest.mark.parametrize("shards", [False, True])
@pytest.mark.parametrize("name", ["vit", "bert", "gpt2"])
def test_a_checkpoint_is_read_whatever_its_names(name, shards, tmp_path, monkeypatch):
    if shards:
        whole = PreTrainedModel.save_pretrained
        monkeypatch.setattr(
            PreTrainedModel,
            "save_pretrained",
            lambda self, folder, **k: whole(self, folder, **k, max_shard_size="20KB"),
        )
    options = {"save_strategy": "steps", "save_steps": 1, "max_steps": 2}
    first = make(name, tmp_path, cls=RunTrainer, rows=rows_for(name), **options)
    first.train()
    again = make(name, tmp_path, model=tiny(name, seed=9), cls=RunTrainer, rows=rows_for(name), **options)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    ours, theirs = again.model.state_dict(), first.model.state_dict()
    assert all(torch.equal(value, ours[key]) for key, value in theirs.items())
