"""The benchmark on tiny models: correct measurement of the cost. No time is asserted."""

import json
import shlex

import numpy as np
import pytest
import torch

import atom_hf.benchmark.bench as bench
from atom_hf import AtomError
from atom_hf.benchmark.bench import BenchArguments, paired_ratio, run_bench
from atom_hf.benchmark.random_inputs import random_task
from atom_hf.cli.main import main
from atom_hf.finetune.arguments import RunArguments
from atom_hf.finetune.flags import parse_flags
from atom_hf.training.arguments import AtomTrainingArguments

BERT = (
    "--model_type bert --config_overrides hidden_size=16,num_hidden_layers=2,num_attention_heads=2,"
    "intermediate_size=16,vocab_size=50"
)
VIT = (
    "--model_type vit --config_overrides image_size=8,patch_size=4,num_channels=1,hidden_size=16,num_hidden_layers=2,"
    "num_attention_heads=2,intermediate_size=16"
)
GPT2 = "--model_type gpt2 --config_overrides n_embd=16,n_layer=2,n_head=2,n_positions=32,vocab_size=50"
SHORT = "--pairs 2 --warmup_pairs 1 --use_cpu true --per_device_train_batch_size 4"
FIELDS = {
    *("kind", "device", "precision", "heads_precision", "model", "model_class", "parameters", "width", "data"),
    *("samples", "tokens", "accumulation", "activation_checkpointing", "torch_compile", "pairs", "warmup_pairs"),
    *("versions", "interval", "time", "time_floor", "throughput", "memory", "flops", "seconds", "profile"),
}


def measured(line):
    return run_bench(*parse_flags("bench", shlex.split(line), [RunArguments, AtomTrainingArguments, BenchArguments]))


# The command


@pytest.mark.parametrize(
    ("line", "model", "tokens", "data"),
    [
        (f"{BERT} --tokens 12 --profile true", "BertForSequenceClassification", 12, "random inputs of full length"),
        (f"{VIT} --gradient_accumulation_steps 2 --bf16 true", "ViTForImageClassification", 5, "random"),
        (f"{GPT2} --tokens 12 --activation_checkpointing true", "GPT2LMHeadModel", 12, "random"),
        (
            f"{VIT} --dataset digits --max_train_samples 16 --max_eval_samples 4",
            "ViTForImageClassification",
            5,
            "digits",
        ),
    ],
)
def test_command_writes_what_it_measured(tmp_path, capsys, line, model, tokens, data):
    file = tmp_path / "found" / "cost.json"
    assert main(["bench", *shlex.split(f"{line} {SHORT}"), "--output", str(file)]) == 0
    found = json.loads(file.read_text(encoding="utf-8"))
    assert set(found) == FIELDS
    assert (found["model_class"], found["tokens"], found["samples"], found["width"]) == (model, tokens, 4, 16)
    assert found["data"].startswith(data) and found["device"] == "CPU, 1 thread" and found["kind"] == "cpu"
    assert found["accumulation"] == (2 if "accumulation" in line else 1)
    assert found["precision"] == ("bfloat16" if "bf16" in line else "float32")
    assert len(found["time"]["ratios"]) == len(found["time_floor"]["ratios"]) == found["pairs"] == 2
    assert found["time"]["low"] <= found["time"]["ratio"] <= found["time"]["high"]
    assert found["time_floor"]["ratio"] > 1
    # More is held and more is done, by no less than the two layers.
    assert found["memory"]["ratio"] >= found["memory"]["floor"] > 1
    assert min(found["flops"]["atom"], found["flops"]["floor"]) > 1
    out = capsys.readouterr().out
    assert f"{found['time']['ratio']:.4f}" in out and data in out and str(file) in out
    assert ("pair energy" in out) == ("profile" in line) == (found["profile"] is not None)


REJECTED = [
    ("", "give --model"),
    (f"{BERT} --model minilm", "not both"),
    ("--model ./nosuch", "--model './nosuch'"),
    ("--model_type nonsense", "--model_type 'nonsense'"),
    ("--model_type wav2vec2", "--model_type 'wav2vec2'"),
    (f"{BERT},nonsense=1", "--config_overrides"),
    (f"{BERT} --task image-segmentation", "--task"),
    (f"{BERT} --task image-classification", "cannot be made for image-classification"),
    (f"{BERT} --tokens 0", "--tokens"),
    (f"{BERT} --tokens 5000", "--tokens"),
    (f"{VIT} --tokens 5", "--tokens"),
    (f"{VIT} --tokens 5 --dataset digits", "--max_length"),
    (f"{VIT} --dataset nosuch.csv", "nosuch.csv"),
    (f"{VIT} --dataset digits --max_train_samples 10 --per_device_train_batch_size 11", "--dataset has 10 rows"),
    (f"{BERT} --pairs 1", "--pairs"),
    (f"{BERT} --warmup_pairs 0", "--warmup_pairs"),
    (f"{BERT} --per_device_train_batch_size 1", "per_device_train_batch_size"),
    (f"{BERT} --atom_weight -1", "atom_weight"),
    (f"{BERT} --output .", "--output '.'"),
    (f"{BERT} --steps 3", "no such flag: --steps"),
]


