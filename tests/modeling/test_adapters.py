"""Adapters (PEFT): heads that train beside them, travel in their folder, and are no part of what they adapt."""

import copy
import io
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from atom_hf import AtomConfig, AtomError, AtomMixin, attach_atoms, detach_atoms, load_atom_model
from atom_hf.training.model_setup import check_wrapped
from helpers.adapters import adapted, adapter, base, heads_of
from helpers.documents import python_with, run_python, write_table
from helpers.models import batch_for, make_tokenizer, rows_for, tiny, verse
from helpers.training import LOGGED, equal, history, make

# PEFT 0.21 goes by names that Transformers 5.23 calls old.
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")
KINDS = ["lora", "ia3", "prompt"]
ORDERS = ["heads first", "adapter first", "by the trainer"]


def train(kind, name, folder, order="adapter first", model=None, resume=None, **options):
    model = adapted(kind, name, folder, order) if model is None else model
    trainer = make(name, folder, model=model, atom=True, **options)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


# Attaching, in either order


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", [*KINDS, "all-linear"])
@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_heads_and_adapter_train_and_nothing_else(name, kind, order, tmp_path):
    model = adapted(kind, name, tmp_path, order)
    plain = base(name, tmp_path).state_dict()
    trainer = make(name, tmp_path, model=model, atom=True)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    trainer.train()
    after = model.state_dict()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    heads = [key for key in after if ".atom_heads." in key]
    assert len(heads) == 4 and {key for key in heads if after[key].dtype != torch.float32} == set()
    trained = {key for key, parameter in model.named_parameters() if parameter.requires_grad}
    assert changed == trained and set(heads) <= trained
    adapted_keys = [key for key in after if any(mark in key for mark in ("lora_", "ia3_", "prompt_"))]
    assert adapted_keys and not any(mark in key for key in heads for mark in ("lora_", "base_layer", "modules_to_save"))
    # The base is what it was, but for a classifier, which PEFT trains a copy of.
    inner = {key.replace("base_layer.", ""): value for key, value in model.get_base_model().state_dict().items()}
    for key, value in plain.items():
        assert torch.equal(inner[key if key in inner else key.replace(".", ".original_module.", 1)], value), key
    logged = [entry for entry in history(trainer) if "loss" in entry]
    assert len(logged) == 3 and all(set(entry) >= LOGGED for entry in logged)
    groups = [{id(p) for p in group["params"]} for group in trainer.optimizer.param_groups]
    of_heads = {id(p) for p in model.get_base_model().atom_heads.parameters()}
    assert sum(map(len, groups)) == len(trained) and set().union(*(g for g in groups if g & of_heads)) == of_heads


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_the_order_of_attaching_makes_no_difference(name, kind, tmp_path):
    runs = [train(kind, name, tmp_path, order) for order in ("heads first", "adapter first")]
    assert equal(*(dict(sorted(run.model.state_dict().items())) for run in runs))
    losses = [[entry.get("loss") for entry in history(run)] for run in runs]
    assert losses[0] == losses[1]


def test_frozen_heads_are_not_left_alone(tmp_path):
    model = get_peft_model(attach_atoms(base("bert", tmp_path)), adapter("lora", "bert")).train()
    batch = batch_for("bert")
    with pytest.raises(AtomError, match=r"frozen.*call attach_atoms on what it gives"):
        model(**batch)
    assert attach_atoms(model) is model and attach_atoms(model) is model
    assert model(**batch).atoms.requires_grad


def test_enrolling_again_and_taking_off(tmp_path):
    model = base("bert", tmp_path)
    model = get_peft_model(model, adapter("lora", "bert"))
    cls, before = type(model), set(model.state_dict())
    attach_atoms(model, AtomConfig(layer=1))
    assert type(model).__name__ == cls.__name__ and isinstance(model, cls)
    with pytest.raises(AtomError, match="already has atoms"):
        attach_atoms(model, AtomConfig(layer=2))
    detach_atoms(model)
    assert (
        type(model) is cls and set(model.state_dict()) == before and not isinstance(model.get_base_model(), AtomMixin)
    )


