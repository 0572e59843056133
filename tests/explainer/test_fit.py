"""The fit of importance to the prediction: against a model whose truth is known, saved, and rejected."""

import itertools
import json
import math
import random

import numpy as np
import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from scipy.stats import spearmanr
from torch import nn
from transformers import AutoModelForSequenceClassification
from transformers.modeling_outputs import SequenceClassifierOutput

from atom_hf import AtomConfig, AtomError, attach_atoms, load_atom_model
from atom_hf.explainer import descent
from atom_hf.explainer.fit import fit_explainer
from atom_hf.modeling.explaining import explaining
from atom_hf.training.custom_loop import start_step
from helpers.explained import batches_of, fitted, with_heads
from helpers.linear_words import WordsForSequenceClassification, linear_words
from helpers.models import batch_for, make_tokenizer, tiny

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")


class WideWordsForSequenceClassification(WordsForSequenceClassification):
    """Words of 16 numbers each, whose sum over a fixed direction is the logit."""

    def __init__(self, config):
        super().__init__(config)
        self.words = nn.Embedding(config.vocab_size, 16)
        self.direction = nn.Linear(16, 1, bias=False)

    def forward(self, input_ids=None, attention_mask=None, output_hidden_states=None, **options):
        hidden = self.words(input_ids)
        total = (self.direction(hidden)[..., 0] * attention_mask).sum(1)
        states = (hidden,) if output_hidden_states else None
        return SequenceClassifierOutput(logits=torch.stack([total, -total], 1), hidden_states=states)


def exact_shapley(values, target):
    """Shapley values of the probability of a class, by all sets of words: numbers -> numbers."""
    n = len(values)

    def probability(chosen):
        total = sum(values[i] for i in chosen)
        return 1 / (1 + math.exp(-2 * (total if target == 0 else -total)))

    found = []
    for i in range(n):
        rest = [j for j in range(n) if j != i]
        found.append(
            sum(
                (probability((*chosen, i)) - probability(chosen)) / (n * math.comb(n - 1, size))
                for size in range(n)
                for chosen in itertools.combinations(rest, size)
            )
        )
    return found


def test_it_ranks_as_the_exact_shapley_values_do(monkeypatch):
    monkeypatch.setattr(descent, "STEPS", 300)
    tokenizer = make_tokenizer()
    model = WideWordsForSequenceClassification(linear_words(tokenizer).config).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        model.words.weight.copy_(torch.randn(len(tokenizer), 16, generator=generator))
        model.words.weight[tokenizer.all_special_ids] = 0
        model.direction.weight.copy_(torch.randn(1, 16, generator=generator) * 0.1)
    attach_atoms(model, AtomConfig(layer=0, hidden_size=16), tokenizer)
    words = torch.randint(70, len(tokenizer), (76, 6), generator=generator)
    batches = [{"input_ids": part, "attention_mask": torch.ones_like(part)} for part in words[:64].split(16)]
    unseen = {"input_ids": words[64:], "attention_mask": torch.ones_like(words[64:])}
    charges = model.atom_importance(**unseen)
    found = fit_explainer(model, tokenizer, batches, copies=3, sets=8)
    assert found.samples == 64 and 0.5 < found.explained <= 1
    importance = model.atom_importance(**unseen)
    classes = model(**unseen).logits.argmax(-1)
    numbers = model.direction(model.words(unseen["input_ids"]))[..., 0].tolist()
    truth = [exact_shapley(row, int(c)) for row, c in zip(numbers, classes, strict=True)]
    agreement, before = (
        np.mean([spearmanr(row, true).statistic for row, true in zip(rows.tolist(), truth, strict=True)])
        for rows in (importance, charges)
    )
    assert agreement > 0.8 and agreement > before + 0.5
    signs = np.sign(importance.numpy()) == np.sign(truth)
    assert signs[np.abs(truth) > 0.05].mean() > 0.9


def state_of(model):
    return {key: value.clone() for key, value in model.state_dict().items() if ".explainer." not in key}


def test_the_model_its_charges_and_every_generator_stay(few_steps):
    model, inputs = with_heads("bert", dropout=0.1), batch_for("bert", 4)
    weights, modes = state_of(model), [module.training for module in model.modules()]
    model.eval()
    before = model(**inputs, return_atoms=True)
    model.train()
    generators = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state(), torch.get_num_threads()
    found = fitted(model)
    assert found.samples == 16 and found.explained <= 1
    assert random.getstate() == generators[0] and (np.random.get_state()[1] == generators[1]).all()
    assert torch.equal(torch.get_rng_state(), generators[2]) and torch.get_num_threads() == generators[3]
    assert all(torch.equal(value, state_of(model)[key]) for key, value in weights.items())
    assert [
        module.training for module in model.modules() if module not in [*model.atom_heads.explainer.modules()]
    ] == modes
    assert not any(parameter.requires_grad for parameter in model.atom_heads.explainer.parameters())
    assert all(
        parameter.requires_grad and parameter.grad is None for parameter in model.atom_heads.trained_parameters()
    )
    model.eval()
    after = model(**inputs, return_atoms=True)
    assert torch.equal(before.logits, after.logits) and torch.equal(before.atoms, after.atoms)
    assert not torch.equal(before.atom_importance.nan_to_num(), after.atom_importance.nan_to_num())
    assert torch.equal(before.atom_importance.isnan(), after.atom_importance.isnan())
    assert after.atom_importance.nan_to_num().abs().max() <= 1


