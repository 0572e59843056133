"""Which layer the atoms are read from, and how wide it is."""

from types import SimpleNamespace

import pytest
import torch
import transformers
from transformers import CLIPConfig, CLIPForImageClassification
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutput, Seq2SeqLMOutput
from transformers.utils import ModelOutput

from atom_hf import AtomConfig, AtomError, AtomMixin, AtomTrainer, attach_atoms, load_atom_model
from atom_hf.modeling.layers import hidden_size_of, is_image_model, pick_layer
from atom_hf.modeling.tokens import patch_grid
from helpers.error_messages import error_message
from helpers.models import TINY, attached, batch_for, tiny
from helpers.token_ids import ATTENTION, IDS, PATCHES, PIXELS, SMALL
from helpers.training import arguments


@pytest.mark.parametrize("name", ["bert", "gpt2", "vit"])
def test_a_layer_that_does_not_exist(name):
    for layer in (-3, 2):
        attached(name, AtomConfig(layer=layer)).atom_importance(**batch_for(name))
    for layer in (-4, 3):
        model = tiny(name)
        error_message(
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
    error_message(lambda: model.atom_importance(**batch_for("resnet")), "layer 5", "-3 to 2")


def test_heads_of_another_width(tmp_path):
    error_message(lambda: attach_atoms(tiny("bert"), AtomConfig(hidden_size=16)), "16", "32", "do not fit")
    attached("bert").save_pretrained(tmp_path)
    tiny("bert", hidden_size=16).save_pretrained(tmp_path)
    error_message(lambda: load_atom_model(tmp_path), "16", "32", "do not fit")


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
    error_message(lambda: model(pixels), f"is {width} wide", f"AtomConfig(hidden_size={width})")
    model = attach_atoms(unsaid_width()[0], AtomConfig(form="paper", hidden_size=width))
    assert model(pixels).atoms.shape == (4, width + 3)
    # What is given is not replaced without a word.
    other = next(n for n in (16, 24, 32, 40) if n != width)
    model = attach_atoms(unsaid_width()[0], AtomConfig(hidden_size=other))
    trainer = AtomTrainer(model=model, args=arguments(tmp_path / "run", atom=True), train_dataset=rows)
    error_message(trainer.train, f"is {width} wide", f"made for {other}")


READ = {"input_ids": IDS, "attention_mask": ATTENTION}


def test_the_layer_of_the_side_that_is_asked_for():
    reads, writes = ((torch.full((1, 1, 1), value), torch.full((1, 1, 1), value + 1)) for value in (0.0, 10.0))
    outputs = Seq2SeqLMOutput(logits=torch.zeros(1), encoder_hidden_states=reads, decoder_hidden_states=writes)

    def picked(side, outputs=outputs):
        return pick_layer(outputs, -1, SimpleNamespace(atom_config=AtomConfig(side=side))).item()

    assert (picked("encoder"), picked("decoder")) == (1, 11)
    with pytest.raises(AtomError, match="no decoder hidden states"):
        picked("decoder", CausalLMOutput(logits=torch.zeros(1), hidden_states=reads))


def test_hidden_states_under_other_names():
    first, second = ((torch.tensor(value),) for value in (1.0, 2.0))
    model = SimpleNamespace(atom_config=AtomConfig())
    # Of two kinds of things that are read, that of the main input stands first; a tensor is no tuple of layers.
    named = ModelOutput(image_hidden_states=torch.zeros(3), language_hidden_states=first, vision_hidden_states=second)
    assert pick_layer(named, 0, model) == 1
    nested = ModelOutput(
        logits=torch.zeros(1), vision_outputs=BaseModelOutput(hidden_states=first),
        language_model_outputs=BaseModelOutput(hidden_states=second),
    )  # fmt: skip
    assert pick_layer(nested, 0, model) == 2


def test_the_width_is_that_of_the_part_that_is_read():
    config = CLIPConfig(
        text_config={**SMALL, "vocab_size": 9}, vision_config={**PATCHES, "hidden_size": 12, "num_attention_heads": 2}
    )
    assert hidden_size_of(CLIPForImageClassification(config), -1) == 12
    assert patch_grid(PIXELS, config) == (4, 4)


@pytest.mark.parametrize(
    ("name", "is_image"),
    [("pixel_values", True), ("input_ids", False), ("input_values", False), (None, False)],
)
def test_an_image_model_is_known_by_its_main_input(name, is_image):
    assert is_image_model(SimpleNamespace(main_input_name=name)) is is_image
    assert not is_image_model(SimpleNamespace())
