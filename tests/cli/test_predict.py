"""`atom-hf predict`: against the model itself, in every kind of file, interrupted, and what it rejects."""

import csv
import json
import weakref

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import accuracy_score
from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

import atom_hf.cli.predict
from atom_hf import AtomConfig, attach_atoms, load_atom_model
from atom_hf.importance import predictions
from atom_hf.importance.read import read_images, read_texts
from atom_hf.importance.text import TextScorer
from helpers.commands import command
from helpers.models import make_tokenizer, tiny, verse

NAMES = {0: "calm", 1: "rough"}
TEXTS = [row["text"] for row in verse(60)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("predict")
    grey = ViTImageProcessorPil(size={"height": 8, "width": 8}, image_mean=[0.5], image_std=[0.5])
    made = {
        "bert": tiny("bert", id2label=NAMES, label2id={"calm": 0, "rough": 1}),
        "value": tiny("bert", num_labels=1),
        "several": tiny("bert", num_labels=3, problem_type="multi_label_classification"),
        "gpt2": tiny("gpt2"),
        "vit": tiny("vit"),
    }
    for name, model in made.items():
        processor = grey if name == "vit" else make_tokenizer()
        model.eval().save_pretrained(root / f"{name}-plain")
        attach_atoms(model, AtomConfig(layer=-1), processor).save_pretrained(root / name)
        processor.save_pretrained(root / f"{name}-plain")
        processor.save_pretrained(root / name)
    rows = [(text, NAMES[i % 2], i / 10) for i, text in enumerate(TEXTS)]
    with (root / "my.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label", "size"), *rows])
    (root / "lines.txt").write_text("".join(text + "\n" for text in (*TEXTS[:5], "")), encoding="utf-8")
    (root / "pairs.jsonl").write_text('{"premise": "the sea", "hypothesis": "and rivers"}\n')
    (root / "other.csv").write_text("text,label\nthe sea,storm\n")
    rng = np.random.default_rng(0)
    for i in range(6):
        place = root / "kinds" / f"LABEL_{i % 2}" / f"{i}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 30), dtype=np.uint8)).save(place)
    return root


@pytest.fixture(autouse=True)
def in_folder(folder, own_cache, monkeypatch):
    monkeypatch.chdir(folder)


def predict(line, output):
    status, out, err = command(f"predict {line} --output {output}")
    assert status == 0, err
    return out, err


