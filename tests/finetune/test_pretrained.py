"""From a name to a model and its tokenizer: of other classes, from nothing, with another configuration."""

import json

import pytest
import torch
import transformers
from PIL import Image
from transformers import AutoConfig

from atom_hf.data.load import TaskData
from atom_hf.errors import AtomError
from atom_hf.finetune.inputs import prepare_inputs
from atom_hf.finetune.pretrained import find_model
from helpers.task_data import LINES, TINY_BERT, TINY_GPT2, image_data, text_data

pytestmark = pytest.mark.usefixtures("own_cache")


# Tokenizers


@pytest.mark.parametrize("size", [300, 1000])
def test_tokenizer_from_nothing_gives_texts_back(size):
    verses = [f"{line} {i}" for i, line in enumerate(LINES * 20)]
    task = prepare_inputs(
        text_data(verses), model=None, model_type="gpt2", config_overrides=TINY_GPT2, vocabulary_size=size
    )
    tokenizer = task.processing_class
    assert len(tokenizer) <= size and len(tokenizer) > 256
    assert task.model.get_input_embeddings().num_embeddings == task.model.config.vocab_size == len(tokenizer)
    unseen = ["Où sont les neiges d'antan ?", "  two  spaces , and a comma", "雪 \N{SNOWMAN}\n\ta tab"]
    for text in [*LINES, *unseen]:
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids) == text
        assert tokenizer.unk_token_id not in ids
    # What was seen often takes fewer tokens than letters.
    assert len(tokenizer(LINES[1])["input_ids"]) < len(LINES[1]) / 1.5
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    config = task.model.config
    assert [config.pad_token_id, config.eos_token_id] == [tokenizer.pad_token_id, tokenizer.eos_token_id]


def test_tokenizer_from_nothing_survives_saving(tmp_path):
    options = {"model_type": "gpt2", "config_overrides": TINY_GPT2, "vocabulary_size": 300, "max_length": 16}
    tokenizer = prepare_inputs(text_data(LINES), model=None, **options).processing_class
    tokenizer.save_pretrained(tmp_path)
    again = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert again(LINES)["input_ids"] == tokenizer(LINES)["input_ids"]
    assert again.decode(again(LINES[2])["input_ids"]) == LINES[2]
    assert again.model_max_length == 16 and again.pad_token == tokenizer.pad_token


def test_a_tokenizer_other_than_the_models(tmp_path, without_pad):
    options = {"model_type": "gpt2", "config_overrides": TINY_GPT2}
    task = prepare_inputs(text_data(LINES), model=None, tokenizer=without_pad, **options)
    assert task.processing_class(LINES[0])["input_ids"] == task.train["input_ids"][0][:-1]
    assert task.model.config.vocab_size == len(task.processing_class) < 100


# Classes


def test_classes_are_those_of_the_data():
    data = text_data(LINES, [2, 0, 1], names=("low", "middle", "high"))
    task = prepare_inputs(data, model=None, model_type="bert", config_overrides=TINY_BERT, vocabulary_size=300)
    assert task.model.config.id2label == {0: "low", 1: "middle", 2: "high"}
    assert task.model.config.label2id == {"low": 0, "middle": 1, "high": 2}
    assert task.model.classifier.out_features == 3
    assert task.train["labels"][:] == [2, 0, 1]


def base_weights(model):
    return {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("classifier")}


def test_a_classifier_for_other_classes_starts_anew():
    data = image_data([Image.new("L", (28, 28), i) for i in range(4)])
    other = TaskData("x", data.task, data.train, data.eval, [str(i) for i in range(10)])
    before = transformers.ViTForImageClassification.from_pretrained(find_model("vit-fashion-mnist"))
    same_names = TaskData("x", data.task, data.train, data.eval, [before.config.id2label[i] for i in range(10)])
    renamed, kept, fewer = (prepare_inputs(d, model="vit-fashion-mnist").model for d in (other, same_names, data))
    assert torch.equal(kept.classifier.weight, before.classifier.weight)
    assert not torch.isclose(renamed.classifier.weight, before.classifier.weight).any(), "as many classes, others"
    assert renamed.classifier.bias.eq(0).all()
    assert renamed.config.id2label[3] == "3" and fewer.classifier.out_features == 2
    for model in (renamed, kept, fewer):
        for name, tensor in base_weights(before).items():
            assert torch.equal(base_weights(model)[name], tensor), name


