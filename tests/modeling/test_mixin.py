"""Atoms on real models: what attaching leaves alone, what is read, and what is rejected."""

import copy
import inspect

import pytest
import torch
import transformers
from PIL import Image
from transformers import PreTrainedConfig, PreTrainedModel, pipeline
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from atom_hf import AtomConfig, AtomMixin, AtomTrainer, attach_atoms
from atom_hf.finetune.pretrained import find_model
from atom_hf.modeling.layers import pick_layer
from helpers.error_messages import error_message
from helpers.models import TEXT, TINY, attached, batch_for, make_tokenizer, same_outputs, tiny
from helpers.training import arguments


@torch.no_grad()
def naive_importance(model, batch, layer):
    """Eq. 6 in float64, from the hidden states that the model shows and the weights of its head."""
    states = model.eval()(**batch, output_hidden_states=True).hidden_states[layer].double()
    if states.dim() == 4:
        states = torch.stack([states[:, :, i, j] for i in range(states.shape[2]) for j in range(states.shape[3])], 1)
    centered = states - states.mean(-1, keepdim=True)
    normal = centered / (centered.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    head = model.atom_heads.importance
    return 2 * torch.sigmoid((normal * head.weight.double()).sum(-1) + head.bias.double()) - 1


# What attaching leaves alone


@pytest.mark.parametrize("name", TINY)
def test_the_class_keeps_its_face(name):
    model = tiny(name)
    before = type(model)
    assert attach_atoms(model) is model
    after = type(model)
    assert isinstance(model, before) and isinstance(model, AtomMixin) and not issubclass(before, AtomMixin)
    for attribute in ("__name__", "__qualname__", "__module__", "__doc__"):
        assert getattr(after, attribute) == getattr(before, attribute)
    assert inspect.signature(after.forward) == inspect.signature(before.forward)
    assert type(attach_atoms(tiny(name))) is after


@pytest.mark.parametrize("name", TINY)
def test_evaluation_is_as_before(name):
    plain, model = tiny(name).eval(), attached(name).eval()
    batch = batch_for(name, labels=True)
    for asked in ({}, {"output_hidden_states": True}, {"return_dict": False}):
        assert same_outputs(plain(**batch, **asked), model(**batch, **asked))
    model.train()
    with torch.no_grad():  # some evaluate so; atoms are for a loss
        assert "atoms" not in model(**batch)


@pytest.mark.parametrize("name", TINY)
def test_training_outputs_hold_atoms_beside_the_rest(name):
    plain, model = tiny(name), attached(name)
    batch = batch_for(name, labels=True)
    before, after = plain(**batch), model(**batch)
    extra = ["atoms", "atom_importance"]
    assert isinstance(after, type(before)) and "hidden_states" not in after
    # Swin also has its hidden states in the shape of the image, as an output of its own.
    assert [key for key in after if key != "reshaped_hidden_states"] == [*before, *extra]
    assert same_outputs(before["loss"], after["loss"]) and same_outputs(before["logits"], after["logits"])
    assert after["atoms"].shape == (4, model.atom_config.hidden_size + 3) and after["atoms"].requires_grad
    assert after["atom_importance"].shape[0] == 4 and not after["atom_importance"].requires_grad

    assert list(model(**batch, output_hidden_states=True)) == [*plain(**batch, output_hidden_states=True), *extra]
    model.config.output_hidden_states = True
    assert "hidden_states" in model(**batch)
    model.config.output_hidden_states = False
    row = model(**batch, return_dict=False)
    assert isinstance(row, tuple) and same_outputs(row, after.to_tuple())


@pytest.mark.parametrize("name", [*TEXT, "vit", "dinov2-registers"])
@pytest.mark.parametrize("layer", [-2, -1, 0])
def test_of_all_hidden_states_only_one_is_kept(name, layer, monkeypatch):
    kept = []

    def counting(outputs, layer, model):
        kept.append(sum(state is not None for state in outputs.hidden_states))
        return pick_layer(outputs, layer, model)

    monkeypatch.setattr("atom_hf.modeling.forward.pick_layer", counting)
    model = attached(name, AtomConfig(form="paper", layer=layer))
    outputs = model(**batch_for(name))
    assert kept == [1] and "hidden_states" not in outputs
    # Whoever asks for them gets all.
    states = model(**batch_for(name), output_hidden_states=True).hidden_states
    assert len(states) == 3 and all(state is not None for state in states)


def test_random_numbers_go_on_as_if_nothing_were_attached():
    model = tiny("bert")
    torch.manual_seed(7)
    expected = torch.rand(5)
    torch.manual_seed(7)
    attach_atoms(model)
    assert torch.equal(torch.rand(5), expected)


def test_heads_follow_the_seed():
    def heads(seed):
        torch.manual_seed(seed)
        return attached("bert").atom_heads.state_dict()

    first, again, other = heads(1), heads(1), heads(2)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["position.weight"], other["position.weight"])
    assert not torch.equal(first["importance.weight"], other["importance.weight"])


