"""What an output layer reads, as vectors: with the layer they give the model's own logits; an editor of them by one command."""

import json

import datasets
import numpy as np
import pytest
import torch

from atom_hf import AtomError
from atom_hf.data.encoding import encode_rows
from atom_hf.tasks import Manipulator
from atom_hf.tasks.manipulation.arguments import ManipulateOptions
from atom_hf.tasks.manipulation.features import Body
from atom_hf.tasks.manipulation.inputs import load_inputs
from helpers.commands import command
from helpers.models import make_tokenizer, tiny, verse

pytestmark = pytest.mark.usefixtures("own_cache")

NAMES = ["calm", "rough"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Classifiers of texts; the decoder's output layer gives the logits of all tokens, of which the last one's are taken."""
    found = {}
    for kind in ("bert", "decoder"):
        found[kind] = str(tmp_path_factory.mktemp(kind))
        model = tiny("bert" if kind == "bert" else "gpt2-classifier", num_labels=2)
        model.save_pretrained(found[kind])
        make_tokenizer().save_pretrained(found[kind])
    return found


@pytest.mark.parametrize("kind", ["bert", "decoder"])
def test_vectors_and_the_layer_give_the_models_logits(folders, kind):
    rows = datasets.Dataset.from_list([{"text": row["text"], "label": row["label"]} for row in verse(60)[:9]])
    body = Body(folders[kind], NAMES, is_image=False)
    found = body.read(rows)
    with torch.no_grad():
        logits = body.model(**encode_rows([{"text": text} for text in rows["text"]], body.model, body.processor))[
            "logits"
        ]
    assert found.kind.name == "vector" and found.labels.tolist() == rows["label"]
    torch.testing.assert_close(body.classifier().module(found.values), logits, rtol=1e-4, atol=1e-4)


def test_an_editor_of_texts_vectors_is_made_and_used(folders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = [f'"{row["text"]}",{NAMES[row["label"]]}' for row in verse(60) if '"' not in row["text"]]
    (tmp_path / "lines.csv").write_text("text,label\n" + "\n".join(lines) + "\n", encoding="utf-8")
    fast = "--max_steps 3 --hidden_sizes 8 --sigma 0 --use_cpu --disable_tqdm true --report_to none --samples 4"
    line = f"manipulate --classifier {folders['bert']} --dataset lines.csv --eval_fraction 0.5 {fast} --output_dir out"
    status, _, err = command(line)
    assert status == 0, err
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert set(metrics["compared"]) == {"mean difference"} and metrics["judge_name"] == "linear"
    page = (tmp_path / "out" / "edits.html").read_text(encoding="utf-8")
    assert "Nearest texts to edited vectors" in page and not (tmp_path / "out" / "edits.png").exists()
    manipulator = Manipulator.from_pretrained(tmp_path / "out")
    size = manipulator.config.data_sizes[0]
    np.save("vectors.npy", np.zeros((2, size), dtype=np.float32))
    status, _, err = command("manipulate --model out --edit vectors.npy --to rough --strength 0:1:3")
    assert status == 0, err
    edited = np.load("edited.npy")
    assert edited.shape == (3, 2, size)
    expected = manipulator.edit(torch.zeros(2, size), "rough").numpy()
    np.testing.assert_allclose(edited[2], expected, rtol=1e-5, atol=1e-5)


def test_the_ids_of_the_classes_are_those_of_the_classifier(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [row for row in verse(60) if '"' not in row["text"]]
    lines = [f'"{row["text"]}",{NAMES[row["label"]]}' for row in rows]
    (tmp_path / "lines.csv").write_text("text,label\n" + "\n".join(lines) + "\n", encoding="utf-8")
    model = tiny("bert", num_labels=2)
    model.config.id2label = {0: "Rough", 1: "Calm"}
    model.save_pretrained("model")
    make_tokenizer().save_pretrained("model")
    found = load_inputs(ManipulateOptions(classifier="model", dataset="lines.csv", eval_fraction=0.5))
    assert found.labels == ["rough", "calm"]
    written = {row["text"]: NAMES[row["label"]] for row in rows}
    assert [found.labels[label] for label in found.test.labels] == [written[text] for text in found.texts]


def test_classifiers_that_do_not_fit_are_refused(folders):
    with pytest.raises(AtomError, match=r"has 2 classes .*, and --dataset has 3"):
        Body(folders["bert"], ["a", "b", "c"], is_image=False)
    with pytest.raises(AtomError, match=r"--classifier '\./nosuch': no such model that can be read"):
        Body("./nosuch", NAMES, is_image=False)
