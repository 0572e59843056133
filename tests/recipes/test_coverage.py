"""The check that the coverage table makes, on an architecture of each kind, and what is written of its results."""

import importlib
import json
import shutil
import sys

import pytest
import torch

from atom_hf import AtomConfig, AtomError, attach_atoms
from helpers.paths import ROOT

FOLDER = ROOT / "recipes" / "coverage"
NAMES = ("exceptions", "media", "inputs", "shrink", "report", "check", "channels", "run")


@pytest.fixture(scope="module")
def modules():
    """The modules of the recipe; they find each other as scripts of one folder do."""
    for name in NAMES:
        sys.modules.pop(name, None)  # a recipe of another folder may have left one of the same name
    sys.path.insert(0, str(FOLDER))
    found = {name: importlib.import_module(name) for name in NAMES}
    yield found
    sys.path.remove(str(FOLDER))
    for name in NAMES:
        sys.modules.pop(name)


KINDS = {
    "encoder": ("sequence-classification", "bert"),
    "decoder": ("causal-lm", "llama"),
    "mixture of experts": ("causal-lm", "qwen3_moe"),
    "state space": ("causal-lm", "mamba"),
    "hybrid": ("causal-lm", "qwen3_next"),
    "encoder-decoder": ("seq2seq-lm", "bart"),
    "streams": ("causal-lm", "gemma3n_text"),
    "its hidden states are views": ("sequence-classification", "longformer"),
    "pools its text": ("sequence-classification", "funnel"),
    "latents": ("masked-lm", "perceiver"),
    "ViT": ("image-classification", "vit"),
    "ViT with registers": ("image-classification", "dinov2_with_registers"),
    "a tower of two": ("image-classification", "clip"),
    "hierarchical": ("image-classification", "swin"),
    "feature map": ("image-classification", "resnet"),
    "says no width": ("image-classification", "mobilenet_v2"),
    "waveform": ("audio-classification", "wav2vec2"),
    "squeezed waveform": ("audio-classification", "sew"),
    "spectrogram": ("audio-classification", "audio-spectrogram-transformer"),
    "sees and writes": ("image-text-to-text", "llava"),
    "sees and decodes": ("image-text-to-text", "blip-2"),
    "hears and writes": ("seq2seq-lm", "audioflamingo3"),
    "choices": ("multiple-choice", "bert"),
    "token classes": ("token-classification", "distilbert"),
    "spans": ("question-answering", "roberta"),
}


@pytest.mark.parametrize(("task", "model_type"), KINDS.values(), ids=KINDS)
@pytest.mark.filterwarnings("ignore:::transformers", "ignore:::torch")
def test_a_model_of_each_kind(modules, task, model_type):
    check = modules["check"]
    model, _ = check.smallest(task, model_type)
    check.train_save_load(model, task, atom=True)


READ = ("encoder", "state space", "encoder-decoder", "latents", "feature map", "waveform", "sees and writes", "choices")


@pytest.mark.parametrize(("task", "model_type"), [KINDS[kind] for kind in READ], ids=READ)
@pytest.mark.filterwarnings("ignore:::transformers", "ignore:::torch")
def test_the_channels_of_a_model_of_each_kind(modules, task, model_type):
    channels = modules["channels"]
    assert channels.read_units_and_space(task, model_type) == ("read", "read")


def test_channels_that_say_nothing_are_not_read(modules, monkeypatch):
    from atom_hf.fragments import Channel

    channels = modules["channels"]
    constant = [Channel.deterministic([[1.0]] * 4, noise=1.0, ids=range(4))]
    found = {"units": constant * 2, "space": constant}
    monkeypatch.setattr(channels, "read_channels", lambda *_, kind, **__: found[kind])
    said = ("no channel tells the samples apart",) * 2
    assert channels.read_units_and_space("sequence-classification", "bert") == said
    found["space"] = constant * 2
    assert channels.read_units_and_space("sequence-classification", "bert")[1] == "2 channels of [1] dimensions"


@pytest.mark.parametrize("model_type", ["bart", "t5"])
def test_the_decoders_side(modules, model_type):
    check = modules["check"]
    model, _ = check.smallest("seq2seq-lm", model_type)
    check.train_save_load(model, "seq2seq-lm", atom=True, atom_side="decoder")
    batch = modules["inputs"].make_batch(model, "seq2seq-lm", [0, 1])
    importance = model.atom_importance(**batch)
    assert importance.shape == batch["labels"].shape != batch["input_ids"].shape
    # The token that a decoder starts from belongs to no atom, and what comes after the last label is padding.
    assert importance[:, 0].isnan().all() and importance[1, -1].isnan()


@pytest.mark.parametrize("model_type", ["bart", "t5"])
def test_what_is_read_has_an_importance_without_anything_written(modules, model_type):
    model = attach_atoms(modules["check"].build("seq2seq-lm", model_type))
    batch = modules["inputs"].make_batch(model, "seq2seq-lm", [0, 1])
    with_labels = model.atom_importance(**batch)
    alone = model.atom_importance(**{name: value for name, value in batch.items() if name != "labels"})
    torch.testing.assert_close(alone, with_labels, equal_nan=True)
    assert alone.shape == batch["input_ids"].shape