@pytest.mark.parametrize("training", [False, True])
def test_generate_writes_the_same_tokens(training):
    plain, model = tiny("gpt2").train(training), attached("gpt2").train(training)
    prompt = {"input_ids": torch.tensor([[2, 40, 41]]), "attention_mask": torch.ones(1, 3, dtype=torch.long)}
    for how in ({"do_sample": False}, {"do_sample": False, "num_beams": 3}, {"do_sample": True, "temperature": 2.0}):
        texts = []
        for one in (plain, model):
            torch.manual_seed(0)
            texts.append(one.generate(**prompt, max_new_tokens=12, **how))
        assert torch.equal(*texts) and texts[0].shape[1] > 3


def test_pipelines_take_it(library_log):
    tokenizer = make_tokenizer()
    text = ["willingly i hope", "my thy and could, my"]
    models = tiny("bert").eval(), attached("bert").eval()
    answers = [pipeline("text-classification", model=m, tokenizer=tokenizer)(text) for m in models]
    assert answers[0] == answers[1] and answers[0][0] != answers[0][1]

    processor = ViTImageProcessorPil(size={"height": 8, "width": 8}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    images = [Image.new("RGB", (8, 8), shade) for shade in ("black", "orange")]
    models = tiny("vit", num_channels=3).eval(), attached("vit", num_channels=3).eval()
    answers = [pipeline("image-classification", model=m, image_processor=processor)(images) for m in models]
    assert answers[0] == answers[1] and answers[0][0] != answers[0][1]
    # A pipeline that does not know the class only says so in the log.
    assert not [line for line in library_log if "not supported" in line]


def test_a_deep_copy_is_a_model_of_its_own():
    model, batch = attached("bert"), batch_for("bert")
    before = model.atom_importance(**batch)
    twin = copy.deepcopy(model)
    assert type(twin) is type(model) and twin.atom_config == model.atom_config
    assert same_outputs(twin.atom_importance(**batch), before)
    for parameter in twin.atom_heads.importance.parameters():
        parameter.data.neg_()
    assert same_outputs(twin.atom_importance(**batch), -before)
    assert same_outputs(model.atom_importance(**batch), before)
    assert twin.atom_balancer is not model.atom_balancer


# What is read


@pytest.mark.parametrize("layer", [-1, -2, 0, 1])
@pytest.mark.parametrize("name", TINY)
def test_importance_is_equation_6_on_the_chosen_layer(name, layer):
    if name in ("resnet", "swin") and layer != -1:
        layer = -1  # earlier stages have another width: see the error messages
    model, batch = attached(name, AtomConfig(form="paper", layer=layer)), batch_for(name)
    importance = model.atom_importance(**batch)
    real = ~importance.isnan()
    expected = naive_importance(model, batch, layer)
    assert importance.dtype == torch.float32 and importance.shape == expected.shape
    torch.testing.assert_close(importance[real].double(), expected[real], atol=1e-6, rtol=0)
    assert real.any(1).all() and importance[real].abs().max() <= 1 and importance[real].std() > 0.1


@pytest.mark.parametrize("name", TEXT)
def test_a_text_has_importance_at_its_words_only(name):
    tokenizer = make_tokenizer()
    batch = dict(tokenizer(["my thy", "could my thy , zebra"], padding=True, return_tensors="pt"))
    batch.pop("token_type_ids")
    names = [tokenizer.convert_ids_to_tokens(row) for row in batch["input_ids"].tolist()]
    assert names[0][-1] == "[PAD]" and "##e" in names[1]  # z ##e ##b ##r ##a
    words = [[token not in ("[PAD]", "[CLS]", "[SEP]") for token in row] for row in names]
    assert attached(name).atom_importance(**batch).isnan().logical_not().tolist() == words

    not_padding = [[token != "[PAD]" for token in row] for row in names]
    everything = attached(name, AtomConfig(tokens="all")).atom_importance(**batch)
    assert everything.isnan().logical_not().tolist() == not_padding


def test_padding_on_the_left_is_no_token_either():
    model = attached("gpt2")
    ids = torch.tensor([[0, 0, 40, 41, 42]])
    batch = {"input_ids": ids, "attention_mask": torch.tensor([[0, 0, 1, 1, 1]])}
    assert model.atom_importance(**batch).isnan().tolist() == [[True, True, False, False, False]]


def test_without_a_tokenizer_the_models_own_special_ids_count():
    model = attach_atoms(tiny("gpt2"))  # its configuration names 0, 2 and 3 as padding, first and last
    importance = model.atom_importance(input_ids=torch.tensor([[2, 40, 41, 3, 0]]))
    assert importance.isnan().tolist() == [[True, False, False, True, True]]


@pytest.mark.parametrize(
    ("name", "prefix", "cells"), [("vit", 1, 16), ("dinov2-registers", 5, 16), ("resnet", 0, 16), ("swin", 0, 4)]
)
def test_an_image_has_importance_at_its_patches_only(name, prefix, cells):
    expected = [True] * prefix + [False] * cells
    assert attached(name).atom_importance(**batch_for(name)).isnan().tolist() == [expected] * 4
    if prefix:
        everything = attached(name, AtomConfig(tokens="all")).atom_importance(**batch_for(name))
        assert not everything.isnan().any() and everything.shape == (4, prefix + cells)


def test_the_shipped_vit_reads_its_16_patches():
    model = attach_atoms(transformers.AutoModelForImageClassification.from_pretrained(find_model("vit-fashion-mnist")))
    importance = model.atom_importance(pixel_values=torch.rand(2, 1, 28, 28))
    assert importance.isnan().sum(1).tolist() == [1, 1] and importance[:, 1:].abs().max() <= 1


@pytest.mark.parametrize("training", [False, True])
def test_reading_leaves_no_trace(training):
    # With dropout, a forward pass in training mode would draw random numbers and give other values.
    model, batch = attached("bert", dropout=0.5).train(training), batch_for("bert")
    labels = torch.full((4,), 99)  # a class that the model does not have: a loss would be an error
    state = torch.get_rng_state()
    importance = model.atom_importance(**batch, labels=labels)
    assert torch.equal(torch.get_rng_state(), state) and model.training is training
    assert not importance.requires_grad and all(p.grad is None for p in model.parameters())
    assert same_outputs(model.atom_importance(**batch), importance)


def test_the_mode_is_restored_after_an_error():
    model = attached("bert").train()
    with pytest.raises(IndexError):
        model.atom_importance(input_ids=torch.full((1, 3), 10**6))
    assert model.training


# Lower precision


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["bert", "gpt2", "vit"])
def test_heads_stay_float32_under_a_half_precision_model(name, dtype):
    model = attached(name).to(dtype)
    assert {p.dtype for n, p in model.named_parameters() if "atom_heads" not in n} == {dtype}
    assert {p.dtype for p in model.atom_heads.parameters()} == {torch.float32}
    batch = batch_for(name, labels=True)
    if name == "vit":
        batch["pixel_values"] = batch["pixel_values"].to(dtype)
    outputs = model(**batch)
    assert outputs.atoms.dtype == torch.float32 and outputs.atoms.isfinite().all()
    outputs.atoms.square().sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.abs().max() > 0 for p in model.atom_heads.parameters())
    importance = model.atom_importance(**batch)
    real = ~importance.isnan()
    assert importance.dtype == torch.float32 and importance[real].isfinite().all()
    expected = naive_importance(model, {k: v for k, v in batch.items() if k != "labels"}, -1)
    torch.testing.assert_close(importance[real].double(), expected[real], atol=1e-6, rtol=0)