@pytest.mark.parametrize(("line", "says"), REJECTED, ids=[says for _, says in REJECTED])
def test_what_cannot_be_used_is_rejected_in_one_line(capsys, monkeypatch, line, says):
    def never(*_):
        raise AssertionError("a step was timed")

    monkeypatch.setattr(bench, "time_steps", never)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["bench", *shlex.split(line)]) == 2
    last = capsys.readouterr().err.replace("\r", "\n").splitlines()[-1]
    assert last.startswith("atom-hf: error: ") and says in last


# Inputs


def test_random_texts_hold_no_special_token_and_the_same_seed_gives_the_same_rows():
    run = RunArguments(
        model_type="bert", config_overrides="hidden_size=16,num_attention_heads=2,vocab_size=9,pad_token_id=3"
    )
    first, second = (torch.manual_seed(0) and random_task(run, 7, 50) for _ in range(2))
    ids = torch.stack([row["input_ids"] for row in first.train])
    assert ids.shape == (50, 7) and set(ids.flatten().tolist()) == set(range(9)) - {3}
    assert torch.equal(ids, torch.stack([row["input_ids"] for row in second.train]))
    assert {int(row["labels"]) for row in first.train} == {0, 1}


def test_both_arms_start_from_the_same_weights_and_read_the_same_batches(monkeypatch):
    weights, seen = [], []

    def look(steps, batches, *_):
        for name in ("plain", "atom"):
            trainer = steps[name].__self__.trainer
            state = trainer.model.state_dict()
            weights.append({k: v.clone() for k, v in state.items() if not k.startswith("atom_heads")})
            assert trainer.args.atom == (name == "atom") and trainer.state.max_steps > 100
        monkeypatch.undo()
        for name in ("plain", "atom"):
            trainer = steps[name].__self__.trainer
            inner = trainer.compute_loss
            trainer.compute_loss = lambda model, inputs, *a, inner=inner, **k: (
                seen.append(inputs["pixel_values"].clone()) or inner(model, inputs, *a, **k)
            )
        return real(steps, batches, *_)

    real = bench.time_steps
    monkeypatch.setattr(bench, "time_steps", look)
    measured(f"{VIT} {SHORT}")
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    timed = seen[:6]  # three pairs
    assert all(torch.equal(*timed[i : i + 2]) for i in (0, 2, 4)) and not torch.equal(timed[0], timed[2])


# What is measured


def test_ratios_of_given_times():
    found = paired_ratio([1.0, 2.0, 4.0, 1.0, 10.0], [1.1, 2.0, 6.0, 1.2, 13.0])
    assert found["ratio"] == pytest.approx(1.2)
    assert found["ratios"] == pytest.approx([1.1, 1.0, 1.5, 1.2, 1.3])
    assert found["quartiles"] == pytest.approx([1.1, 1.3])
    assert 1.0 <= found["low"] < 1.2 < found["high"] <= 1.5
    same = paired_ratio([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])
    assert (same["ratio"], same["low"], same["high"]) == (2.0, 2.0, 2.0)


def test_the_interval_holds_the_median_of_what_is_drawn_from():
    # A 95 % interval that holds the median in 95 of 100 draws or so.
    rng = np.random.default_rng(1)
    draws = [paired_ratio([1.0] * 40, rng.lognormal(0, 0.1, 40).tolist(), 500) for _ in range(200)]
    assert 0.88 <= sum(d["low"] <= 1 <= d["high"] for d in draws) / 200 <= 1


def test_summary_of_given_measurements():
    seconds = {"plain": [2.0, 4.0], "atom": [3.0, 5.0], "floor": [0.5, 0.5]}
    flops = {"plain": 1000, "floor": 20, "atom": 1030}
    found = bench.summarise(seconds, {"plain": 200, "atom": 220}, flops, 10)
    assert found["time"]["ratios"] == [1.5, 1.25]
    assert found["time_floor"]["ratios"] == [1.25, 1.125]
    assert found["throughput"] == 6 / 8
    assert (found["memory"]["ratio"], found["memory"]["floor"]) == (1.1, 1.05)
    assert (found["flops"]["atom"], found["flops"]["floor"]) == (1.03, 1.02)
    without = bench.summarise(seconds, {"plain": 200, "atom": 220}, {}, 10)["flops"]
    assert without == {"atom": None, "floor": None, "counts": {}}


def test_more_than_one_process_is_rejected():
    _, args, options = parse_flags("bench", shlex.split(BERT), [RunArguments, AtomTrainingArguments, BenchArguments])
    several = type("Several", (), {"atom_config": args.atom_config, "world_size": 2})()
    with pytest.raises(AtomError, match="one process"):
        bench._check(RunArguments(), several, options)
