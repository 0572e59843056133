"""Models that pad, count and see in their own ways, with heads."""

import transformers

from atom_hf import AtomConfig, attach_atoms
from helpers.models import tiny

TEXTS = ["the sea", "And rivers rushing of great the moon", "a", "great the sea of rivers and seas", ""]
SMALL = {"vocab_size": 400, "pad_token_id": 0}
MODELS = {
    "classifier without padding": lambda: tiny("gpt2-classifier", pad_token_id=None),
    "GPT-2 classifier": lambda: tiny("gpt2-classifier"),
    "RoBERTa": lambda: tiny("roberta"),
    "XLNet": lambda: transformers.XLNetForSequenceClassification(
        transformers.XLNetConfig(**SMALL, d_model=16, n_layer=2, n_head=2, d_inner=16)
    ),
    "BART": lambda: transformers.BartForSequenceClassification(
        transformers.BartConfig(
            **SMALL, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
            encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=48, eos_token_id=3,
        )
    ),
    "T5": lambda: transformers.T5ForConditionalGeneration(
        transformers.T5Config(**SMALL, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0)
    ),
}  # fmt: skip


def ready(model, tokenizer, layer=-1):
    return attach_atoms(model.eval(), AtomConfig(form="paper", layer=layer), tokenizer)
