"""Hidden states of any layer, of models with atoms and without: the same tokens as atoms are made of."""

import pytest
import torch

from atom_hf.atoms.config import AtomConfig
from atom_hf.modeling.attach import attach_atoms
from atom_hf.modeling.collector import reading_tokens
from atom_hf.modeling.inference import evaluating
from atom_hf.modeling.states import StateReader
from helpers.error_messages import error_message
from helpers.models import TEXT, TINY, attached, batch_for, make_tokenizer, tiny
from helpers.own_models import Around, Dict, own


def atoms_see(model, inputs):
    """(tokens, mask) that the heads of a model with atoms read."""
    with reading_tokens(model) as seen:
        importance = model.atom_importance(**inputs)
    return seen[-1], ~importance.isnan()


def read(model, inputs, layer=-1, **options):
    reader = StateReader(model, [layer], **options)
    with evaluating(model):
        found, outputs = reader(inputs)
    return reader, found[layer], outputs


@pytest.mark.parametrize("name", TINY)
def test_tokens_are_those_of_the_atoms(name):
    inputs = batch_for(name)
    processing = make_tokenizer() if name in TEXT else None
    model = attached(name)
    tokens, mask = atoms_see(model, inputs)
    for given in (tiny(name), model):
        _, found, _ = read(given, inputs, processing_class=processing)
        assert torch.equal(found.tokens, tokens) and torch.equal(found.mask, mask)
        assert not found.tokens.requires_grad


def test_layers_of_their_own_and_all_of_them():
    model, inputs = tiny("bert").eval(), batch_for("bert")
    states = model(**inputs, output_hidden_states=True).hidden_states
    reader = StateReader(model, "all")
    found, _ = reader(inputs)
    assert reader.count == 3 and list(found) == [0, 1, 2]
    assert all(torch.equal(found[layer].tokens, states[layer]) for layer in found)
    assert torch.equal(read(model, inputs, -3)[1].tokens, states[0])


def test_a_layer_that_is_not_there_is_rejected():
    error_message(
        lambda: read(tiny("bert"), batch_for("bert"), 3), "layer 3 does not exist", "3 hidden states, -3 to 2"
    )


@pytest.mark.parametrize("cls", [Around, Dict])
def test_a_model_of_ones_own(cls):
    model, inputs = own(cls), batch_for("bert")
    reference = attach_atoms(own(cls), AtomConfig(layer=-1), make_tokenizer())
    tokens, mask = atoms_see(reference, inputs)
    _, found, outputs = read(model, inputs, processing_class=make_tokenizer())
    assert torch.equal(found.tokens, tokens) and torch.equal(found.mask, mask)
    assert outputs["logits"].shape == (4, 2)


def test_an_encoder_decoder_has_two_sides():
    import transformers

    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2, "vocab_size": 60}
    torch.manual_seed(0)
    model = transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes, decoder_start_token_id=0)).eval()
    inputs = {"input_ids": torch.randint(3, 60, (2, 7)), "labels": torch.randint(3, 60, (2, 4))}
    with torch.no_grad():  # other kernels round otherwise
        outputs = model(**inputs, output_hidden_states=True)
    _, encoder, _ = read(model, inputs)
    _, decoder, _ = read(model, inputs, side="decoder")
    assert torch.equal(encoder.tokens, outputs.encoder_hidden_states[-1])
    assert torch.equal(decoder.tokens, outputs.decoder_hidden_states[-1]) and decoder.mask[:, 1:].all()
    # What is read alone needs no labels.
    del inputs["labels"]
    assert torch.equal(read(model, inputs)[1].tokens, encoder.tokens)


# PEFT 0.21 goes by names that Transformers 5.23 calls old.
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")
def test_adapters_are_in_what_is_read():
    from peft import LoraConfig, get_peft_model

    inputs = batch_for("bert")
    lora = LoraConfig(r=2, target_modules=["query"], task_type="SEQ_CLS", init_lora_weights=False)
    model = get_peft_model(tiny("bert"), lora).eval()
    _, found, _ = read(model, inputs)
    assert torch.equal(found.tokens, model(**inputs, output_hidden_states=True).hidden_states[-1])
    assert not torch.equal(found.tokens, read(tiny("bert"), inputs)[1].tokens)


def test_hidden_states_that_are_not_given_are_rejected():
    import transformers

    class Mute(transformers.PreTrainedModel):
        config_class = transformers.BertConfig

        def forward(self, input_ids=None, **kwargs):
            return (input_ids.float(),)

    model = Mute(transformers.BertConfig(hidden_size=8))
    error_message(lambda: read(model, {"input_ids": torch.ones(2, 3)}), "Mute", "without hidden states")