def test_the_same_seed_gives_the_same_importance_also_with_gradients_off(few_steps):
    models = [with_heads(), with_heads()]
    fitted(models[0])
    with torch.no_grad():
        fitted(models[1])
    found = [model.atom_importance(**batch_for("bert", 4)) for model in models]
    assert torch.equal(found[0].nan_to_num(), found[1].nan_to_num())


def test_it_is_read_for_the_predicted_class_and_charges_in_training(few_steps):
    model, inputs = with_heads("vit"), batch_for("vit", 6)
    charges = model(**inputs).atom_importance
    fitted(model, "vit")
    assert torch.equal(model(**inputs).atom_importance.nan_to_num(), charges.nan_to_num())
    model.eval()
    with torch.no_grad():
        outputs = model(**inputs, return_atoms=True, output_hidden_states=True)
    head = model.atom_heads.explainer
    assert model.atom_config.explainer_strategies == ["mean", "blur"]
    layers = [outputs.hidden_states[layer] for layer in model.atom_config.explainer_layers]
    for row in range(6):
        tokens = torch.cat([torch.nn.functional.layer_norm(layer[row], (32,)) for layer in layers], -1)
        around = tokens.mean(0) @ head.around.weight.T + head.around.bias
        inner = torch.nn.functional.gelu(tokens @ head.inner.weight.T + head.inner.bias + around)
        for number, strategy in enumerate(["mean", "blur"]):
            place = number * 10 + int(outputs.logits[row].argmax())
            expected = 2 * torch.sigmoid(inner @ head.outer.weight[place] + head.outer.bias[place]) - 1
            with torch.no_grad(), explaining(model, strategy=strategy) as found:
                model(**inputs, return_atoms=True)
            torch.testing.assert_close(found[0].importance[row, 1:], expected[1:], atol=1e-6, rtol=0)
            if number == 0:
                torch.testing.assert_close(outputs.atom_importance[row, 1:], expected[1:], atol=1e-6, rtol=0)
    assert outputs.atom_importance[:, 0].isnan().all()


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("distilbert", torch.float32),
        ("roberta", torch.bfloat16),
        ("gpt2-classifier", torch.float16),
        ("dinov2-registers", torch.bfloat16),
    ],
)
def test_other_models_and_precisions(name, dtype, few_steps):
    model = with_heads(name, dropout=0.1).to(dtype)
    assert fitted(model, name).samples == 16
    importance = model.atom_importance(**batch_for(name, 3))
    assert importance.dtype == torch.float32 and importance.nan_to_num().abs().max() > 0
    assert model.atom_heads.explainer.inner.weight.dtype == torch.float32


@pytest.mark.promise(
    "What is saved is the plain base model and its heads: it loads without this package, and with it as it was."
)
def test_saved_it_loads_with_the_heads_and_plainly_without(tmp_path, few_steps, library_log):
    model = with_heads()
    fitted(model)
    model.save_pretrained(tmp_path)
    expected = model.atom_importance(**batch_for("bert", 4))
    loaded = load_atom_model(tmp_path)
    assert torch.equal(loaded.atom_importance(**batch_for("bert", 4)).nan_to_num(), expected.nan_to_num())
    assert not any(p.requires_grad for p in loaded.atom_heads.explainer.parameters())
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert not library_log and not any("explainer" in key for key in plain.state_dict())
    heads = load_file(tmp_path / "atom_heads.safetensors")
    assert {key for key in heads if key.startswith("explainer.")} == {
        f"explainer.{name}" for name in model.atom_heads.explainer.state_dict()
    }
    start_step(loaded, 0.0)
    assert loaded.atom_heads.explainer is None and not loaded.atom_config.has_explainer
    loaded.save_pretrained(tmp_path / "trained")
    config = json.loads((tmp_path / "trained" / "atom_config.json").read_text())
    assert config["explainer_classes"] is None and load_atom_model(tmp_path / "trained").atom_heads.explainer is None


