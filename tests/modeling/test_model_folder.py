"""A folder holds a model or an adapter: one is not saved beside the other, and of both none is loaded for the other."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification

from atom_hf import AtomConfig, attach_atoms, load_atom_model
from atom_hf.modeling.load import restore_heads
from atom_hf.modeling.model_folder import holds
from helpers.error_messages import error_message
from helpers.models import attached, batch_for, tiny
from helpers.training import make, train

# PEFT 0.21 goes by names that Transformers 5.23 calls old.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning"),
    pytest.mark.promise(
        "A folder holds a model or an adapter, never both as one.",
        "saves and loads of one beside the other, shards, checkpoints, the flag off",
    ),
]

LORA = {"r": 4, "target_modules": ["query", "value"], "task_type": "SEQ_CLS", "init_lora_weights": False}
BESIDE = "holds an adapter (adapter_config.json)"


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """A base, an adapter of it, and the two merged, each in a folder of its own."""
    folder = tmp_path_factory.mktemp("origin")
    tiny("bert").save_pretrained(folder / "base")
    model = adapted(folder)
    model.save_pretrained(folder / "adapter")
    model.merge_and_unload().save_pretrained(folder / "merged")
    return folder


@pytest.fixture
def folder(origin, tmp_path):
    return shutil.copytree(origin, tmp_path / "models")


def adapted(folder):
    torch.manual_seed(1)
    base = AutoModelForSequenceClassification.from_pretrained(folder / "base")
    return attach_atoms(get_peft_model(base, LoraConfig(**LORA)), AtomConfig())


def logits(model):
    return model.eval()(**batch_for("bert")).logits


def test_merged_a_model_is_not_saved_beside_its_adapter(folder):
    before = {file.name: file.read_bytes() for file in (folder / "adapter").iterdir()}
    model = load_atom_model(folder / "adapter").merge_and_unload()
    error_message(lambda: model.save_pretrained(folder / "adapter"), "save_directory", BESIDE, "give another folder")
    assert {file.name: file.read_bytes() for file in (folder / "adapter").iterdir()} == before
    model.save_pretrained(folder / "new")
    assert torch.equal(logits(load_atom_model(folder / "new")), logits(model))


@pytest.mark.parametrize("kind", ["peft", "added by Transformers"])
def test_an_adapter_is_not_saved_beside_another_model(kind, folder):
    model = load_atom_model(folder / "adapter")
    if kind != "peft":
        model = AutoModelForSequenceClassification.from_pretrained(folder / "base")
        model.add_adapter(LoraConfig(**LORA))
        attach_atoms(model)
    error_message(lambda: model.save_pretrained(folder / "merged"), "holds a whole model (model.safetensors)")
    error_message(
        lambda: model.save_pretrained(shutil.copytree(folder / "base", folder / "copy")), "holds a whole model"
    )
    model.save_pretrained(folder / "adapter")  # where it is


def test_an_adapter_in_the_folder_of_its_base_is_loaded_on_it(folder):
    model = adapted(folder)
    attached("bert").save_pretrained(folder / "base")
    model.save_pretrained(folder / "base")
    plain = AutoModelForSequenceClassification.from_pretrained(folder / "base")
    torch.testing.assert_close(logits(load_atom_model(folder / "base")), logits(plain))
    torch.testing.assert_close(logits(plain), logits(model))


@pytest.mark.parametrize("weights", ["one file", "shards"])
def test_a_merged_model_that_was_put_beside_its_adapter_does_not_load(weights, folder):
    """As Transformers alone, or a copy, leaves it."""
    if weights == "shards":
        load_atom_model(folder / "merged").save_pretrained(folder / "merged", max_shard_size="20KB")
        (folder / "merged" / "model.safetensors").unlink(missing_ok=True)
    shutil.copytree(folder / "adapter", folder / "merged", dirs_exist_ok=True)
    words = ("holds a whole model", "an adapter for", "remove adapter_config.json")
    error_message(lambda: load_atom_model(folder / "merged"), *words)
    error_message(lambda: restore_heads(tiny("bert"), folder / "merged"), *words)
    (folder / "merged" / "adapter_config.json").unlink()
    shutil.copy(folder / "adapter" / "atom_config.json", folder / "merged")
    model = load_atom_model(folder / "adapter")
    torch.testing.assert_close(logits(load_atom_model(folder / "merged")), logits(model))


def test_an_adapter_with_the_configuration_of_its_base_is_an_adapter(folder):
    model = load_atom_model(folder / "adapter")
    shutil.copy(folder / "base" / "config.json", folder / "adapter")
    assert holds(str(folder / "adapter")) == "adapter" and holds(str(folder / "merged")) == "model"
    assert torch.equal(logits(load_atom_model(folder / "adapter")), logits(model))


@pytest.mark.parametrize("place", ["", "checkpoint-3"])
def test_a_run_that_could_not_be_saved_does_not_begin(place, folder, started):
    out = folder / "out"
    shutil.copytree(folder / "adapter", out / place)
    error_message(make("bert", out, atom=True).train, "output_dir", BESIDE)
    shutil.rmtree(out)
    shutil.copytree(folder / "merged", out / place)
    error_message(make("bert", out, model=adapted(folder), atom=True).train, "output_dir", "holds a whole model")
    assert not started
    train("bert", out, atom=True)  # one model may follow another
    train("bert", out)
    train("bert", folder / "adapter", model=adapted(folder), atom=True)


def test_with_the_flag_off_trainer_saves_where_it_likes(folder):
    trainer = train("bert", folder / "adapter")
    trainer.save_model()
    assert {"adapter_config.json", "model.safetensors"} <= {file.name for file in (folder / "adapter").iterdir()}


def test_an_adapter_of_no_known_base_is_told_apart_too(folder):
    shutil.copytree(folder / "adapter", folder / "merged", dirs_exist_ok=True)
    file = folder / "merged" / "adapter_config.json"
    for base in (None, 3, "org/base"):
        file.write_text(json.dumps({**json.loads(file.read_text()), "base_model_name_or_path": base}))
        error_message(lambda: load_atom_model(folder / "merged"), f"an adapter for {base!r}")
    file.write_text("{")
    error_message(lambda: load_atom_model(folder / "merged"), "not a readable adapter configuration")
