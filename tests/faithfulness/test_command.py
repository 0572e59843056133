"""`atom-hf faithfulness` from its flags to its files: what is written, gone on with, and rejected."""

import json
import shutil

import pytest

from atom_hf import AtomConfig, attach_atoms
from atom_hf.cli.main import main
from atom_hf.faithfulness import command, cost
from atom_hf.faithfulness import measure as measuring
from helpers.models import make_tokenizer, tiny

METHODS = "importance,random,hidden_norm,input_x_gradient,integrated_gradients"
FEW = ["--samples", "5", "--check_samples", "2", "--perturbations", "6", "--curve_steps", "5", "--methods", METHODS]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two seeds with heads, a plain model, and a csv of labelled texts."""
    folder = tmp_path_factory.mktemp("models")
    for seed in (0, 1):
        attach_atoms(tiny("bert", seed=seed), AtomConfig(layer=-1), make_tokenizer()).save_pretrained(
            folder / f"seed{seed}"
        )
    tiny("bert", seed=2).save_pretrained(folder / "plain")
    for name in ("seed0", "seed1", "plain"):
        make_tokenizer().save_pretrained(folder / name)
    texts = ["the moon and the sea", "a king", "love is here", "my heart , my love", "of the night", "now and then"]
    rows = [f'"{text} {i}",{i % 2}' for i in range(4) for text in texts]
    (folder / "texts.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    return folder


@pytest.fixture(scope="module")
def measured(folders, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "faithful"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost, "FEW", 1)
        patch.setattr(cost, "MANY", 1)
        assert main(flags(folders, out)) == 0
    return out


def flags(folders, out, *more):
    models = [str(folders / "seed0"), str(folders / "seed1")]
    given = ["--dataset", str(folders / "texts.csv"), "--plain", str(folders / "plain"), "--output_dir", str(out)]
    return ["faithfulness", "--model", *models, *given, *FEW, *more]


def numbers(value):
    """All that a line holds but the time."""
    if isinstance(value, dict):
        return [part for name, each in value.items() if name != "time" for part in numbers(each)]
    if isinstance(value, list):
        return [part for each in value for part in numbers(each)]
    return [value] if isinstance(value, int | float) else []


def lines_of(folder):
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def test_a_line_for_each_model_method_way_and_sample(folders, measured):
    lines = lines_of(measured)
    samples = [line for line in lines if line["kind"] == "sample"]
    keys = {(line["model"], line["how"], line["method"], line["sample"]) for line in samples}
    assert len(samples) == len(keys) == (2 * 5 + 4) * 2 * 5  # a plain model has no importance
    for line in samples:
        assert len(line["attribution"]) == line["tokens"] and len(line["deletion_curve"]) == min(5, line["tokens"]) + 1
        assert line["deletion_curve"][0] == pytest.approx(line["probability"], abs=1e-5)
        assert ("infidelity" in line) == (line["method"] in ("input_x_gradient", "integrated_gradients"))
    checks = [line for line in lines if line["kind"] == "check"]
    assert len(checks) == 14 * 2 and {line["how"] for line in checks} == {"mask"}
    assert list(checks[0]["randomization"]) == ["top", "layer 2", "layer 1", "embeddings"]
    costs = {line["method"]: (line["forward"], line["backward"]) for line in lines if line["kind"] == "cost"}
    assert costs == {
        "importance": (1, 0),
        "random": (0, 0),
        "hidden_norm": (1, 0),
        "input_x_gradient": (1, 1),
        "integrated_gradients": (50, 50),
    }
    assert (measured / "report.md").stat().st_size > 2000 and (measured / "faithfulness.png").stat().st_size > 5000


def test_what_is_done_is_not_done_again_and_what_is_missing_is(folders, measured, tmp_path, monkeypatch):
    out = tmp_path / "again"
    shutil.copytree(measured, out)
    whole = (out / "results.jsonl").read_text()

    def never(*given, **options):
        raise AssertionError("measured again")

    with monkeypatch.context() as patch:
        patch.setattr(command, "measure_samples", never)
        assert main(flags(folders, out)) == 0
    assert (out / "results.jsonl").read_text() == whole
    # Interrupted: in the middle of a line, three samples into the last block.
    kept = whole.splitlines(True)
    last = max(i for i, line in enumerate(kept) if '"kind": "sample"' in line) - 1
    (out / "results.jsonl").write_text("".join(kept[:last]) + kept[last][:30])
    asked = []
    monkeypatch.setattr(
        command, "measure_samples", lambda *a, **k: asked.append(a[2]) or measuring.measure_samples(*a, **k)
    )
    assert main(flags(folders, out)) == 0
    assert [len(numbers) for numbers in asked] == [2]
    for found, expected in zip(lines_of(out), map(json.loads, kept), strict=True):
        assert list(found) == list(expected)
        assert numbers(found) == pytest.approx(
            numbers(expected), abs=1e-4
        )  # batches of other sizes differ in the last digits


def test_the_report_is_written_of_what_is_there(measured):
    text = (measured / "report.md").read_text()
    for part in ("2 model(s), 1 plain", "Tokens masked by mask", "Tokens masked by drop", "| importance |"):
        assert part in text
    for part in (
        "importance - integrated gradients",
        "share of the way: importance",
        "integrated gradients, plain model",
    ):
        assert part in text
    assert "nan" not in text.lower().replace("explanation", "")


def test_images_are_measured(tmp_path, capsys):
    given = [
        "--dataset",
        "digits",
        "--max_train_samples",
        "20",
        "--masking",
        "blur",
        "--output_dir",
        str(tmp_path / "out"),
    ]
    given += [*FEW, "--methods", "hidden_norm,attention_rollout"]
    assert main(["faithfulness", "--model", "vit-fashion-mnist", *given]) == 0
    assert "faithfulness.png" in capsys.readouterr().out
    assert {line["how"] for line in lines_of(tmp_path / "out") if line["kind"] == "sample"} == {"blur"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--methods", "importance,luck"], "--methods must be of importance, charge, -charge"),
        (["--masking", "blur"], "--masking must be of mask, drop for text-classification; got 'blur'"),
        (["--samples", "0"], "--samples must be at least 1, got 0"),
        (["--check_samples", "-1"], "--check_samples must be at least 0"),
        (["--task", "causal-lm", "--text_column", "text"], "a language model predicts no class of a text"),
        (["--plain", "minilm"], "--plain 'minilm' has no trained classifier: fine-tune it first"),
        (["--plain", "vit-fashion-mnist"], "--plain 'vit-fashion-mnist' cannot be loaded for text-classification"),
    ],
)
def test_what_cannot_be_measured_is_rejected_before_anything_is(folders, tmp_path, more, message, capsys):
    assert main(flags(folders, tmp_path / "out", *more)) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_other_settings_and_other_weights_are_rejected(folders, measured, tmp_path, capsys):
    assert main(flags(folders, measured, "--perturbations", "7")) == 2
    assert "holds results of other settings; give another" in capsys.readouterr().err
    shutil.copytree(measured, tmp_path / "out")
    file = tmp_path / "out" / "results.jsonl"
    lines = [line | {"weights": "0" * 16} if line["kind"] == "weights" else line for line in lines_of(measured)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(flags(folders, tmp_path / "out")) == 2
    assert "with other weights: it was trained again" in capsys.readouterr().err


def test_no_model_is_rejected(capsys):
    assert main(["faithfulness", "--dataset", "verse"]) == 2
    assert "give --model: one or more folders or Hub ids of classifiers" in capsys.readouterr().err
