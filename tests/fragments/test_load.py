"""Models to read channels of: their own class, their heads, and what cannot be loaded."""

import pytest
import torch
import transformers

from atom_hf.fragments.load import config_of, load_model, processor_of, run_name
from atom_hf.generation.beta_vae import BetaVAEConfig, BetaVAEModel
from atom_hf.modeling.mixin import AtomMixin
from helpers.error_messages import error_message
from helpers.models import attached, make_tokenizer, tiny


def test_each_is_loaded_in_its_own_class_with_its_heads(tmp_path):
    made = {
        "classifier": tiny("bert"),
        "atoms": attached("bert"),
        "lm": tiny("gpt2"),
        "base": transformers.BertModel(tiny("bert").config),
        "vae": BetaVAEModel(BetaVAEConfig(image_size=8, latent_size=2, hidden_sizes=[4])),
    }
    for name, model in made.items():
        model.save_pretrained(tmp_path / name)
        loaded = load_model(str(tmp_path / name))
        assert type(loaded).__name__ == type(model).__name__ and not loaded.training
        assert isinstance(loaded, AtomMixin) == (name == "atoms")
        state = loaded.state_dict()
        assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert config_of(str(tmp_path / "lm")).model_type == "gpt2"
    error_message(lambda: processor_of(str(tmp_path / "vae"), made["vae"]), "--models", "has no image processor")
    make_tokenizer().save_pretrained(tmp_path / "lm")
    assert len(processor_of(str(tmp_path / "lm"), made["lm"])) == len(make_tokenizer())


def test_built_in_models_have_names():
    model = load_model("vit-fashion-mnist")
    assert type(model).__name__ == "ViTForImageClassification"
    assert processor_of("vit-fashion-mnist", model).size["height"] == 28
    assert run_name("runs/one/") == "one" and run_name("org/name") == "name"


def test_what_cannot_be_loaded_is_rejected(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    error_message(lambda: load_model(str(tmp_path / "nowhere")), "--models", "nowhere")
    tiny("bert").save_pretrained(tmp_path / "broken")
    weights = tmp_path / "broken" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    error_message(lambda: load_model(str(tmp_path / "broken")), "--models", "broken", "cannot be loaded")


# PEFT 0.21 goes by names that Transformers 5.23 calls old.
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")
def test_an_adapter_without_heads_is_rejected(tmp_path):
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(r=2, target_modules=["query"], task_type="SEQ_CLS")
    get_peft_model(tiny("bert"), lora).save_pretrained(tmp_path / "adapter")
    error_message(lambda: load_model(str(tmp_path / "adapter")), "is an adapter: merge it into its base")


READ = """
from atom_hf.fragments import read_channels
texts = ["the sea is cold and grey", "a fire is warm and red", "they sleep by the cold sea"]
(space,) = read_channels("org/base", texts, kind="space")
(classes,) = read_channels("org/base", "org/data", kind="classes")
found = [space.points, space.run, classes.points, classes.data.shape[1]]
"""


@pytest.mark.slow
def test_a_model_and_data_of_the_hub(hub, tmp_path):
    from helpers.hub_client import client, succeeded

    answers = client(hub, tmp_path, {"read": {"python": READ}})
    assert succeeded(answers["read"])["found"] == [3, "base", 8, 2]
