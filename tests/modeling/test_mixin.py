"""Atoms on real models: what attaching leaves alone, what is read, what is saved and loaded, and what is refused."""

import copy
import inspect
import json
import subprocess
import sys

import pytest
import torch
import transformers
from conftest import TEXT, TINY, arguments, batch_for, collator_for, make_tokenizer, rows_for, tiny
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import PreTrainedConfig, PreTrainedModel, pipeline
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from atom_hf import AtomConfig, AtomError, AtomHeads, AtomMixin, AtomTrainer, attach_atoms, load_atom_model
from atom_hf.tasks import find_model
from atom_hf.tokens import pick_layer

AUTO = {
    "bert": transformers.AutoModelForSequenceClassification,
    "gpt2": transformers.AutoModelForCausalLM,
    "vit": transformers.AutoModelForImageClassification,
}


def attached(name, config=None, **options):
    config = config or AtomConfig(layer=-1)  # the one layer that is as wide as the heads in every model here
    return attach_atoms(tiny(name, **options), config, make_tokenizer() if name in TEXT else None)


def same_outputs(a, b):
    """Whether two outputs are of one type and hold the same keys and, to the bit and NaN for NaN, the same tensors."""
    if torch.is_tensor(a):
        return a.shape == b.shape and a.dtype == b.dtype and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(same_outputs, a, b))
    if hasattr(a, "keys"):
        return type(a) is type(b) and list(a) == list(b) and all(same_outputs(a[k], b[k]) for k in a)
    return type(a) is type(b)  # a cache object


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

    monkeypatch.setattr("atom_hf.forward.pick_layer", counting)
    model = attached(name, AtomConfig(layer=layer))
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
    assert twin.atom_gate is not model.atom_gate


# What is read


@pytest.mark.parametrize("layer", [-1, -2, 0, 1])
@pytest.mark.parametrize("name", TINY)
def test_importance_is_equation_6_on_the_chosen_layer(name, layer):
    if name in ("resnet", "swin") and layer != -1:
        layer = -1  # earlier stages have another width: see the refusals
    model, batch = attached(name, AtomConfig(layer=layer)), batch_for(name)
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


# What is saved and loaded

WITHOUT_THE_PACKAGE = """
import logging, sys
sys.modules["atom_hf"] = None  # importing it is now an ImportError
import torch, transformers
transformers.utils.logging.disable_progress_bar()
logging.basicConfig(level=logging.WARNING)
transformers.utils.logging.enable_propagation()
for folder, auto in zip(sys.argv[1::2], sys.argv[2::2]):
    model = getattr(transformers, auto).from_pretrained(folder)
    torch.save(model(**torch.load(folder + "/batch.pt")).logits, folder + "/logits.pt")
assert not any(name.startswith("atom_hf.") for name in sys.modules)
"""


def test_a_saved_folder_loads_without_this_package(tmp_path):
    words, expected = [], {}
    for name, auto in AUTO.items():
        model, batch = attached(name).eval(), batch_for(name)
        folder = tmp_path / name
        model.save_pretrained(folder)
        torch.save(batch, folder / "batch.pt")
        expected[folder] = model(**batch).logits
        words += [str(folder), auto.__name__]
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT_THE_PACKAGE, *words], capture_output=True, text=True, cwd=tmp_path
    )
    # Nothing at all is printed or logged: no warning, no report of keys that were not expected or are missing.
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    for folder, logits in expected.items():
        assert torch.equal(torch.load(folder / "logits.pt"), logits)


@pytest.mark.parametrize("name", TINY)
def test_the_base_is_saved_as_if_nothing_were_attached(name, tmp_path):
    tiny(name).save_pretrained(tmp_path / "plain")
    attached(name).save_pretrained(tmp_path / "atoms")
    plain = {file.name: file.read_bytes() for file in (tmp_path / "plain").iterdir()}
    atoms = {file.name: file.read_bytes() for file in (tmp_path / "atoms").iterdir()}
    assert set(atoms) - set(plain) == {"atom_config.json", "atom_heads.safetensors", "README.md"}
    assert {key: atoms[key] for key in plain} == plain
    config = json.loads(plain["config.json"])
    assert config["architectures"] == [TINY[name][0]] and not [key for key in config if "atom" in key]


@pytest.mark.parametrize("name", AUTO)
def test_load_atom_model_gives_the_same_model(name, tmp_path, library_log):
    model, batch = attached(name, AtomConfig(layer=1, tokens="all", importance_std=0.7)), batch_for(name)
    model.save_pretrained(tmp_path)
    importance = model.atom_importance(**batch)
    for options in ({}, {"auto_class": AUTO[name]}):
        loaded = load_atom_model(tmp_path, **options)
        assert type(loaded) is type(model) and not loaded.training and loaded.atom_config == model.atom_config
        assert same_outputs(loaded.atom_importance(**batch), importance)
        assert same_outputs(loaded(**batch), model.eval()(**batch))
    assert library_log == []


