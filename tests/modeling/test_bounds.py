"""Configurations that ask for more than any model has: rejected before anything of that size is made."""

import json

import pytest
import torch
import transformers
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from atom_hf import AtomError, load_atom_model
from atom_hf.finetune.inputs import prepare_inputs
from atom_hf.finetune.pretrained import load_processor
from atom_hf.modeling import bounds
from atom_hf.modeling.bounds import check_counts, check_memory
from helpers.models import attached, make_tokenizer
from helpers.task_data import LINES, TINY_BERT, text_data

pytestmark = pytest.mark.promise(
    "A configuration that asks for more than any model has, or than the machine holds, is rejected before anything is built.",
    "layers, experts, classes, widths, vocabularies and picture sizes",
)


MANY = 100_000_000


@pytest.mark.parametrize(
    "config",
    [
        {"num_hidden_layers": MANY},
        {"n_layer": MANY},
        {"encoder_layers": 2, "decoder_layers": MANY},
        {"depths": [2, 2, MANY]},
        {"num_labels": MANY},
        {"text_config": {"num_local_experts": MANY}},
        {"vision_config": {"depth": MANY}},
        {"num_hidden_layers": -MANY},
        {"num_layers": 10**3000},
        {"num_virtual_tokens": MANY},
        {"image_size": [MANY, MANY]},
    ],
    ids=str,
)
def test_more_than_any_model_has(config):
    with pytest.raises(AtomError, match=r"^here: \w+ is -?10{7,}(\.\.\.)?, more than the \d+ allowed$"):
        check_counts(config, "here")


@pytest.mark.parametrize(
    "name", ["bert", "gpt2", "llama", "vit", "swin", "resnet", "t5", "mixtral", "xlnet", "whisper"]
)
def test_what_models_have_passes(name):
    check_counts(transformers.AutoConfig.for_model(name).to_dict(), name)
    check_counts({"hidden_size": MANY, "num_hidden_layers": True, "layers": "many", "layer_norm_eps": 1e-5}, name)


def test_parts_are_counted_while_a_model_is_laid_out(monkeypatch):
    def make():
        return torch.nn.ModuleList(torch.nn.Linear(1, 1) for _ in range(MANY))

    monkeypatch.setattr(bounds, "MOST_PARTS", 100)
    with pytest.raises(AtomError, match=r"^here: the model has more than 100 modules and parameters$"):
        check_memory(make, "here")
    torch.nn.ModuleList(torch.nn.Linear(1, 1) for _ in range(200))  # nobody counts any more


def test_a_model_larger_than_memory():
    with pytest.raises(AtomError, match=r"^here: it describes 1,000,000,000,000 parameters, 3,725 GiB at the least"):
        check_memory(lambda: torch.nn.Linear(10**6, 10**6, bias=False), "here")
    check_memory(lambda: torch.nn.Linear(10, 10), "here")

    def fails():
        raise ValueError("its own maker says why")

    check_memory(fails, "here")


def test_what_is_laid_out_takes_no_random_numbers():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    check_memory(lambda: torch.nn.Linear(10, 10, device="cpu"), "here")
    assert torch.equal(torch.rand(3), expected)


# Through what reads a model


@pytest.fixture
def folder(tmp_path):
    attached("bert").save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    return tmp_path


def spoil(folder, **fields):
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


SPOILT = {
    "layers": ({"num_hidden_layers": MANY}, "num_hidden_layers is 100000000, more than the 4096 allowed"),
    "classes": ({"num_labels": MANY}, "num_labels is 100000000"),
    "width": ({"hidden_size": 40_000, "num_attention_heads": 8}, "its configuration describes"),
    "table": ({"max_position_embeddings": 10**9}, "its configuration describes"),
    "activation": ({"hidden_act": "wiggly"}, "wiggly"),
    "heads that do not divide": ({"num_attention_heads": 7}, "7"),
    "a word for a number": ({"num_hidden_layers": "two"}, "num_hidden_layers"),
    "no type": ({"model_type": "\x1b[2Jodd"}, "odd"),
}


@pytest.mark.parametrize(("fields", "says"), SPOILT.values(), ids=SPOILT)
@pytest.mark.parametrize("read", ["train", "explain"])
def test_a_strangers_configuration_is_rejected_before_weights_are_made(read, fields, says, folder, own_cache):
    spoil(folder, **fields)
    with pytest.raises(AtomError) as caught:
        if read == "explain":
            load_atom_model(folder)
        else:
            prepare_inputs(text_data(LINES, [0, 1, 0]), model=str(folder))
    text = str(caught.value)
    assert says in text and str(folder) in text and "\n" not in text


def test_pictures_larger_than_any_model_takes(tmp_path):
    attached("vit").save_pretrained(tmp_path)
    size = {"height": 10**6, "width": 10**6}
    ViTImageProcessorPil(size=size, image_mean=[0.5], image_std=[0.5]).save_pretrained(tmp_path)
    with pytest.raises(AtomError, match=r"--model .*, size: height is 1000000, more than the 16384 allowed"):
        load_processor(str(tmp_path), True)


@pytest.mark.parametrize("content", ["[" * 5000, "{", "\x00", "[1]"], ids=["deep", "cut", "null", "list"])
def test_a_configuration_that_is_none(content, folder, own_cache):
    (folder / "config.json").write_text(content)
    with pytest.raises(AtomError, match=r"config\.json is not a readable configuration of a model"):
        load_atom_model(folder)
    with pytest.raises(AtomError, match=r"--model .*: no such model that can be read"):
        prepare_inputs(text_data(LINES, [0, 1, 0]), model=str(folder))


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (f"num_hidden_layers={MANY}", "--config_overrides: num_hidden_layers is 100000000"),
        (f"hidden_size=16,num_labels={MANY}", "--config_overrides: num_labels is 100000000"),
        ({**TINY_BERT, "num_hidden_layers": MANY}, "--config_overrides: num_hidden_layers is 100000000"),
        (json.dumps({"num_labels": MANY}), "--config_overrides: num_labels is 100000000"),
        ({**TINY_BERT, "hidden_size": 10**6}, "and this machine has"),
        ({**TINY_BERT, "hidden_act": "wiggly"}, "wiggly"),
    ],
)
@pytest.mark.parametrize("model", [True, False], ids=["pretrained", "from scratch"])
def test_overrides_that_ask_for_too_much(model, overrides, says, folder, own_cache):
    options = {"model": str(folder)} if model else {"model": None, "model_type": "bert", "vocabulary_size": 300}
    with pytest.raises(AtomError, match=says):
        prepare_inputs(text_data(LINES, [0, 1, 0]), config_overrides=overrides, **options)
