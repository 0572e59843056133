"""What the output layer of a model reads, for every way of pooling, against what the model's own modules give."""

import pytest
import torch
import transformers
from torch import nn
from transformers import BertConfig, BertModel, BertPreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from atom_hf import AtomConfig, attach_atoms
from atom_hf.atoms.loss import StepAtoms
from helpers.models import TEXT, batch_for, make_tokenizer, tiny

CONFIG = {"form": "separation", "layer": -1}


class MeanPooling(BertPreTrainedModel):
    """A classifier that reads the mean of the tokens."""

    def __init__(self, config):
        super().__init__(config)
        self.bert, self.classifier = BertModel(config), nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(self, input_ids=None, attention_mask=None, labels=None, **kwargs):
        outputs = self.bert(input_ids, attention_mask=attention_mask, **kwargs)
        weights = attention_mask / attention_mask.sum(1, keepdim=True)
        logits = self.classifier((weights.unsqueeze(2) * outputs.last_hidden_state).sum(1))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits, hidden_states=outputs.hidden_states)


def bart():
    sizes = dict(vocab_size=400, d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2)
    sizes |= dict(decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=48)
    return transformers.BartForSequenceClassification(
        transformers.BartConfig(**sizes, pad_token_id=0, eos_token_id=399, dropout=0.0, num_labels=3)
    )


def mean_pooling():
    sizes = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, num_labels=3)
    return MeanPooling(BertConfig(vocab_size=len(make_tokenizer()), hidden_dropout_prob=0.0, **sizes))


def center_of(features, mask=None):
    """The centre of an atom: the mean of its tokens, each layer-normalised and divided by the square root of its width."""
    width = features.shape[-1]
    positions = nn.functional.layer_norm(features, (width,)) / width**0.5
    if mask is None:
        mask = torch.ones(features.shape[:2])
    return torch.stack([row[kept.bool()].mean(0) for row, kept in zip(positions, mask, strict=True)])


def last_token(model, batch, hidden):
    return hidden[-1][torch.arange(len(hidden[-1])), batch["attention_mask"].sum(1) - 1].unsqueeze(1)


# What each model's own output layer reads: [B, N, h] of its parts.
READ = {
    "bert": lambda model, batch, hidden: model.bert.pooler(hidden[-1]).unsqueeze(1),
    "distilbert": lambda model, batch, hidden: model.pre_classifier(hidden[-1][:, 0]).relu().unsqueeze(1),
    "roberta": lambda model, batch, hidden: model.classifier.dense(hidden[-1][:, 0]).tanh().unsqueeze(1),
    "gpt2-classifier": last_token,
    "vit": lambda model, batch, hidden: model.vit.layernorm(hidden[-1])[:, :1],
    "gpt2": lambda model, batch, hidden: hidden[-1],
}


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize("training", [True, False])
def test_what_is_read_is_what_the_models_own_modules_give(name, training):
    model = attach_atoms(tiny(name), AtomConfig(**CONFIG), make_tokenizer() if name in TEXT else None)
    model.train(training)
    batch = batch_for(name, 4)
    outputs = model(**batch, return_atoms=True, output_hidden_states=True)
    atoms = StepAtoms.unpack(outputs.atoms, model.atom_config).energy
    # A decoder's output layer reads every token: padding is none.
    mask = batch["attention_mask"] if name == "gpt2" else None
    expected = center_of(READ[name](model, batch, outputs.hidden_states), mask)
    torch.testing.assert_close(atoms.center, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(atoms.positive, torch.ones(4))
    assert torch.equal(atoms.negative, torch.zeros(4))
    assert torch.equal(atoms.radius, torch.zeros(4))


def test_dropout_in_front_of_the_output_layer_is_no_part_of_what_is_read():
    model = attach_atoms(tiny("bert", dropout=0.5), AtomConfig(**CONFIG), make_tokenizer()).eval()
    model.dropout.train()
    batch = batch_for("bert", 4)
    outputs = model(**batch, return_atoms=True, output_hidden_states=True)
    atoms = StepAtoms.unpack(outputs.atoms, model.atom_config).energy
    expected = center_of(READ["bert"](model, batch, outputs.hidden_states))
    torch.testing.assert_close(atoms.center, expected, rtol=0, atol=1e-5)
    noisy = model(**batch).logits
    assert not torch.allclose(noisy, model(**batch).logits), "the output layer reads it"


@pytest.mark.parametrize("make", [mean_pooling, bart])
def test_heads_that_pool(make):
    model = attach_atoms(make(), AtomConfig(**CONFIG), make_tokenizer()).train()
    read = []
    layer = model.classifier if make is mean_pooling else model.classification_head.out_proj
    hook = layer.register_forward_pre_hook(lambda _, given: read.append(given[0]))
    batch = batch_for("bert", 4)
    batch = {name: batch[name] for name in ("input_ids", "attention_mask")}
    if make is bart:
        batch["input_ids"][:, -1] = 399  # one end of sequence each, as BART's head wants it
        batch["attention_mask"] = torch.ones_like(batch["attention_mask"])
    outputs = model(**batch)
    hook.remove()
    atoms = StepAtoms.unpack(outputs.atoms, model.atom_config).energy
    torch.testing.assert_close(atoms.center, center_of(read[-1].unsqueeze(1)), rtol=0, atol=1e-5)


def test_a_feature_map_is_read_pooled():
    model = attach_atoms(tiny("resnet"), AtomConfig(**CONFIG)).train()
    outputs = model(**batch_for("resnet", 4))
    assert model._atom_forward_state.output_layer.name == "classifier.1"
    assert StepAtoms.unpack(outputs.atoms, model.atom_config).energy.center.shape == (4, 16)


def test_only_the_output_layer_is_watched_once_it_is_known():
    model = attach_atoms(tiny("vit"), AtomConfig(**CONFIG)).train()
    model(**batch_for("vit", 2))
    assert model._atom_forward_state.output_layer == ("classifier", None, False)
    hooks = [dict(module._forward_hooks) for module in model.modules()]
    model(**batch_for("vit", 2))
    assert [dict(module._forward_hooks) for module in model.modules()] == hooks
    assert not model.classifier._forward_hooks


def test_a_model_without_an_output_layer_is_read_at_its_last_hidden_states():
    model = BertModel(BertConfig(vocab_size=400, hidden_size=32, num_hidden_layers=2, num_attention_heads=2))
    attach_atoms(model, AtomConfig(**{**CONFIG, "layer": -2}), make_tokenizer()).train()
    batch = {name: value for name, value in batch_for("bert", 4).items() if name != "labels"}
    outputs = model(**batch, output_hidden_states=True)
    atoms = StepAtoms.unpack(outputs.atoms, model.atom_config).energy
    content = ~outputs.atom_importance.isnan()
    hidden = nn.functional.layer_norm(outputs.hidden_states[-1], (32,)) / 32**0.5
    expected = torch.stack([row[mask].mean(0) for row, mask in zip(hidden, content, strict=True)])
    torch.testing.assert_close(atoms.center, expected, rtol=0, atol=1e-5)


def test_what_the_heads_learn_passes_no_gradient_to_the_model():
    model = attach_atoms(tiny("bert"), AtomConfig(**CONFIG), make_tokenizer()).train()
    outputs = model(**batch_for("bert", 4))
    StepAtoms.unpack(outputs.atoms, model.atom_config).heads.center.sum().backward()
    moved = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert moved and all("atom_heads" in name for name in moved)


def t5():
    sizes = dict(vocab_size=400, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2, dropout_rate=0.0)
    return transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes, decoder_start_token_id=0))


