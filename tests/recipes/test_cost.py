"""The report of cost: the double sum that the energy is held against, and what is written of the results."""

import importlib
import json
import math
import shutil
import sys

import pytest
import torch
from transformers import AutoConfig

import atom_hf.benchmark.bench as bench
from atom_hf import atomic_energy
from atom_hf.benchmark.bench import BenchArguments
from atom_hf.finetune.arguments import RunArguments
from atom_hf.finetune.flags import parse_flags
from atom_hf.training.arguments import AtomTrainingArguments
from atom_hf.utils.tables import fill_block
from helpers.naive import naive_energy, to_lists
from helpers.paths import ROOT


@pytest.fixture
def cost(monkeypatch):
    """The modules of the cost report; they find each other as scripts of one folder do."""
    monkeypatch.syspath_prepend(str(ROOT / "recipes" / "cost"))
    names = ("growth", "cost_report")
    yield tuple(importlib.import_module(name) for name in names)
    for name in (*names, "small_models"):
        sys.modules.pop(name)


# The growth of the energy


@pytest.mark.parametrize("block", [1, 300, 10**9])
def test_the_double_sum_is_the_energy_as_written_and_the_closed_form(cost, block):
    growth, _ = cost
    inputs = [t.detach().double().requires_grad_() if t.is_floating_point() else t for t in growth.make_inputs(4, 5, 3)]
    energy = growth.double_sum(*inputs, block=block)
    gradients = [tensor.grad for tensor in inputs[:2]]

    copies = [tensor.detach().clone().requires_grad_() for tensor in inputs[:2]]
    written, _ = naive_energy(
        *map(to_lists, copies), inputs[2].tolist(), softening=growth.SOFTENING, token_reduction="mean"
    )
    torch.testing.assert_close(energy, written.detach())
    for found, expected in zip(gradients, torch.autograd.grad(written, copies), strict=True):
        torch.testing.assert_close(found, expected)

    closed = atomic_energy(*copies, inputs[2], softening=growth.SOFTENING, token_reduction="mean")
    torch.testing.assert_close(energy, closed.detach())
    for found, expected in zip(gradients, torch.autograd.grad(closed, copies), strict=True):
        torch.testing.assert_close(found, expected)


def test_forms_are_timed_by_turns_and_left_out_when_they_would_take_long(cost, monkeypatch):
    growth, _ = cost
    calls = []
    cost_of = {"closed": 0.001, "naive": 4.0, "cached": 1.0}
    monkeypatch.setattr(growth, "make_forms", lambda device: dict.fromkeys(cost_of))

    def timed(inputs, rounds, forms):
        calls.append(list(forms))
        return {name: [cost_of[name] * inputs[0].numel() / 8] * 3 for name in forms}

    monkeypatch.setattr(growth, "time_forms", timed)
    monkeypatch.setattr(growth, "WIDTH", 2)
    rows = growth.measure_sizes([(2, 4), (4, 4), (8, 4), (16, 4)], "cpu", lambda: None)
    assert calls == [["closed", "naive", "cached"], ["closed", "cached"], ["closed", "cached"], ["closed"]]
    assert rows[0] == pytest.approx({"samples": 2, "tokens": 4, "closed": 1, "naive": 4000, "cached": 1000})
    assert rows[3] == pytest.approx({"samples": 16, "tokens": 4, "closed": 8})
    ratios = growth.ratios_to_closed({"closed": [1.0, 2.0, 1.0], "naive": [5.0, 4.0, 3.0]})
    assert ratios == {"naive": {"ratio": 3.0, "ratios": [5.0, 2.0, 3.0]}}


def test_times_are_taken_of_every_form_in_every_round(cost):
    growth, _ = cost
    seconds = growth.time_forms(growth.make_inputs(3, 4, 2), 2, growth.make_forms("cpu"))
    assert {name: len(values) for name, values in seconds.items()} == {"closed": 2, "naive": 2, "cached": 2}


# The report


