"""What the general way of shrinking a configuration cannot know, by model type."""

from typing import Any

ROPE = {"rope_type": "default", "rope_theta": 10000.0}

# Arguments that the default configuration cannot be made without.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "gemma4_assistant": {"text_config": {"hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0}},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_hidden_layers": 2},
}

# Fields of the shrunk configuration, by their path, where names do not say what fits together or the default leaves open what
# the model needs.
FIELDS: dict[str, dict[str, Any]] = {
    "aya_vision": {"vision_config.num_attention_heads": 4},
    "bit": {"num_groups": 4},
    "chameleon": {"vocabulary_map": {"<image>": 4, **{f"IMGIMGBS{c}Z": 5 + i for i, c in enumerate("ABCDEFGH")}}},
    "cohere_compass": {"text_config.rope_parameters": {"full_attention": ROPE}},
    "cohere_compass_text": {"rope_parameters": {"full_attention": ROPE}},
    "cvt": {"depth": [1, 2, 3]},
    "dbrx": {"attn_config.rope_theta": 10000.0},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "esm": {"vocab_size": 33, "pad_token_id": 1, "mask_token_id": 32},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "janus": {"vq_config.base_channels": 32},
    "perceiver": {"max_position_embeddings": 16},
    "reformer": {"axial_pos_shape": [4, 8]},
    "qwen2_vl": {"vision_config.hidden_size": 512},
    "xmod": {"default_language": "en_XX"},
    "zamba": {"num_hidden_layers": 3, "layers_block_type": ["linear_attention", "hybrid", "hybrid"]},
}

# The one length of text that a model trains on.
LENGTHS = {"perceiver": 16, "reformer": 32}