@pytest.mark.parametrize("name", ["gpt2", "t5"])
def test_padding_is_not_read(name):
    """The atom of a text is the same, however many of its batch are longer."""
    torch.manual_seed(0)
    model = attach_atoms(t5() if name == "t5" else tiny(name), AtomConfig(**CONFIG), make_tokenizer()).eval()
    ids = torch.randint(5, 300, (2, 9))
    if name == "t5":
        kept = torch.tensor([[1] * 9, [1] * 9])
        written = torch.randint(5, 300, (2, 6))
        written_mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
        batch = {"input_ids": ids, "attention_mask": kept, "decoder_input_ids": written}
        batch["decoder_attention_mask"] = written_mask
        alone = {name: value[1:, :4] if "decoder" in name else value[1:] for name, value in batch.items()}
    else:
        batch = {"input_ids": ids, "attention_mask": torch.tensor([[1] * 9, [1] * 5 + [0] * 4])}
        alone = {name: value[1:, :5] for name, value in batch.items()}
    together, single = (
        StepAtoms.unpack(model(**each, return_atoms=True).atoms, model.atom_config).energy for each in (batch, alone)
    )
    torch.testing.assert_close(together.center[1:], single.center, rtol=0, atol=1e-5)


def test_an_output_layer_that_was_replaced_is_looked_for_again():
    model = attach_atoms(tiny("bert"), AtomConfig(**CONFIG), make_tokenizer()).eval()
    batch = batch_for("bert", 4)
    model(**batch, return_atoms=True)
    layer = model._atom_forward_state.output_layer
    model.classifier = nn.Sequential(nn.Identity(), model.classifier)
    read = []
    hook = model.classifier[1].register_forward_pre_hook(lambda _, given: read.append(given[0]))
    outputs = model(**batch, return_atoms=True)
    hook.remove()
    atoms = StepAtoms.unpack(outputs.atoms, model.atom_config).energy
    torch.testing.assert_close(atoms.center, center_of(read[-1].unsqueeze(1)), rtol=0, atol=1e-5)
    model.classifier, model.out = model.classifier[1], model.classifier[1]
    assert layer.is_in(model) and model(**batch).logits.shape == outputs.logits.shape
    del model.dropout
    assert not layer.is_in(model)
