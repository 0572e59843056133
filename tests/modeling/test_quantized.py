"""Quantized bases (bitsandbytes, on the CPU): heads stay float32 and whole, and train with an adapter over 4 or 8 bits."""

import pytest
import torch
from peft import PeftModel, get_peft_model, prepare_model_for_kbit_training
from transformers import BitsAndBytesConfig

from atom_hf import AtomConfig, attach_atoms, load_atom_model
from helpers.adapters import adapter, heads_of
from helpers.models import AUTO, batch_for, tiny
from helpers.training import equal, make
from helpers.trl_trainers import lora, make_trl

pytest.importorskip("bitsandbytes")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")]


def quantization(bits):
    # A classifier is trained whole, and integers have no gradient.
    kept = ["classifier", "lm_head"]
    return BitsAndBytesConfig(load_in_4bit=bits == 4, load_in_8bit=bits == 8, llm_int8_skip_modules=kept)


def quantized(name, bits, folder):
    if not (folder / "base").exists():
        # On a CPU with AVX-512 bitsandbytes packs 4 bits for inference in blocks of 64 columns, and fails on fewer.
        wide = {"n_embd": 64} if name == "gpt2" else {"hidden_size": 64, "intermediate_size": 64}
        tiny(name, **wide).save_pretrained(folder / "base")
    loaded = AUTO[name].from_pretrained(folder / "base", quantization_config=quantization(bits), device_map="cpu")
    assert loaded.is_quantized
    return loaded


@pytest.mark.parametrize("order", ["heads first", "adapter first"])
@pytest.mark.parametrize("name", ["bert", "gpt2"])
@pytest.mark.parametrize("bits", [4, 8])
def test_an_adapter_over_a_quantized_base(bits, name, order, tmp_path):
    model = quantized(name, bits, tmp_path)
    if order == "heads first":
        attach_atoms(model, AtomConfig())
    model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    model = get_peft_model(model, adapter("lora", name))
    if order == "adapter first":
        attach_atoms(model, AtomConfig())
    trainer = make(name, tmp_path / "run", model=model, atom=True)
    before = {key: value.clone() for key, value in model.state_dict().items() if torch.is_tensor(value)}
    trainer.train()
    moved = {key for key, value in before.items() if not torch.equal(value, model.state_dict()[key])}
    assert moved == {key for key, parameter in model.named_parameters() if parameter.requires_grad}
    heads = heads_of(model)
    assert len(heads) == 4 and {value.dtype for value in heads.values()} == {torch.float32}
    assert {key.rpartition("atom_heads.")[2] for key in moved if "atom_heads" in key} == set(heads)
    assert trainer._atom_model.atom_balancer.state()["atom_norm"] > 0

    trainer.save_model(tmp_path / "final")
    batch = batch_for(name)
    loaded = load_atom_model(tmp_path / "final", quantization_config=quantization(bits), device_map="cpu").eval()
    assert loaded.get_base_model().is_quantized and equal(heads_of(loaded), heads)
    plain = PeftModel.from_pretrained(quantized(name, bits, tmp_path), tmp_path / "final").eval()
    with torch.no_grad():
        found = [each(**batch).logits for each in (model.eval(), loaded, plain)]
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    assert torch.equal(loaded.atom_importance(**batch).nan_to_num(9), model.atom_importance(**batch).nan_to_num(9))


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_trl_casts_the_adapter_of_a_quantized_base_and_not_the_heads(kind, tmp_path):
    model = attach_atoms(quantized("gpt2", 4, tmp_path), AtomConfig())
    model.atom_heads.position.weight.data += 1e-4  # what bfloat16 would lose
    before = {key: value.clone() for key, value in model.atom_heads.state_dict().items()}
    trainer = make_trl(kind, tmp_path / "run", model, peft_config=lora(), atom=True)
    assert {p.dtype for key, p in trainer.model.named_parameters() if "lora" in key} == {torch.bfloat16}
    assert equal(heads_of(trainer.model), before)
    trainer.train()
    heads = heads_of(trainer.model)
    assert {value.dtype for value in heads.values()} == {torch.float32}
    assert not any(torch.equal(value, before[key]) for key, value in heads.items())


@pytest.mark.parametrize("bits", [4, 8])
def test_without_an_adapter_it_is_rejected(bits, tmp_path):
    with pytest.raises(ValueError, match=r"purely quantized models. Please attach trainable adapters"):
        make("bert", tmp_path / "run", model=quantized("bert", bits, tmp_path), atom=True)