def test_copies_of_the_heads_in_the_adapter_are_rejected(tmp_path):
    config = adapter("lora", "bert")
    config.modules_to_save = ["atom_heads"]
    model = get_peft_model(attach_atoms(base("bert", tmp_path)), config)
    with pytest.raises(AtomError, match=r"modules_to_save: .*leave atom_heads out"):
        attach_atoms(model)


@pytest.mark.parametrize("plugin", ["is_fsdp_enabled", "is_deepspeed_enabled"])
def test_an_adapter_that_is_to_be_sharded_is_rejected(plugin, tmp_path, monkeypatch):
    trainer = make("bert", tmp_path, model=adapted("lora", "bert", tmp_path), max_steps=1)
    monkeypatch.setattr(trainer, plugin, True)
    with pytest.raises(AtomError, match=r"model: checkpoints of a PeftModelForSequenceClassification.*use DDP"):
        check_wrapped(trainer)


# Saving and loading


@pytest.mark.promise(
    "What is saved is the plain base model and its heads: it loads without this package, and with it as it was."
)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_the_adapter_loads_on_a_plain_base_and_with_its_heads(name, kind, tmp_path, recwarn, library_log):
    trainer = train(kind, name, tmp_path)
    trainer.save_model(tmp_path / "final")
    model, batch = trainer.model.eval(), batch_for(name)
    assert not [key for key in load_file(tmp_path / "final" / "adapter_model.safetensors") if "atom" in key]
    assert "atom" not in (tmp_path / "final" / "adapter_config.json").read_text()

    recwarn.clear(), library_log.clear()
    plain = PeftModel.from_pretrained(base(name, tmp_path), tmp_path / "final")
    assert not [warning for warning in recwarn.list if "gradient_checkpointing" not in str(warning.message)]
    assert not library_log
    assert not isinstance(plain.get_base_model(), AtomMixin)
    assert torch.equal(plain.eval()(**batch).logits, model(**batch).logits)

    loaded = load_atom_model(tmp_path / "final")
    assert type(loaded.get_base_model()).__name__ == type(plain.get_base_model()).__name__
    assert torch.equal(loaded.eval()(**batch).logits, model(**batch).logits)
    assert equal(heads_of(loaded), heads_of(model))
    importance = loaded.atom_importance(**batch)
    assert torch.equal(importance.nan_to_num(9), model.atom_importance(**batch).nan_to_num(9))
    assert importance.shape == batch["input_ids"].shape


@pytest.mark.promise("A model whose files are damaged, incomplete or of another version is rejected in one line.")
def test_an_adapter_without_heads_or_base_is_rejected(tmp_path):
    model = get_peft_model(base("bert", tmp_path), adapter("lora", "bert"))
    model.save_pretrained(tmp_path / "plain")
    with pytest.raises(AtomError, match=r"has no atom_config\.json: no heads beside this adapter"):
        load_atom_model(tmp_path / "plain")
    attach_atoms(model)
    model.save_pretrained(tmp_path / "lost")
    file = tmp_path / "lost" / "adapter_config.json"
    file.write_text(file.read_text().replace(str(tmp_path / "base"), str(tmp_path / "gone")))
    with pytest.raises(AtomError, match=r"gone'?, the base of the adapter"):
        load_atom_model(tmp_path / "lost")


def test_all_biases_are_those_of_the_base(tmp_path):
    config = adapter("lora", "bert")
    config.bias = "all"
    model = attach_atoms(get_peft_model(base("bert", tmp_path), config))
    model.save_pretrained(tmp_path / "out")
    saved = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert any(key.endswith("bias") for key in saved) and not any("atom" in key for key in saved)