def made_up(kind, ratio):
    one = bench.summarise(
        {"plain": [1.0, 1.0], "atom": [ratio, ratio], "floor": [0.01, 0.01]},
        {"plain": 1000, "atom": 1020},
        {"plain": 100, "floor": 1, "atom": 2},
        5,
    )
    one |= {"device": kind.upper(), "precision": "float32", "samples": 32, "tokens": 128.0, "pairs": 8}
    calls = {"rows": [["heads", 5.0, 6.0], ["gather", 0.0, 0.0]], "rest": 4.0, "total": 15.0, "plain": 150.0}
    one["profile"] = {"rows": [["heads", 0.01, 0.02]], "rest": 0.01, "total": 0.04, "operators": calls}
    rows = [
        {"samples": 2, "tokens": 16, "closed": 1, "naive": 2, "cached": 3},
        {"samples": 4, "tokens": 16, "closed": 2},
    ]
    target = {
        "threads": 2,
        "samples": 64,
        "tokens": 197,
        "width": 8,
        "naive": {"ratio": 150.0},
        "cached": {"ratio": 50.0},
    }
    growth = {"width": 8, "longest_seconds": 10.0, "target": [target], "samples": rows, "tokens": rows}
    return {"bert": one, "vit": one, "vit-small separation": one, "vit-small paper": one, "growth": growth}


def test_report_says_what_is_met_from_the_numbers(cost, tmp_path, monkeypatch):
    _, report = cost
    monkeypatch.setattr(report, "HERE", tmp_path)
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(report, "PROJECT", tmp_path / "project")
    documents = [tmp_path / "project" / name for name in ("README.md", "docs/distributed.md")]
    documents[1].parent.mkdir(parents=True)
    for document in documents:
        document.write_text("before\n<!-- cost: x -->\n<!-- end of cost -->\nafter\n", encoding="utf-8")
    report.write_report()
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert text.count("not run") >= 8 and "met |" not in text and not (tmp_path / "cost.png").exists()
    assert "**What it costs:** not measured yet.\n" in documents[0].read_text(encoding="utf-8")

    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "cpu.json").write_text(json.dumps(made_up("cpu", 1.04)), encoding="utf-8")
    report.write_report()
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "| step time, CPU, float32, BERT-base | at most 1.05 | 1.0400 | met |" in text
    assert "| GPU, bfloat16 | BERT-base | not run |" in text and "run.py --device cuda" in text
    assert "large blocks / closed form, CPU, 2 threads | more than 100 times | 150.0 | met |" in text
    assert "| CPU, 2 threads | 150.0 | 50.0 |" in text
    assert "], 8 | 1.0300 |" in text, "heads: 1 % forward, 2 % backward"
    small = "CPU, float32, ViT of 3 layers, width 48, separation"
    assert f"| step time, {small} | at most 1.15 | 1.0400 | met |" in text
    assert f"| the flag's operations in a step, {small} | under 120 | 15.0 | met |" in text
    assert "| separation | 1.040 [1.040, 1.040], 8 | 150 | 15 |" in text and "| heads | 5 | 6 | 5 | 6 |" in text
    assert "| rest | 4 |  | 4 |  |" in text and "gather" not in text
    project, table = (document.read_text(encoding="utf-8") for document in documents)
    assert "a training step takes 1.04 (BERT-base; 95 % interval" in project and "On a GPU it has not been" in project
    assert table.startswith("before\n") and table.endswith("\nafter\n") and "150 times as long (50 times" in table
    assert (
        "| BERT-base, CPU, float32, 32 x 128 tokens | 1.040 [" in table
        and "| ViT-base, GPU, bfloat16 | not run |" in table
    )

    wide = made_up("cpu", 1.04)
    wide["bert"]["time"] |= {"low": 0.9, "high": 1.2}
    (tmp_path / "results" / "cpu.json").write_text(json.dumps(wide), encoding="utf-8")
    report.write_report()
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert (
        "| step time, CPU, float32, BERT-base | at most 1.05 | 1.0400 | not decided: the interval holds the goal |"
        in text
    )
    assert "| own parts, CPU, float32, BERT-base | at most 1.05 | 1.0300 | met |" in text

    (tmp_path / "results" / "cuda.json").write_text(json.dumps(made_up("cuda", 1.04)), encoding="utf-8")
    report.write_report()
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "| step time, GPU, bfloat16, ViT-base | at most 1.02 | 1.0400 | **not met** |" in text
    assert "| peak memory, GPU, bfloat16, ViT-base | at most 1.03 | 1.0200 | met |" in text
    assert "not run" not in text and "run.py --device" not in text
    project = documents[0].read_text(encoding="utf-8")
    assert "; on a GPU a training step takes 1.04" in project and "not been measured" not in project
    for picture in ("cost.png", "growth.png"):
        assert f"({picture})" in text and (tmp_path / picture).stat().st_size > 10_000