def records(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("size", [1, 7, 100])
def test_texts_are_predicted_as_the_model_does_one_by_one(tmp_path, size, monkeypatch):
    monkeypatch.setattr(predictions, "PART", 2)
    out, _ = predict(f"--model bert --file my.csv --batch_size {size}", tmp_path / "out.jsonl")
    found = records(tmp_path / "out.jsonl")
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained("bert-plain"), make_tokenizer()
    read = read_texts(load_atom_model("bert"), tokenizer, TEXTS)
    assert [record["row"] for record in found] == list(range(60))
    for record, text, result in zip(found, TEXTS, read, strict=True):
        with torch.no_grad():
            chances = model(**tokenizer(text, return_tensors="pt")).logits.softmax(-1)[0].tolist()
        assert record["text"] == text and record["probabilities"] == pytest.approx(
            dict(zip(("calm", "rough"), chances, strict=True)), abs=1e-5
        )
        assert record["predicted"] == max(record["probabilities"], key=record["probabilities"].get)
        assert record["confidence"] == max(record["probabilities"].values())
        assert [text[word["start"] : word["end"]] for word in record["words"]] == [w["word"] for w in record["words"]]
        values = [word["importance"] for word in record["words"]]
        assert values == pytest.approx([word.importance for word in result.words], abs=1e-5)
    accuracy = accuracy_score([record["label"] for record in found], [record["predicted"] for record in found])
    assert "predicted 60 texts\n" in out and f"accuracy  {accuracy:.4f}\n" in out and "mcc" in out
    assert [record["label"] for record in found] == ["calm", "rough"] * 30


def test_csv_and_lines_and_pairs(tmp_path):
    predict("--model bert --file my.csv", tmp_path / "out.jsonl")
    predict("--model bert my.csv", tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row, record in zip(rows, records(tmp_path / "out.jsonl"), strict=True):
        assert list(row) == list(record)
        assert {name: json.loads(row[name]) for name in ("words", "probabilities")} == {
            name: record[name] for name in ("words", "probabilities")
        }
        assert row["predicted"] == record["predicted"] and float(row["confidence"]) == record["confidence"]
    out, _ = predict("--model bert --file lines.txt", tmp_path / "lines.jsonl")
    found = records(tmp_path / "lines.jsonl")
    assert [record["text"] for record in found] == [*TEXTS[:5], ""] and found[-1]["words"] == []
    assert "label" not in found[0] and "accuracy" not in out and found[-1]["predicted"] in NAMES.values()
    predict("--model bert --file pairs.jsonl", tmp_path / "pairs.jsonl")
    (pair,) = records(tmp_path / "pairs.jsonl")
    assert pair["text_pair"] == "and rivers" and [word["source"] for word in pair["words"]] == [0, 0, 1, 1]


def test_images_in_folders_are_classes_too(tmp_path):
    out, _ = predict("--model vit --file kinds", tmp_path / "out.jsonl")
    found = records(tmp_path / "out.jsonl")
    files = [f"kinds/LABEL_{i % 2}/{i}.png" for i in (0, 2, 4, 1, 3, 5)]
    images = [Image.open(file) for file in files]
    processor = ViTImageProcessorPil.from_pretrained("vit")
    model = AutoModelForImageClassification.from_pretrained("vit-plain")
    for record, result, file in zip(found, read_images(load_atom_model("vit"), processor, images), files, strict=True):
        assert record["file"] == file[-5:] and record["label"] == file[6:13]
        assert np.array(record["grid"]) == pytest.approx(result.importance, abs=1e-5) and record["box"] is None
        with torch.no_grad():
            chances = model(**processor([result.image.convert("L")], return_tensors="pt")).logits.softmax(-1)[0]
        assert list(record["probabilities"].values()) == pytest.approx(chances.tolist(), abs=1e-5)
    assert "predicted 6 images\n" in out and "accuracy" in out
    out, _ = predict("--model vit --file kinds/LABEL_0", tmp_path / "flat.jsonl")
    assert [record["file"] for record in records(tmp_path / "flat.jsonl")] == ["0.png", "2.png", "4.png"]
    assert "predicted 3 images\n" in out and "accuracy" not in out


def test_a_plain_model_predicts_the_same_and_says_that_it_has_no_importance(tmp_path, caplog):
    predict("--model bert --file my.csv", tmp_path / "atoms.jsonl")
    predict("--model bert --file my.csv --no_importance", tmp_path / "without.jsonl")
    assert "no atoms" not in caplog.text
    predict("--model bert-plain --file my.csv", tmp_path / "plain.jsonl")
    assert "bert-plain has no atoms: it gives predictions, and no importance\n" in caplog.text
    expected = [
        {k: v for k, v in one.items() if k not in ("words", "target")} for one in records(tmp_path / "atoms.jsonl")
    ]
    assert records(tmp_path / "plain.jsonl") == records(tmp_path / "without.jsonl") == expected


def test_numbers_and_several_labels(tmp_path, caplog):
    out, _ = predict("--model value --file my.csv --label_column size", tmp_path / "value.jsonl")
    found = records(tmp_path / "value.jsonl")
    error = np.mean([abs(record["predicted"] - record["label"]) for record in found])
    assert f"mae       {error:.4f}" in out and "r2" in out and found[3]["label"] == 0.3
    assert found[0]["confidence"] is None and found[0]["probabilities"] is None
    predict("--model several --file my.csv", tmp_path / "several.jsonl")
    found = records(tmp_path / "several.jsonl")
    assert "column 'label' is not compared" in caplog.text and "label" not in found[0]
    model = AutoModelForSequenceClassification.from_pretrained("several-plain")
    with torch.no_grad():
        chances = model(**make_tokenizer()(TEXTS[0], return_tensors="pt")).logits.sigmoid()[0].tolist()
    assert list(found[0]["probabilities"].values()) == pytest.approx(chances, abs=1e-5)


def test_a_target_by_masking_and_what_masking_really_does(tmp_path):
    line = "--file lines.txt --method masking --target rough --verify"
    predict(f"--model bert-plain {line}", tmp_path / "plain.jsonl")
    predict(f"--model bert {line}", tmp_path / "out.csv")
    found = records(tmp_path / "plain.jsonl")
    model = AutoModelForSequenceClassification.from_pretrained("bert-plain")
    read = read_texts(model, make_tokenizer(), [*TEXTS[:5], ""], target="rough", method="masking", verified=True)
    assert any(record["verified"] for record in found)
    for record, result in zip(found, read, strict=True):
        values = [word["importance"] for word in record["words"]]
        assert values == pytest.approx([word.importance for word in result.words], abs=1e-5)
        assert record["target"] == "rough"
        seen = result.verified
        assert (record["verified"] is None) == (seen is None)
        if seen:
            assert record["verified"]["masked"] == seen.masked
            assert record["verified"]["after"] == pytest.approx(seen.after, abs=1e-5)
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["target"] for row in rows] == ["rough"] * 6 and json.loads(rows[0]["words"])


def test_standard_output_is_json_lines_alone(caplog):
    status, out, _ = command("predict --model bert --file my.csv --output -")
    found = [json.loads(line) for line in out.splitlines()]
    assert status == 0 and len(found) == 60 and "accuracy" in caplog.text


@pytest.mark.promise("An interrupted `predict` goes on after the last whole record, and ends with the same file.")
@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
def test_interrupted_it_goes_on_and_ends_with_the_same_file(tmp_path, monkeypatch, name):
    monkeypatch.setattr(predictions, "PART", 2)
    line = "--model bert --file my.csv --batch_size 8"
    whole, _ = predict(line, tmp_path / f"whole-{name}")
    real, calls = TextScorer.forward, []

    def forward(self, batch, target=None):
        calls.append(len(batch))
        if len(calls) == 6:
            raise KeyboardInterrupt
        return real(self, batch, target)

    monkeypatch.setattr(TextScorer, "forward", forward)
    path = tmp_path / name
    status, _, err = command(f"predict {line} --output {path}")
    assert status == 130 and "goes on after the last row" in err
    # As if it had been killed in the middle of a line, too.
    path.write_bytes(path.read_bytes()[:-20])
    for other, says in (
        ("--batch_size 9", "another batch_size"),
        ("--batch_size 8 --no_importance", "another importance"),
    ):
        status, _, err = command(f"predict --model bert --file my.csv {other} --output {path}")
        assert status == 2 and says in err and err.count("\n") == 1
    status, _, err = command(f"predict --model bert-plain --file my.csv --batch_size 8 --output {path}")
    assert status == 2 and "another model" in err
    calls.clear()
    monkeypatch.setattr(TextScorer, "forward", lambda self, *given: calls.append(len(given[0])) or real(self, *given))
    out, _ = predict(line, path)
    assert path.read_bytes() == (tmp_path / f"whole-{name}").read_bytes()
    assert out == whole.replace(f"whole-{name}", name) and sum(calls) < 60
    assert not path.with_name(name + ".progress").exists()


def test_memory_holds_one_part_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(predictions, "PART", 2)
    alive, most, real = weakref.WeakSet(), [], TextScorer.encode

    def encode(self, *sample):
        encoded = real(self, *sample)
        alive.add(_Watched(encoded))
        return encoded

    class _Watched:
        """Lives as long as the encoded text that holds it."""

        def __init__(self, encoded):
            object.__setattr__(encoded, "watched", self)

    monkeypatch.setattr(TextScorer, "encode", encode)
    forward = TextScorer.forward
    monkeypatch.setattr(TextScorer, "forward", lambda self, *given: most.append(len(alive)) or forward(self, *given))
    predict("--model bert --file my.csv --batch_size 5", tmp_path / "out.jsonl")
    assert max(most) == 10 and len(most) == 12


REJECTED = [
    ("--file my.csv", "give --model"),
    ("--model bert", "give --file"),
    ("--model vit-fashion-mnist --file kinds", "is to be trained first"),
    ("--model ./nosuch --file my.csv", "'./nosuch' cannot be read: there is no such folder"),
    ("--model bert --file nosuch.csv", "--file 'nosuch.csv': there is no such file"),
    ("--model bert --file kinds", "the model takes texts"),
    ("--model vit --file my.csv", "the model takes images"),
    ("--model bert --file my.csv --batch_size 0", "--batch_size"),
    ("--model bert --file my.csv --label_column size", "holds 0.1"),
    ("--model bert --file other.csv --label_column label", "holds storm, which are not classes"),
    ("--model gpt2-plain --file my.csv", "GPT2LMHeadModel predicts no class or number of a whole sample"),
    ("--model bert --file my.csv --outputs x", "no such flag: --outputs"),
    ("--model bert --file my.csv --target rough", "is not fitted to what it predicts; fit it"),
    ("--model bert-plain --file my.csv --target rough", "for --target and --verify give --method masking too"),
    ("--model bert --file my.csv --method masking --target storm", "target 'storm' is no class of the model"),
    ("--model bert --file my.csv --no_importance --verify", "--no_importance leaves nothing for --target and --verify"),
]


@pytest.mark.parametrize(("line", "says"), REJECTED, ids=[line for line, _ in REJECTED])
def test_rejected_in_a_line(line, says, tmp_path):
    status, out, err = command(f"predict {line} --output {tmp_path / 'out.jsonl'}")
    assert status == 2 and out == "" and says in err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_outputs_that_are_rejected_before_a_model_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(atom_hf.cli.predict, "load_trained", lambda *_: pytest.fail("a model was loaded"))
    (tmp_path / "there.csv").write_text("mine\n")
    for name, says in (("there.csv", "exists, and was not left unfinished"), ("out.txt", "ends in .jsonl or .csv")):
        status, _, err = command(f"predict --model bert --file my.csv --output {tmp_path / name}")
        assert status == 2 and says in err and err.count("\n") == 1
    assert (tmp_path / "there.csv").read_text() == "mine\n"


def test_labels_of_other_classes_are_left_out_and_said(tmp_path, caplog):
    out, _ = predict("--model bert --file other.csv", tmp_path / "out.jsonl")
    says = "column 'label' holds storm, which are not classes of the model (calm, rough): it is left out"
    assert says in caplog.text
    assert "accuracy" not in out and "label" not in records(tmp_path / "out.jsonl")[0]