def test_merged_it_is_an_ordinary_atom_model(tmp_path):
    model = train("lora", "bert", tmp_path).model.eval()
    batch = batch_for("bert")
    logits, importance, heads = model(**batch).logits, model.atom_importance(**batch), heads_of(model)
    merged = model.merge_and_unload()
    assert isinstance(merged, AtomMixin) and not any("lora" in key for key in merged.state_dict())
    assert equal(heads, merged.atom_heads.state_dict())
    torch.testing.assert_close(merged(**batch).logits, logits)
    torch.testing.assert_close(merged.atom_importance(**batch), importance, equal_nan=True, atol=1e-4, rtol=1e-4)
    merged.save_pretrained(tmp_path / "merged")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(plain.eval()(**batch).logits, logits)
    assert equal(load_atom_model(tmp_path / "merged").atom_heads.state_dict(), heads)


def test_two_adapters_share_the_heads(tmp_path):
    model = train("lora", "bert", tmp_path).model
    heads = heads_of(model)
    model.add_adapter("second", adapter("lora", "bert"))
    model.set_adapter("second")
    trainer = train("lora", "bert", tmp_path, model=model)
    assert not equal(heads, heads_of(model))
    trainer.save_model(tmp_path / "final")
    loaded = load_atom_model(tmp_path / "final")
    loaded.load_adapter(tmp_path / "final" / "second", "second")
    loaded.set_adapter("second")
    batch = batch_for("bert")
    assert torch.equal(loaded.eval()(**batch).logits, model.eval()(**batch).logits)
    assert equal(heads_of(loaded), heads_of(model))


def test_copies(tmp_path):
    model = adapted("lora", "bert", tmp_path)
    stored = io.BytesIO()
    torch.save(model, stored)
    stored.seek(0)
    for twin in (copy.deepcopy(model), torch.load(stored, weights_only=False)):
        assert equal(twin.state_dict(), model.state_dict()) and type(twin) is type(model)
        batch = batch_for("bert")
        assert torch.equal(twin.eval()(**batch).logits, model.eval()(**batch).logits)
        assert torch.equal(twin.atom_importance(**batch).nan_to_num(9), model.atom_importance(**batch).nan_to_num(9))


@pytest.mark.parametrize("order", ["heads first", "adapter first"])
def test_an_adapter_that_transformers_adds_itself(order, tmp_path):
    model = base("bert", tmp_path)
    if order == "heads first":
        attach_atoms(model)
    model.add_adapter(LoraConfig(r=4, target_modules="all-linear"))
    trainer = make("bert", tmp_path, model=model, atom=True, save_strategy="steps", save_steps=3)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    trainer.train()
    moved = {key for key, value in before.items() if not torch.equal(value, model.state_dict()[key])}
    assert sum(key.startswith("atom_heads.") for key in moved) == 4
    assert all("lora_" in key or key.startswith("atom_heads.") for key in moved)
    trainer.save_model(tmp_path / "final")
    for folder in ("final", "checkpoint-3"):
        loaded, batch = load_atom_model(tmp_path / folder), batch_for("bert")
        assert equal(heads_of(loaded), model.atom_heads.state_dict())
        assert torch.equal(loaded.eval()(**batch).logits, model.eval()(**batch).logits)


# Resuming


RUN = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4, "atom_weight": 0.5}


@pytest.mark.promise("A killed run resumes as if it had not been interrupted.")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_a_checkpoint_goes_on_as_if_left_alone(name, kind, tmp_path):
    alone = train(kind, name, tmp_path, **RUN)
    assert (tmp_path / "checkpoint-2" / "atom_heads.safetensors").is_file()
    other = adapted(kind, name, tmp_path, seed=9)
    again = train(kind, name, tmp_path / "again", model=other, resume=str(tmp_path / "checkpoint-2"), **RUN)
    assert equal(alone.model.state_dict(), again.model.state_dict())
    assert alone.model.atom_balancer.state() == again.model.atom_balancer.state()
    assert alone.model.atom_balancer.state()["steps"] == 4
    assert equal(heads_of(load_atom_model(tmp_path / "checkpoint-4")), heads_of(alone.model))