@pytest.mark.promise("A model whose files are damaged, incomplete or of another version is rejected in one line.")
def test_files_that_do_not_fit_are_rejected_and_of_another_class_it_is_the_charge(tmp_path, few_steps, caplog):
    model = with_heads()
    fitted(model)
    model.save_pretrained(tmp_path)
    charges = model.train()(**batch_for("bert", 4)).atom_importance
    for name in ("AutoModel", "AutoModelForTokenClassification"):
        caplog.clear()
        other = load_atom_model(tmp_path, getattr(transformers, name))
        assert torch.equal(other.atom_importance(**batch_for("bert", 4)).nan_to_num(), charges.nan_to_num())
        assert "was fitted to the prediction of a BertForSequenceClassification" in caplog.text
        assert not other.atom_config.has_explainer
    with pytest.raises(AtomError, match="are for 2 classes, and this BertForSequenceClassification has 5"):
        load_atom_model(tmp_path, AutoModelForSequenceClassification, num_labels=5, ignore_mismatched_sizes=True)
    file, config = tmp_path / "atom_heads.safetensors", tmp_path / "atom_config.json"
    heads, told = load_file(file), config.read_text()
    config.write_text(json.dumps({**json.loads(told), "explainer_classes": 3}))
    with pytest.raises(AtomError, match="are for 3 classes"):
        load_atom_model(tmp_path)
    config.write_text(told)
    save_file({**heads, "explainer.inner.weight": torch.zeros(64, 31)}, file)
    with pytest.raises(AtomError, match="do not fit BertForSequenceClassification"):
        load_atom_model(tmp_path)


def test_an_adapter_is_fitted_saved_and_loaded(tmp_path, few_steps):
    tiny("bert").save_pretrained(tmp_path / "base")
    base = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base")
    model = get_peft_model(base, LoraConfig(target_modules="all-linear", task_type="SEQ_CLS", init_lora_weights=False))
    attach_atoms(model, AtomConfig(), make_tokenizer())
    assert fitted(model).samples == 16
    model.save_pretrained(tmp_path / "adapter")
    loaded = load_atom_model(tmp_path / "adapter", is_trainable=True)
    found = [each.eval().atom_importance(**batch_for("bert", 4)) for each in (model, loaded)]
    assert torch.equal(found[0].nan_to_num(), found[1].nan_to_num())
    assert not any(p.requires_grad for p in loaded.get_base_model().atom_heads.explainer.parameters())


@pytest.mark.promise("A fit of importance that fails leaves the model and an earlier explainer as they were.")
@pytest.mark.parametrize(
    ("make", "options", "words"),
    [
        (lambda: tiny("bert"), {}, "model has no atoms"),
        (lambda: with_heads("gpt2"), {}, "GPT2LMHeadModel predicts no class"),
        (lambda: with_heads(num_labels=2, problem_type="regression"), {}, "predicts several numbers at once"),
        (with_heads, {"sets": 6}, "sets a multiple of 4"),
        (with_heads, {"samples": 15}, "samples must be at least 16"),
        (with_heads, {"copies": 0}, "copies at least 1"),
        (with_heads, {"seconds": 0}, "seconds must be above 0"),
        (with_heads, {"strategy": "blur"}, "strategy must be mask or drop for this BertForSequenceClassification"),
        (with_heads, {"blocks": 9}, "blocks must be from 0 to 4, got 9"),
        (with_heads, {"processing_class": None}, "processing_class: give the tokenizer"),
        (with_heads, {"batches": []}, "batches: 0 samples"),
        (with_heads, {"batches": batches_of(count=15)}, "batches: 15 samples"),
    ],
)
def test_errors_leave_the_model_unchanged(make, options, words):
    model = make()
    given = {"processing_class": make_tokenizer(), "batches": batches_of(), "copies": 1, "sets": 4, **options}
    with pytest.raises(AtomError, match=words) as error:
        fit_explainer(model, given.pop("processing_class"), given.pop("batches"), **given)
    assert "\n" not in str(error.value) and model.training


@pytest.mark.parametrize("name", ["swin", "resnet"])
def test_a_model_without_a_token_for_each_patch_is_rejected(name):
    with pytest.raises(AtomError, match="no token for each patch"):
        fitted(with_heads(name), name)


@pytest.mark.promise("A fit of importance that fails leaves the model and an earlier explainer as they were.")
def test_an_explainer_stays_if_none_can_be_fitted_again(few_steps, monkeypatch):
    model = with_heads()
    fitted(model)
    before = model.atom_importance(**batch_for("bert", 4)).nan_to_num()
    with pytest.raises(AtomError, match="batches: 8 samples"):
        fit_explainer(model, make_tokenizer(), batches_of(count=8), copies=1, sets=4)
    monkeypatch.setattr(descent.torch.optim, "AdamW", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fitted(model, seed=5)
    assert torch.equal(model.atom_importance(**batch_for("bert", 4)).nan_to_num(), before)
    with torch.no_grad():
        model.classifier.bias[0] = math.nan
    with pytest.raises(AtomError, match="not finite"):
        fitted(model)
    assert model.atom_config.has_explainer


def interrupted(*args, **options):
    raise KeyboardInterrupt
