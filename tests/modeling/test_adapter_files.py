"""Adapters of strangers and of folders: what does not fit, and what is pushed nowhere."""

import json
import shutil

import pytest
import torch
from peft import AutoPeftModelForSequenceClassification, LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from atom_hf import AtomError, attach_atoms, load_atom_model
from helpers.error_messages import error_message
from helpers.models import batch_for, tiny
from helpers.training import make, train

# PEFT 0.21 goes by names that Transformers 5.23 calls old.
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")


@pytest.fixture(scope="module")
def saved_adapter(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter")
    tiny("bert").save_pretrained(folder / "base")
    base = AutoModelForSequenceClassification.from_pretrained(folder / "base")
    model = attach_atoms(get_peft_model(base, LoraConfig(r=4, target_modules=["query"], task_type="SEQ_CLS")))
    model.save_pretrained(folder / "adapter")
    return folder / "adapter"


def cut(folder):
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-9])


def drop(folder):
    state = load_file(folder / "adapter_model.safetensors")
    save_file(dict(list(state.items())[1:]), folder / "adapter_model.safetensors")


def setting(**changes):
    def change(folder):
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps({**config, **changes}))

    return change


@pytest.mark.promise(
    "An untrusted model runs no code and unpickles nothing, and is rejected in one line before it fills the memory."
)
@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (cut, "cannot be loaded on"),
        (drop, "Found missing adapter keys"),
        (setting(r=5), "cannot be loaded on"),
        (setting(r=10**12), "cannot be loaded on"),
        (setting(target_modules=["nothing"]), "cannot be loaded on"),
        (setting(peft_type="NOTHING"), "cannot be loaded"),
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), "has no adapter_model.safetensors"),
    ],
)
def test_an_adapter_of_a_stranger_that_does_not_fit(saved_adapter, tmp_path, spoil, says):
    folder = shutil.copytree(saved_adapter, tmp_path / "adapter")
    spoil(folder)
    with pytest.raises(AtomError, match=says) as caught:
        load_atom_model(folder)
    assert "\n" not in str(caught.value)


# Initializations that leave the base with a residual, and some that do not.
MADE = {
    "pissa": {"init_lora_weights": "pissa"},
    "pissa, rank-stabilized": {"init_lora_weights": "pissa", "use_rslora": True},
    "pissa, ranks": {"init_lora_weights": "pissa", "rank_pattern": {"value": 2}},
    "olora": {"init_lora_weights": "olora"},
    "olora, weight-decomposed": {"init_lora_weights": "olora", "use_dora": True},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "gaussian": {"init_lora_weights": "gaussian"},
}


def made(folder, target=("query", "value"), **options):
    if not (folder / "base").exists():
        tiny("bert").save_pretrained(folder / "base")
    base = AutoModelForSequenceClassification.from_pretrained(folder / "base")
    return get_peft_model(base, LoraConfig(r=4, target_modules=list(target), task_type="SEQ_CLS", **options))


@pytest.mark.parametrize("how", MADE)
def test_an_adapter_loads_however_it_was_made(how, tmp_path):
    model = train(
        "bert", tmp_path / "run", model=made(tmp_path, **MADE[how]), atom=True, learning_rate=0.01
    ).model.eval()
    model.save_pretrained(tmp_path / "adapter")
    batch = batch_for("bert")
    plain = AutoPeftModelForSequenceClassification.from_pretrained(tmp_path / "adapter").eval()(**batch).logits
    torch.testing.assert_close(plain, model(**batch).logits)
    for trainable in (False, True):
        loaded = load_atom_model(tmp_path / "adapter", is_trainable=trainable)
        assert any(p.requires_grad for name, p in loaded.named_parameters() if "lora_A" in name) == trainable
        torch.testing.assert_close(loaded.eval()(**batch).logits, plain)
        torch.testing.assert_close(loaded.atom_importance(**batch), model.atom_importance(**batch), equal_nan=True)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (cut, "cannot be loaded on"),
        (drop, "Found missing adapter keys"),
        (setting(r=10**12), "cannot be loaded on"),
        (setting(init_lora_weights="loftq"), "cannot be loaded"),
        (setting(init_lora_weights="corda"), "cannot be loaded"),
    ],
)
def test_one_that_is_made_from_its_base_has_to_fit_too(spoil, says, tmp_path):
    attach_atoms(made(tmp_path, init_lora_weights="pissa")).save_pretrained(tmp_path / "adapter")
    spoil(tmp_path / "adapter")
    error_message(lambda: load_atom_model(tmp_path / "adapter"), says)


@pytest.mark.promise("A push contains the model and its card, and nothing about this machine.")
def test_an_adapter_of_a_folder_is_not_pushed_anywhere(saved_adapter):
    model = load_atom_model(saved_adapter)
    with pytest.raises(AtomError, match=r"is for a base in the folder .*, which nobody else has"):
        model.push_to_hub("org/none")


@pytest.mark.promise("A push contains the model and its card, and nothing about this machine.")
def test_a_run_that_is_to_push_an_adapter_of_a_folder_does_not_begin(saved_adapter, tmp_path):
    model = load_atom_model(saved_adapter, is_trainable=True)
    with pytest.raises(AtomError, match=r"is for a base in the folder .*, which nobody else has"):
        make("bert", tmp_path, model=model, atom=True, push_to_hub=True, hub_model_id="org/none")


@pytest.mark.parametrize("writer", ["peft.peft_model.safe_save_file", "atom_hf.modeling.adapters.write_heads"])
def test_a_save_that_fails_leaves_the_adapter_that_was_there(saved_adapter, tmp_path, monkeypatch, writer):
    folder = shutil.copytree(saved_adapter, tmp_path / "adapter")
    (folder / "README.md").write_text("# Mine\n")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    model = load_atom_model(saved_adapter)
    model.get_base_model().atom_heads.importance.weight.data.add_(1)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(AtomError, match="No space left on device; what was there is"):
        patch.setattr(writer, full)
        model.save_pretrained(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    model.save_pretrained(folder)
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    changed = {name for name in after if before[name] != after[name]}
    assert changed >= {"atom_heads.safetensors", "atom_config.json"} and after.keys() == before.keys()
    assert (
        after["README.md"] == b"# Mine\n" and after["adapter_model.safetensors"] == before["adapter_model.safetensors"]
    )
