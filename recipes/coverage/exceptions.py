"""Exceptions to the general way of shrinking a configuration, by model type."""

from typing import Any

INDEXER = {
    "indexer_n_heads": 4,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 32,
    "indexer_budget": 8,
    "indexer_compress_ratio": 4,
}
ROPE = {"rope_type": "default", "rope_theta": 10000.0}

# Arguments that the default configuration cannot be made without.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "gemma4_assistant": {"text_config": {"hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0}},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_hidden_layers": 2},
}

# Fields of the shrunk configuration, by their path, where names do not say what fits together or the default leaves open what
# the model needs.
FIELDS: dict[str, dict[str, Any]] = {
    "aria": {"projector_patch_to_query_dict": {16: 4}, "max_value_projector_patch_to_query_dict": 4},
    "aya_vision": {"vision_config.num_attention_heads": 4},
    "bamba": {"attn_layer_indices": [1]},
    "bit": {"num_groups": 4},
    "blip-2": {"image_token_index": 99},
    "blt": {"use_cache": False},
    "bros": {"dim_bbox_sinusoid_emb_2d": 64, "dim_bbox_sinusoid_emb_1d": 8, "dim_bbox_projection": 16},
    "chameleon": {"vocabulary_map": {"<image>": 4, **{f"IMGIMGBS{c}Z": 5 + i for i, c in enumerate("ABCDEFGH")}}},
    "cohere_compass": {"text_config.rope_parameters": {"full_attention": ROPE}},
    "cohere_compass_text": {"rope_parameters": {"full_attention": ROPE}},
    "cvt": {"depth": [1, 2, 3]},
    "dbrx": {"attn_config.rope_theta": 10000.0, "attn_config.clip_qkv": 8.0},
    "deepseek_ocr2": {"text_config.mlp_layer_types": ["dense", "sparse"]},
    "deepseek_v2": {"moe_intermediate_size": 64, "num_experts_per_tok": 2},
    "diffusion_gemma": {
        "text_config.num_experts": 4,
        "text_config.top_k_experts": 2,
        "text_config.moe_intermediate_size": 64,
    },
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "efficientnet": {
        "in_channels": [32, 16, 24, 40, 80, 112, 192],
        "out_channels": [16, 24, 40, 80, 112, 192, 320],
        "width_coefficient": 1.0,
        "depth_coefficient": 1.0,
        "hidden_dim": 1280,
        "image_size": 64,
    },
    "emu3": {"vq_config.base_channels": 32, "vocabulary_map": {"<image>": 4, "<|extra_200|>": 5}},
    "encoder-decoder": {"pad_token_id": 0, "decoder_start_token_id": 1},
    "ernie4_5_vl_moe": {"text_config.rope_parameters.mrope_section": [6, 6, 4]},
    "esm": {"vocab_size": 33, "pad_token_id": 1, "mask_token_id": 32},
    "gemma3": {"mm_tokens_per_image": 4, "vision_config.image_size": 64},
    "glm4v_moe": {"text_config.rope_parameters.mrope_section": [1, 1, 1]},
    "glm_ocr": {"text_config.rope_parameters.mrope_section": [4, 6, 6]},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granite4_vision": {"deepstack_layer_map": [[1, 0]]},
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"]},
    "hiera": {"image_size": [64, 64]},
    "hrm_text": {"num_layers_per_stack": None, "num_hidden_layers": 1},
    "hunyuan_vl": {"text_config.rope_parameters.mrope_section": [4, 4, 4, 4]},
    "instructblip": {"image_token_index": 99},
    "instructblipvideo": {"video_token_index": 99},
    "janus": {"vq_config.base_channels": 32},
    "kosmos-2.5": {"latent_query_num": 16},
    "mllama": {"vision_config.vision_output_dim": 160},
    "paddleocr_vl": {"text_config.rope_parameters.mrope_section": [4, 6, 6]},
    "perceiver": {"max_position_embeddings": 16},
    "pp_lcnet": {"stem_channels": 16},
    "qwen2_5_omni_thinker": {"vision_start_token_id": 7, "text_config.rope_parameters.mrope_section": [4, 6, 6]},
    "qwen2_5_vl": {"text_config.rope_parameters.mrope_section": [4, 6, 6]},
    "qwen2_vl": {"vision_config.hidden_size": 512, "text_config.rope_parameters.mrope_section": [4, 6, 6]},
    "qwen3_asr": {"audio_config.n_window": 16, "audio_config.n_window_infer": 64},
    "qwen3_omni_moe_thinker": {"vision_start_token_id": 7},
    "qwen4_exp": {f"text_config.{name}": value for name, value in INDEXER.items()},
    "qwen4_exp_text": INDEXER,
    "recurrent_gemma": {"block_types": ["recurrent", "attention"]},
    "reformer": {"axial_pos_shape": [4, 8]},
    "shieldgemma2": {"mm_tokens_per_image": 4, "vision_config.image_size": 64},
    "step3p7": {"text_config.sliding_window": 8},
    "t5gemma2": {"encoder.mm_tokens_per_image": 4, "encoder.vision_config.image_size": 64},
    "vipllava": {"vision_feature_layers": [-2, -2, -1, -1, 1]},
    "vision-encoder-decoder": {"pad_token_id": 0, "decoder_start_token_id": 1},
    "voxtral": {"audio_token_id": 99},
    "xmod": {"default_language": "en_XX"},
    "zamba": {"num_hidden_layers": 3, "layers_block_type": ["linear_attention", "hybrid", "hybrid"]},
}

# The one length of text that a model trains on, or that goes with the recording beside it.
LENGTHS = {"perceiver": 16, "reformer": 32, "voxtral_realtime": 8}

# Causal language models that cannot do without an image.
SEES = ("git",)

# Models that take places on a page as fractions of it.
FRACTIONS = ("bros", "udop")

# Encoder-decoders that make their decoder's input from what is read.
SHIFTS_NOTHING = ("fsmt",)

# Models whose every token is one id of each of several codebooks, in rows of their own.
CODEBOOKS = ("musicgen_decoder", "musicgen_melody_decoder")