def test_a_finished_part_is_not_measured_again(cost, tmp_path, monkeypatch):
    _, report = cost
    run = importlib.import_module("run")
    monkeypatch.delitem(sys.modules, "run")
    for module in (report, run):
        monkeypatch.setattr(module, "HERE", tmp_path)
        monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    asked = []
    whole = made_up("cpu", 1.04)
    monkeypatch.setattr(run, "bench", lambda flags: asked.append(flags) or whole["bert"])
    monkeypatch.setattr(run, "measure", lambda kind: asked.append(kind) or whole["growth"])
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "cpu.json").write_text(json.dumps({"vit": whole["vit"]}), encoding="utf-8")
    run.run("cpu", pairs=3)
    assert len(asked) == 4 and asked[-1] == "cpu" and " ".join(asked[0]).startswith("--model_type bert ")
    assert "hidden_size=48" in " ".join(asked[1]) and asked[1][asked[1].index("--atom_form") + 1] == "separation"
    run.run("cpu")
    assert len(asked) == 4
    run.run("cpu", fresh=True, only=["vit", "growth"])
    assert len(asked) == 6 and asked[-1] == "cpu"
    assert set(report.read_results()["cpu"]) == {*whole}
    # Every flag that the report measures with is a flag of the command.
    for flags in (run.bench_flags(model, kind) for model in report.MODELS for kind in ("cpu",)):
        _, _, options = parse_flags("bench", flags, [RunArguments, AtomTrainingArguments, BenchArguments])
        assert (options.pairs, options.warmup_pairs) == run.PAIRS["cpu"]
    for part in run.small_models.FORMS:
        _, args, options = parse_flags(
            "bench", run.bench_flags(part, "cpu"), [RunArguments, AtomTrainingArguments, BenchArguments]
        )
        assert args.atom_form in part and (options.pairs, options.warmup_pairs) == run.small_models.PAIRS


def test_the_models_of_the_report_are_base_models(cost):
    vit, bert = AutoConfig.for_model("vit"), AutoConfig.for_model("bert")
    assert (vit.hidden_size, vit.num_hidden_layers, vit.image_size, vit.patch_size) == (768, 12, 224, 16)
    assert (bert.hidden_size, bert.num_hidden_layers, bert.vocab_size) == (768, 12, 30522)
    growth, _ = cost
    assert growth.TARGET[1] == (vit.image_size // vit.patch_size) ** 2 + 1 and vit.hidden_size == growth.WIDTH
    assert math.prod(growth.TARGET) == 64 * 197


def test_the_report_is_what_the_results_give(cost, tmp_path, monkeypatch):
    _, report = cost
    shutil.copytree(ROOT / "recipes" / "cost", tmp_path / "cost")
    (tmp_path / "cost" / "README.md").unlink()
    monkeypatch.setattr(report, "HERE", tmp_path / "cost")
    monkeypatch.setattr(report, "RESULTS", tmp_path / "cost" / "results")
    monkeypatch.setattr(report, "PROJECT", tmp_path)
    (tmp_path / "docs").mkdir()
    documents = ("README.md", "docs/distributed.md")
    for name in documents:
        shutil.copy(ROOT / name, tmp_path / name)
        fill_block(tmp_path / name, "cost", "")
    report.write_report()
    for made, committed in (("cost/README.md", "recipes/cost/README.md"), *zip(documents, documents, strict=True)):
        assert (tmp_path / made).read_text(encoding="utf-8") == (ROOT / committed).read_text(encoding="utf-8")
