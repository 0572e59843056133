"""A few texts by ids, and tiny models to read them."""

import torch
from transformers import GPT2Config, ViTConfig

from atom_hf import AtomConfig
from atom_hf.modeling.tokens import find_tokens

TEXT = GPT2Config(n_embd=4, n_layer=1, n_head=1, vocab_size=20)
VIT = ViTConfig(image_size=32, patch_size=8)  # 16 patches
PIXELS = torch.zeros(2, 3, 32, 32)

CLS, SEP, PAD = 1, 2, 0
IDS = torch.tensor([[CLS, 5, 6, 7, SEP], [CLS, 8, SEP, PAD, PAD]])
ATTENTION = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
CONTENT = AtomConfig(tokens="content", special_token_ids=[PAD, CLS, SEP])
ALL = AtomConfig(tokens="all", special_token_ids=[PAD, CLS, SEP])


def mask_of(hidden, inputs, config=CONTENT, model_config=TEXT):
    tokens, mask = find_tokens(hidden, inputs, config, model_config)
    assert mask.dtype == torch.bool and mask.shape == tokens.shape[:2]
    return mask.int().tolist()


SMALL = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
STAGES = {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 1], "window_size": 2}
PATCHES = {**SMALL, "image_size": 32, "patch_size": 8}