def test_one_side_only(modules):
    for task, model_type in (KINDS["encoder"], KINDS["decoder"], KINDS["ViT"]):
        with pytest.raises(AtomError, match=r"side 'decoder': .* one side only; use side 'encoder'"):
            attach_atoms(modules["check"].build(task, model_type), AtomConfig(side="decoder"))


def test_what_cannot_be_had_is_refused(modules):
    check = modules["check"]
    outcome, reason = check.check("sequence-classification", "reformer")
    assert outcome == check.FAILED and "comes without gradients" in reason
    outcome, reason = check.check("image-classification", "timm_wrapper")
    assert outcome == check.NOT_BUILT and "timm" in reason


# The check finds what is wrong


def test_the_check_fails_where_something_is_lost(modules, monkeypatch):
    check = modules["check"]

    def says(words):
        model, _ = check.smallest("sequence-classification", "bert")
        with pytest.raises(check.CheckError, match=words):
            check.train_save_load(model, "sequence-classification", atom=True)

    run, importance_of = check.run, check.importance_of
    monkeypatch.setattr(check, "importance_of", lambda *a: importance_of(*a) * float("nan"))
    says("a sample without a token")
    monkeypatch.setattr(check, "importance_of", importance_of)
    monkeypatch.setattr(
        check, "run", lambda model, batch: {"logits": torch.rand(2) + run(model, batch)["logits"].mean()}
    )
    says("outputs of the plain model: logits differ")
    monkeypatch.setattr(check, "run", run)

    plain_class = check.transformers.BertForSequenceClassification
    from_pretrained = plain_class.from_pretrained

    def forgets(*args, **options):
        model, report = from_pretrained(*args, **options)
        return model, {**report, "missing_keys": {"classifier.weight"}}

    monkeypatch.setattr(plain_class, "from_pretrained", forgets)
    says("missing_keys")


# The table


def test_every_row_has_its_reason_and_every_architecture_a_row(modules):
    check, report = modules["check"], modules["report"]
    rows = report.read_results()
    registered = [(task, kind) for task in check.TASKS for kind in check.architectures(task)]
    assert [(row["task"], row["model_type"]) for row in rows] == registered
    for row in rows:
        assert row["outcome"] in report.OUTCOMES and bool(row["reason"]) == (row["outcome"] not in report.PASSES), row
    made = [row for row in rows if row["outcome"] != report.NOT_BUILT]
    assert sum(row["outcome"] in report.PASSES for row in rows) >= 0.95 * len(made)
    for kind in report.KINDS:
        assert sum(row[kind] == report.READ for row in made) >= 0.95 * len(made)


@pytest.fixture
def report(modules, tmp_path, monkeypatch):
    """The module that writes the page, writing into `tmp_path`, and into the documents of `tmp_path / "project"`."""
    report = modules["report"]
    (tmp_path / "project" / "docs").mkdir(parents=True)
    for name in report.DOCUMENTS:
        shutil.copy(ROOT / name, tmp_path / "project" / name)
    for name, path in (("HERE", "."), ("RESULTS", "results.jsonl"), ("PROJECT", "project")):
        monkeypatch.setattr(report, name, tmp_path / path)
    return report


def test_the_page_is_what_the_results_give(report, tmp_path):
    shutil.copy(FOLDER / "results.jsonl", tmp_path)
    report.write_report()
    documents = [(f"project/{name}", ROOT / name) for name in report.DOCUMENTS]
    for written, committed in (("README.md", FOLDER / "README.md"), *documents):
        assert (tmp_path / written).read_text(encoding="utf-8") == committed.read_text(encoding="utf-8")


def test_the_page_counts(report, tmp_path):
    outcomes = [report.PASSED, report.PASSED, report.FAILED, report.NOT_BUILT]
    rows = [
        {"task": "t", "model_type": f"m{i}", "architecture": "A", "outcome": o, "reason": "a | b", "transformers": "5"}
        for i, o in enumerate(outcomes)
    ]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert "registers 4 architectures" in report.write_report()
    for name in report.DOCUMENTS:
        assert "registers 4 architectures" in (tmp_path / "project" / name).read_text(encoding="utf-8")
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert (
        "Of the 3 that can be built offline, **2 pass (66.6 %)**" in text
        and "| t | 4 | 2 | 0 | 1 | 0 | 1 | 66.6 % |" in text
    )
    assert "| t | m2 | A | failed | a \\| b |" in text


def test_a_crash_and_a_hang_are_rows(modules, tmp_path, monkeypatch):
    run = modules["run"]
    monkeypatch.setattr(run, "HERE", tmp_path)
    (tmp_path / "worker.py").write_text(
        "import json, os, sys, time\nprint('ready', flush=True)\n"
        "for line in sys.stdin:\n"
        "    task, kind = json.loads(line)\n"
        "    if kind == 'hang': time.sleep(600)\n"
        "    if kind == 'crash': os._exit(3)\n"
        "    print(json.dumps(['passed', '']), flush=True)\n",
        encoding="utf-8",
    )
    worker = run.Worker(seconds=2, gibibytes=1)
    assert worker.check("t", "crash") == (run.FAILED, "the process died (exit status 3)")
    assert worker.check("t", "fine") == (run.PASSED, "")
    assert worker.check("t", "hang") == (run.FAILED, "took more than 2 s")
    assert worker.check("t", "fine") == (run.PASSED, "")
    worker.close()
