"""Models that cannot be trained as language models are rejected, with what they can be trained for."""

import pytest
import transformers

from atom_hf.finetune.inputs import prepare_inputs
from helpers.error_messages import error_message
from helpers.task_data import LINES, TINY_BERT, TINY_GPT2, text_data

pytestmark = [
    pytest.mark.usefixtures("own_cache"),
    pytest.mark.promise(
        "The task is guessed only if no other reading is possible.",
        "encoders and models without a language-model head for causal-lm",
    ),
]

TINY = {
    "bart": {
        "d_model": 8,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 1,
        "decoder_attention_heads": 1,
    },
    "gpt2": TINY_GPT2,
    "bert": {**TINY_BERT, "is_decoder": True},
    "xlm": {"emb_dim": 8, "n_layers": 1, "n_heads": 1, "causal": True},
}


def prepare(model_type, overrides=None, model=None):
    names = {} if model is not None else {"model_type": model_type, "config_overrides": overrides}
    return prepare_inputs(text_data(LINES * 4), model=model, vocabulary_size=300, **names)


@pytest.mark.parametrize("model_type", ["bert", "roberta", "electra", "camembert", "xlm-roberta", "roformer"])
def test_an_encoder_sees_the_words_that_it_is_to_predict(model_type):
    error_message(
        lambda: prepare(model_type, TINY_BERT),
        f"--model_type {model_type!r} cannot be trained for causal-lm",
        "is an encoder here, each of whose positions sees the words that it is to predict",
        "it fits --task text-classification",
        "--config_overrides is_decoder=true",
    )


def test_a_saved_encoder_too(tmp_path):
    config = transformers.BertConfig(vocab_size=300, **TINY_BERT)
    transformers.BertForMaskedLM(config).save_pretrained(tmp_path)
    prepare("gpt2", TINY_GPT2).processing_class.save_pretrained(tmp_path)
    error_message(
        lambda: prepare(None, model=str(tmp_path)), f"--model {str(tmp_path)!r} cannot be trained for causal-lm"
    )


@pytest.mark.parametrize(
    ("model_type", "fits"),
    [
        ("distilbert", "it fits --task text-classification"),
        ("modernbert", "it fits --task text-classification"),
        ("vit", "it fits --task image-classification"),
        ("wav2vec2", "give a decoder, such as gpt2"),
    ],
)
def test_a_type_without_a_causal_language_model(model_type, fits):
    error_message(lambda: prepare(model_type), f"no causal language model of type {model_type!r}", fits)


@pytest.mark.parametrize("model_type", TINY)
def test_a_decoder_is_trained(model_type):
    assert prepare(model_type, TINY[model_type]).train["labels"][0]


def test_xlm_is_causal_by_its_own_flag():
    error_message(lambda: prepare("xlm", {**TINY["xlm"], "causal": False}), "XLMWithLMHeadModel is an encoder here")