def test_shards(tmp_path, library_log):
    model, batch = attached("bert"), batch_for("bert")
    model.save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    loaded, base = load_atom_model(tmp_path), AUTO["bert"].from_pretrained(tmp_path)
    assert same_outputs(loaded.atom_importance(**batch), model.atom_importance(**batch))
    assert same_outputs(base(**batch), model.eval()(**batch)) and library_log == []


@pytest.mark.parametrize("name", AUTO)
def test_a_checkpoint_of_a_run_loads_with_its_heads(name, tmp_path, library_log):
    args = arguments(tmp_path, atom=True, max_steps=1, save_strategy="steps", save_steps=1)
    trainer = AtomTrainer(model=tiny(name), args=args, train_dataset=rows_for(name), data_collator=collator_for(name))
    trainer.train()
    checkpoint = tmp_path / "checkpoint-1"
    assert not (checkpoint / "atom_heads.safetensors").exists()  # resuming takes them from the model's own file
    library_log.clear()
    loaded, batch = load_atom_model(checkpoint), batch_for(name)
    importance = trainer.model.atom_importance(**batch)
    assert same_outputs(loaded.atom_importance(**batch), importance)
    assert same_outputs(loaded(**batch), trainer.model.eval()(**batch)) and library_log == []


def test_loading_in_bfloat16_leaves_the_heads_as_saved(tmp_path):
    model = attached("bert")
    model.save_pretrained(tmp_path)
    loaded = load_atom_model(tmp_path, dtype=torch.bfloat16)
    assert loaded.classifier.weight.dtype == torch.bfloat16
    saved = model.atom_heads.state_dict()
    assert all(torch.equal(tensor, saved[key]) for key, tensor in loaded.atom_heads.state_dict().items())
    assert {tensor.dtype for tensor in loaded.atom_heads.state_dict().values()} == {torch.float32}


def test_a_half_precision_model_is_saved_with_whole_heads(tmp_path):
    model = attached("bert").to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    assert {t.dtype for t in load_file(tmp_path / "atom_heads.safetensors").values()} == {torch.float32}
    assert {t.dtype for t in load_file(tmp_path / "model.safetensors").values()} == {torch.bfloat16}


def test_saving_on_another_process_writes_nothing(tmp_path):
    attached("bert").save_pretrained(tmp_path / "rank1", is_main_process=False)
    assert not list(tmp_path.glob("rank1/*.safetensors")) and not list(tmp_path.glob("rank1/atom*"))


# What is refused


def refusal(call, *words):
    """The message of the AtomError that `call` raises, which must hold all of `words`."""
    with pytest.raises(AtomError) as caught:
        call()
    message = str(caught.value)
    assert all(str(word) in message for word in words), message
    return message


def test_only_a_transformers_model_is_attached_to_and_once():
    refusal(lambda: attach_atoms(torch.nn.Linear(2, 2)), "PreTrainedModel", "Linear")
    refusal(lambda: attach_atoms(torch.nn.Sequential(tiny("bert"))), "Sequential", "before the model is wrapped")
    refusal(lambda: attach_atoms(attached("bert")), "already")
    refusal(lambda: attach_atoms(tiny("bert"), {"layer": 1}), "config", "AtomConfig", "dict")


@pytest.mark.parametrize("name", ["bert", "gpt2", "vit"])
def test_a_layer_that_does_not_exist(name):
    for layer in (-3, 2):
        attached(name, AtomConfig(layer=layer)).atom_importance(**batch_for(name))
    for layer in (-4, 3):
        model = tiny(name)
        refusal(
            lambda m=model, k=layer: attach_atoms(m, AtomConfig(layer=k)), f"layer {layer}", "-3 to 2", TINY[name][0]
        )
        assert not isinstance(model, AtomMixin)


@pytest.mark.parametrize("layer", [-3, -2, -1, 0, 1, 2])
def test_each_stage_has_its_own_width(layer):
    model = attached("resnet", AtomConfig(layer=layer))
    hidden = model(**batch_for("resnet"), output_hidden_states=True).hidden_states[layer]
    assert model.atom_config.hidden_size == hidden.shape[1]
    assert model.atom_importance(**batch_for("resnet")).shape == (len(hidden), hidden[0, 0].numel())


def test_a_stage_that_does_not_exist():
    model = attached("resnet", AtomConfig(layer=5))
    refusal(lambda: model.atom_importance(**batch_for("resnet")), "layer 5", "-3 to 2")