# Names


def test_built_in_models_are_folders_and_others_stay_names():
    assert transformers.AutoConfig.from_pretrained(find_model("vit-fashion-mnist")).num_labels == 10
    assert find_model("org/name") == "org/name"


@pytest.mark.parametrize("both", [{"model": None}, {"model": "vit-fashion-mnist", "model_type": "vit"}])
def test_a_model_or_a_model_type(both):
    with pytest.raises(AtomError, match=r"give --model .* or --model_type, not both"):
        prepare_inputs(image_data([Image.new("L", (8, 8))] * 2), **both)


@pytest.mark.parametrize(
    "overrides",
    [
        "hidden_size=24,num_hidden_layers=1",
        {"hidden_size": 24, "num_hidden_layers": 1},
        '{"hidden_size": 24, "num_hidden_layers": 1}',
    ],
)
def test_configuration_overrides_as_text_a_mapping_and_json(overrides):
    data = image_data([Image.new("L", (8, 8))] * 2)
    model = prepare_inputs(data, model=None, model_type="vit", config_overrides=overrides).model
    assert model.config.hidden_size == 24 and model.config.num_hidden_layers == 1
    assert model.classifier.in_features == 24


@pytest.mark.parametrize("form", [dict, json.dumps])
def test_configuration_overrides_may_hold_lists(form):
    overrides = {"embedding_size": 8, "hidden_sizes": [8, 12], "depths": [1, 1], "layer_type": "basic"}
    data = image_data([Image.new("RGB", (8, 8))] * 2)
    config = prepare_inputs(data, model=None, model_type="resnet", config_overrides=form(overrides)).model.config
    assert {name: getattr(config, name) for name in overrides} == overrides


def test_a_convolutional_model_is_given_the_size_of_its_images(tmp_path):
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 12], "depths": [1, 1], "layer_type": "basic"}
    data = image_data([Image.new("L", (8, 8))] * 2)
    for image_size, expected in (({}, 224), ({"image_size": 16}, 16)):
        task = prepare_inputs(
            data, model=None, model_type="resnet", config_overrides=json.dumps({**sizes, **image_size})
        )
        assert task.processing_class.size == {"height": expected, "width": expected}
    task.model.save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).image_size == 16


@pytest.mark.parametrize("overrides", ["hidden_dropout_prob=0.25", '{"hidden_dropout_prob": 0.25}'])
def test_configuration_overrides_of_a_pretrained_model_leave_its_weights(overrides):
    data = image_data([Image.new("L", (28, 28), i) for i in range(4)])
    torch.manual_seed(0)
    before = prepare_inputs(data, model="vit-fashion-mnist").model
    torch.manual_seed(0)
    model = prepare_inputs(data, model="vit-fashion-mnist", config_overrides=overrides).model
    assert before.config.hidden_dropout_prob != 0.25 and model.config.hidden_dropout_prob == 0.25
    assert {part.p for name, part in model.named_modules() if name.endswith("embeddings.dropout")} == {0.25}
    changed = {k for k, v in model.config.to_dict().items() if v != before.config.to_dict()[k]}
    assert changed == {"hidden_dropout_prob"} and model.config.id2label == {0: "no", 1: "yes"}
    for name, tensor in before.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


@pytest.mark.parametrize(
    "overrides",
    ["width=3", {"width": 3}, '{"width": 3}', "{", "hidden_size", "hidden_size=wide", '{"hidden_size": "wide"}'],
)
@pytest.mark.parametrize("source", [{"model": "vit-fashion-mnist"}, {"model": None, "model_type": "vit"}], ids=str)
def test_configuration_overrides_that_do_not_fit_are_rejected(source, overrides):
    with pytest.raises(AtomError, match=r"^--config_overrides .* does not fit vit: .+") as caught:
        prepare_inputs(image_data([Image.new("L", (8, 8))] * 2), config_overrides=overrides, **source)
    assert "\n" not in str(caught.value)
