"""What the benchmark chooses on a machine, and says."""

import logging
import shlex

import pytest
import torch

from atom_hf.benchmark.bench import BenchArguments
from atom_hf.benchmark.machine import fitting_flags
from atom_hf.cli.main import main
from atom_hf.finetune.arguments import RunArguments
from atom_hf.finetune.flags import given_flags
from atom_hf.training.arguments import AtomTrainingArguments

KINDS = [RunArguments, AtomTrainingArguments, BenchArguments]
CPU, BATCH, HALF = "--use_cpu true", "--per_device_train_batch_size 4", "--bf16 true"


@pytest.fixture
def machine(monkeypatch):
    """machine(gpu, bf16): pretends that there is one with or without these."""

    def pretend(gpu, bf16=True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "Some GPU")
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: bf16)

    return pretend


@pytest.mark.parametrize(
    ("gpu", "bf16", "line", "chosen", "said"),
    [
        (True, True, "", HALF, "for Some GPU: --bf16 true; flags choose otherwise"),
        (True, False, "", "", ""),
        (True, True, "--fp16", "", ""),
        (True, True, "--bf16 false", "", ""),
        (True, True, "--use_cpu", BATCH, f"for the CPU: {BATCH}; flags choose otherwise"),
        (True, True, f"--use_cpu {BATCH}", "", ""),
        (False, True, "", f"{CPU} {BATCH}", f"for no GPU: {CPU} {BATCH}; flags choose otherwise"),
        (False, True, "--bf16", f"{CPU} {BATCH}", f"for no GPU: {CPU} {BATCH}; flags choose otherwise"),
        (False, True, "--per_device_train_batch_size 16 --seed 3", CPU, f"for no GPU: {CPU}; flags choose otherwise"),
        (False, True, "--per-device-train-batch-size 16 --use-cpu", "", ""),
    ],
)
def test_what_is_left_open_is_chosen_by_the_machine(gpu, bf16, line, chosen, said, machine, caplog):
    machine(gpu, bf16)
    with caplog.at_level(logging.INFO, "atom_hf"):
        assert fitting_flags(given_flags("bench", shlex.split(line), KINDS)) == chosen.split()
    assert [record.getMessage() for record in caplog.records] == [said][: bool(said)]


def test_what_is_given_is_told_from_defaults_in_a_file_too(tmp_path):
    file = tmp_path / "bench.yaml"
    file.write_text("use_cpu: true\nseed: 42\npairs: 3\n")
    found = given_flags("bench", ["--config", str(file), "--pairs", "4", "--no_hold_outs"], KINDS)
    assert found == {"use_cpu": True, "seed": 42, "pairs": 4, "config": str(file)}
    assert given_flags("bench", [], KINDS) == {}


def test_the_command_measures_what_was_chosen(tmp_path, capsys, machine):
    machine(False)
    sizes = "hidden_size=16,num_hidden_layers=1,num_attention_heads=2,intermediate_size=16,vocab_size=50"
    file = tmp_path / "cost.json"
    flags = f"--model_type bert --config_overrides {sizes} --tokens 8 --pairs 2 --warmup_pairs 1 --output {file}"
    assert main(["bench", *shlex.split(flags)]) == 0
    assert "4 x 8 tokens" in capsys.readouterr().out