def test_the_best_adapter_comes_back_with_its_heads(tmp_path):
    scores = iter([0.1, 0.9, 0.2, 0.3])
    pieces = {"eval_dataset": rows_for("bert")[:4], "compute_metrics": lambda found: {"score": next(scores)}}
    best = {"load_best_model_at_end": True, "metric_for_best_model": "score", "eval_strategy": "steps", "eval_steps": 1}
    trainer = train("lora", "bert", tmp_path, pieces=pieces, **{**RUN, "save_steps": 1}, **best)
    second, last = (load_atom_model(tmp_path / f"checkpoint-{step}") for step in (2, 4))
    assert not equal(heads_of(second), heads_of(last))
    assert equal(trainer.model.state_dict(), second.state_dict())


# Virtual tokens


@pytest.mark.parametrize("tokens", ["content", "all"])
@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_a_prompt_is_no_part_of_an_atom(name, tokens, tmp_path):
    model = adapted("prompt", name, tmp_path, tokens=tokens, special_token_ids=[2, 3]).train()
    batch = batch_for(name)
    inner = model.get_base_model()
    found = model(**batch)
    # By hand: the prompt in front of the words' embeddings, the mask over both.
    prompt = model.get_prompt(batch_size=4)
    embeddings = torch.cat([prompt, inner.get_input_embeddings()(batch["input_ids"])], 1)
    attention = torch.cat([torch.ones(4, 3), batch["attention_mask"]], 1)
    hidden = inner(inputs_embeds=embeddings, attention_mask=attention, output_hidden_states=True, return_atoms=False)
    importance, _ = inner.atom_heads(hidden.hidden_states[inner.atom_config.layer])
    mask = batch["attention_mask"].bool()
    if tokens == "content":
        mask &= ~torch.isin(batch["input_ids"], torch.tensor([2, 3]))
    assert found.atom_importance[:, :3].isnan().all()
    assert torch.equal(found.atom_importance[:, 3:].isnan(), ~mask)
    torch.testing.assert_close(found.atom_importance[:, 3:][mask], importance[:, 3:][mask].detach())
    assert inner._atom_forward_state.text is None

    without = {key: value for key, value in batch.items() if key != "attention_mask"}
    assert model(**without).atom_importance[:, :3].isnan().all()


def test_an_adapter_carries_a_card_without_the_folder_of_its_base(tmp_path):
    tiny("bert").save_pretrained(tmp_path / "alice" / "base")
    base = AutoModelForSequenceClassification.from_pretrained(tmp_path / "alice" / "base")
    model = attach_atoms(get_peft_model(base, LoraConfig(target_modules=["query"], task_type="SEQ_CLS")))
    model.save_pretrained(tmp_path / "adapter")
    card = (tmp_path / "adapter" / "README.md").read_text()
    assert "An adapter of `base` (a local checkpoint)" in card and "library_name: peft" in card and "alice" not in card
    trainer = make("bert", tmp_path / "run", model=model, atom=True)
    trainer.train()
    trainer.save_model()
    card = (tmp_path / "run" / "README.md").read_text()
    assert "| steps | 3 |" in card and "library_name: peft" in card and "alice" not in card


@pytest.mark.filterwarnings("ignore:.*pin_memory")
@pytest.mark.usefixtures("own_folder")
def test_the_example_runs(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    tiny("bert", num_labels=2).save_pretrained("bert-base-uncased")
    make_tokenizer().save_pretrained("bert-base-uncased")
    rows = [(row["text"], row["label"]) for row in verse(60)[:16]]
    write_table(Path("cornell-movie-review-data/rotten_tomatoes/train.csv"), ("text", "label"), rows)
    names = run_python(python_with("docs/trainers.md", "LoraConfig"))
    trained, loaded = names["trainer"].model, names["model"]
    assert isinstance(loaded, PeftModel)
    saved = heads_of(loaded)
    assert saved and all(torch.equal(value, saved[name]) for name, value in heads_of(trained).items())