def test_autocast_leaves_the_heads_in_float32():
    model, batch = attached("bert"), batch_for("bert")
    with torch.autocast("cpu", torch.bfloat16):
        importance, outputs = model.atom_importance(**batch), model.train()(**batch)
        expected = naive_importance(model, batch, -1)
    real = ~importance.isnan()
    assert importance.dtype == outputs.atoms.dtype == torch.float32
    torch.testing.assert_close(importance[real].double(), expected[real], atol=1e-6, rtol=0)


# What is rejected


def test_only_a_transformers_model_is_attached_to_and_once():
    error_message(lambda: attach_atoms(torch.nn.Linear(2, 2)), "PreTrainedModel", "Linear")
    error_message(lambda: attach_atoms(torch.nn.Sequential(tiny("bert"))), "Sequential", "before the model is wrapped")
    error_message(lambda: attach_atoms(attached("bert")), "already")
    error_message(lambda: attach_atoms(tiny("bert"), {"layer": 1}), "config", "AtomConfig", "dict")


class SilentConfig(PreTrainedConfig):
    model_type = "silent"
    hidden_size = 4


class Silent(PreTrainedModel):
    """A model that takes `output_hidden_states` and gives none."""

    config_class = SilentConfig

    def __init__(self, config):
        super().__init__(config)
        self.layer = torch.nn.Linear(4, 2)
        self.post_init()

    def forward(self, values, labels=None, **kwargs):
        logits = self.layer(values)
        return SequenceClassifierOutput(torch.nn.functional.cross_entropy(logits, labels), logits)


def test_a_model_without_hidden_states_is_rejected_before_training(tmp_path):
    model = Silent(SilentConfig())
    before = model.layer.weight.detach().clone()
    rows = [{"values": torch.rand(4), "labels": 0} for _ in range(8)]
    trainer = AtomTrainer(model=model, args=arguments(tmp_path, atom=True), train_dataset=rows)
    error_message(trainer.train, "Silent", "no hidden states", "logits")
    assert trainer.state.global_step == 0 and torch.equal(model.layer.weight, before)
