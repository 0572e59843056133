"""Features of rows: those of the model in evaluation, one row at a time, whatever a batch holds and wherever they come from."""

import shlex

import datasets
import numpy as np
import pytest
import torch

from atom_hf.data.load import load_data
from atom_hf.experiments.features import encode, read_outputs, same_inputs
from atom_hf.experiments.measures import measure_probes
from atom_hf.experiments.probes import linear_probe, neighbor_accuracy
from atom_hf.experiments.regularizers import StudyTrainer, StudyTrainingArguments
from atom_hf.finetune.arguments import RunArguments
from atom_hf.finetune.flags import parse_kinds
from atom_hf.finetune.run import prepare_run, unlogged_run

pytestmark = pytest.mark.usefixtures("own_cache")

SIZES = "hidden_size=16,num_hidden_layers=1,num_attention_heads=2,intermediate_size=16"
IMAGE = f"--model_type vit --config_overrides image_size=8,patch_size=4,num_channels=1,{SIZES} --dataset digits"
TEXT = f"--model_type bert --config_overrides {SIZES} --vocabulary_size 400 --dataset verse"
LAST = (
    "--model_type gpt2 --config_overrides n_embd=16,n_layer=1,n_head=2,n_positions=64 --vocabulary_size 400 "
    "--dataset verse --task text-classification"
)


def prepare(line):
    flags = shlex.split(f"{line} --max_train_samples 24 --max_eval_samples 40 --seed 3")
    run, args = parse_kinds("train", flags, [RunArguments, StudyTrainingArguments])
    with unlogged_run(run, args, 3) as (one, quietly):
        return prepare_run(one, quietly, save=False, trainer_class=StudyTrainer)


@pytest.mark.parametrize("line", [IMAGE, TEXT, f"{TEXT} --atom --atom_form separation", LAST])
def test_features_are_what_the_output_layer_reads_of_each_row_alone(line):
    prepared = prepare(line)
    model, rows = prepared.trainer.model.eval(), prepared.task.eval
    logits, labels, features = read_outputs(prepared, encode(prepared, prepared.data.eval))
    assert labels.tolist() == prepared.data.eval["label"][:] and len(features) == 40
    output = model.score if hasattr(model, "score") else model.classifier
    weight = {name: value.detach().numpy() for name, value in output.named_parameters()}
    np.testing.assert_allclose(features @ weight["weight"].T + weight.get("bias", 0), logits, rtol=1e-3, atol=1e-5)
    for i in (0, 17, 39):
        row = {name: torch.as_tensor(value)[None] for name, value in rows[i].items() if name != "labels"}
        with torch.no_grad():
            np.testing.assert_allclose(model(**row)["logits"][0].numpy(), logits[i], rtol=1e-3, atol=1e-5)


def test_images_are_decoded_once_and_are_those_of_the_task():
    prepared = prepare(IMAGE)
    one, two = (encode(prepared, prepared.data.eval) for _ in range(2))
    assert one is two and len(one) == 40
    for i in (0, 39):
        assert torch.equal(one[i]["pixel_values"], prepared.task.eval[i]["pixel_values"])
        assert one[i]["labels"] == prepared.task.eval[i]["labels"]
    assert encode(prepared, prepared.data.train) is not one


@pytest.mark.parametrize("line", [IMAGE, TEXT])
def test_a_probe_is_of_other_labels_on_rows_of_its_own(line):
    prepared = prepare(line)
    name = "digits" if line == IMAGE else "verse"
    data = load_data(name, max_train_samples=60, max_eval_samples=50, sample_seed=8)
    found = measure_probes(prepared, {"other": data}, "untrained ")
    (_, a, x), (_, b, y) = (read_outputs(prepared, encode(prepared, rows)) for rows in (data.train, data.eval))
    assert found["other untrained probe"] == linear_probe(x, a, y, b)["accuracy"]
    assert found["other untrained neighbors"] == neighbor_accuracy(x, a, y, b)
    assert measure_probes(prepared, {"other": data}, "untrained ", np.zeros((40, 16))) == found, "other rows are read"


def test_features_that_are_known_are_not_read_again():
    prepared = prepare(IMAGE)
    turned = prepared.data.eval.remove_columns("label").add_column("label", [i % 2 for i in range(40)])
    data = load_data("digits", max_train_samples=60)
    data = type(data)(data.name, data.task, data.train, turned, ["0", "1"])
    assert same_inputs(turned, prepared.data.eval) and not same_inputs(turned, data.train)
    assert not same_inputs(turned, prepared.data.eval.select(range(39, -1, -1)))
    _, _, features = read_outputs(prepared, encode(prepared, prepared.data.eval))
    assert measure_probes(prepared, {"odd": data}, known=features) == measure_probes(prepared, {"odd": data})


def test_texts_with_other_labels_are_the_same_inputs():
    rows = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]})
    assert same_inputs(rows, rows.remove_columns("label").add_column("label", [1, 1]))
    assert not same_inputs(rows, datasets.Dataset.from_dict({"text": ["a", "c"], "label": [0, 1]}))