def test_heads_of_another_width(tmp_path):
    refusal(lambda: attach_atoms(tiny("bert"), AtomConfig(hidden_size=16)), "16", "32", "do not fit")
    attached("bert").save_pretrained(tmp_path)
    tiny("bert", hidden_size=16).save_pretrained(tmp_path)
    refusal(lambda: load_atom_model(tmp_path), "16", "32", "do not fit")


def unsaid_width():
    """A model whose configuration does not say how wide its hidden states are, and a batch for it."""
    config = transformers.MobileNetV2Config(depth_multiplier=0.25, num_labels=3, image_size=32)
    rows = [{"pixel_values": torch.randn(3, 32, 32), "labels": i % 3} for i in range(4)]
    return transformers.MobileNetV2ForImageClassification(config), rows


def test_a_width_that_is_not_said_is_found_by_the_trainer_or_given(tmp_path):
    model, rows = unsaid_width()
    pixels = torch.stack([row["pixel_values"] for row in rows])
    trainer = AtomTrainer(model=model, args=arguments(tmp_path / "run", atom=True, max_steps=1), train_dataset=rows)
    trainer.train()
    width = model.eval()(pixels, output_hidden_states=True).hidden_states[-2].shape[1]
    assert model.atom_config.hidden_size == model.atom_heads.position.weight.shape[0] == width > 1
    model.save_pretrained(tmp_path)
    again = load_atom_model(tmp_path).atom_importance(pixel_values=pixels)
    torch.testing.assert_close(again, model.atom_importance(pixel_values=pixels))

    # Who trains in a loop of their own is told what to give, and can.
    model = attach_atoms(unsaid_width()[0])
    refusal(lambda: model(pixels), f"is {width} wide", f"AtomConfig(hidden_size={width})")
    model = attach_atoms(unsaid_width()[0], AtomConfig(hidden_size=width))
    assert model(pixels).atoms.shape == (4, width + 3)
    # What is given is not replaced without a word.
    other = next(n for n in (16, 24, 32, 40) if n != width)
    model = attach_atoms(unsaid_width()[0], AtomConfig(hidden_size=other))
    trainer = AtomTrainer(model=model, args=arguments(tmp_path / "run", atom=True), train_dataset=rows)
    refusal(trainer.train, f"is {width} wide", f"made for {other}")


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


def test_a_model_without_hidden_states_is_refused_before_training(tmp_path):
    model = Silent(SilentConfig())
    before = model.layer.weight.detach().clone()
    rows = [{"values": torch.rand(4), "labels": 0} for _ in range(8)]
    trainer = AtomTrainer(model=model, args=arguments(tmp_path, atom=True), train_dataset=rows)
    refusal(trainer.train, "Silent", "no hidden states", "logits")
    assert trainer.state.global_step == 0 and torch.equal(model.layer.weight, before)


@pytest.fixture
def saved(tmp_path):
    attached("bert").save_pretrained(tmp_path)
    return tmp_path


def test_a_damaged_or_foreign_heads_file(saved):
    file = saved / "atom_heads.safetensors"
    whole = file.read_bytes()
    for damage in (whole[:-100], whole[:5], b"", b"no safetensors file"):
        file.write_bytes(damage)
        refusal(lambda: load_atom_model(saved), file)
    heads = load_file(saved / "model.safetensors")
    save_file(heads, file)
    refusal(lambda: load_atom_model(saved), file, "do not fit", "position.weight")
    heads = AtomHeads(16).state_dict()
    save_file(heads, file)
    refusal(lambda: load_atom_model(saved), file, "do not fit", "(16, 16)", "(32, 32)")


def test_a_configuration_of_another_version(saved):
    file = saved / "atom_config.json"
    data = json.loads(file.read_text())
    for change, word in (
        ({"format_version": data["format_version"] + 1}, "format_version"),
        ({"format_version": None}, "format_version"),
        ({"chirality": 1}, "chirality"),
        ({"layer": "last"}, "layer"),
    ):
        file.write_text(json.dumps({**data, **change}))
        refusal(lambda: load_atom_model(saved), word)
    file.write_text("{")
    refusal(lambda: load_atom_model(saved), file)
    file.write_text("[1]")
    refusal(lambda: load_atom_model(saved), "JSON object")


def test_a_folder_without_atoms_or_without_heads(saved):
    (saved / "atom_heads.safetensors").unlink()
    refusal(lambda: load_atom_model(saved), saved)
    (saved / "atom_config.json").unlink()
    refusal(lambda: load_atom_model(saved), saved, "atom_config.json")


def test_remote_code_is_never_run(saved):
    refusal(lambda: load_atom_model(saved, trust_remote_code=True), "trust_remote_code")


def test_a_folder_that_names_no_class(saved):
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**config, "architectures": ["NoSuchModel"]}))
    refusal(lambda: load_atom_model(saved), "auto_class")
    assert isinstance(load_atom_model(saved, AUTO["bert"]), AtomMixin)
