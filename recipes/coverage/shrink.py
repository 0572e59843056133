"""Makes any architecture's default configuration small: a few layers, narrow, a few hundred words, images of a few patches.

One rule for all: whatever fitted together before still does. All widths of a configuration and of those within it are divided
by the same number, so that sums and products of them go on to agree; token ids and vocabulary sizes keep their order and their
small distances; lists with an entry for each layer are cut to the layers that are kept, and these are chosen so that every
kind of layer is there. Which field is which is read from its name. What the names do not say is in `exceptions.py`.
"""

import re
from collections.abc import Iterator
from typing import Any

import exceptions
from transformers import CONFIG_MAPPING, PreTrainedConfig

STAGES = ("depths", "depth", "hidden_sizes", "embed_dims")
HANDED_ON = ("out_hidden_size", "text_hidden_size")
DERIVED = (
    "id2label",
    "label2id",
    "num_labels",
    "out_features",
    "out_indices",
    "stage_names",
    "_out_features",
    "_out_indices",
)
GAP = 256  # between token ids, at most
SCALES = ((16, 4), (8, 4), (4, 2))  # widths and heads are divided by these; the later ones where the first do not fit


def _pattern(*parts: str) -> re.Pattern:
    return re.compile("|".join(parts))


# The first pattern that a field's name matches says what it counts.
KINDS = {
    "keep": _pattern(
        r"kernel|stride|dilation|padding|_pad$|ratio|factor|expan|mult|exponent|convs?$|_limit$|rate$|_per_second",
        r"(^|_)type_vocab|^type_|_dtype$|_act$|channels?_in|^in_chan",
        r"^num_chan|^input_channels|^audio_channels|_bins$|_buckets$",
        r"patch_size|patch_sizes|^crop_pct|labels?$|chunk_size|block_size$|version",
        r"merge|_cache$|dt_rank_|sliding|attention_window|window_(kernel|infer)|^padding",
        r"temporal|^scale|_stages$|^num_encoder_blocks$|query_pool|unit_size|tokens_per_second|pos_embeddings$",
        r"ignore_index|feat_extract|nextn|^num_code|seconds|beams|hashes|_id_mod|_langs$|hop_length|_idxs?$|_order$",
        r"^patch_embed_hidden|^n_mels$|mel|xpath|^subs_|^tag_|sub_?sampling|upsampl",
        r"downsampling|_aspect|resolution|n_relations|out_stride|^output_stride",
    ),
    "token": _pattern(
        r"token_ids?$|token_index$|vocab_size(?!s)|vocab_offset$|_vocab$",
        r"^(pad|unk|mask|bos|eos)_index$|(_pad|_start|_end|_newline)_id$",
        r"^eo[dia]_token|^image_patch_id$|_image_token$",
    ),
    "head": _pattern(r"(^|_)n_?heads?$|num_(\w+_)?heads?$|attention_heads$|(^|_)heads?$|_groups_heads|num_\w*heads_per_layer$"),
    "kv_head": _pattern(r"key_value_heads$|kv_heads$|kv_n_heads$|query_groups$"),
    "head_width": _pattern(
        r"head_?(dim|size)$|^d_kv$|^d_head$|_d_head$|dim_head$",
        r"headdim$|^kv_channels$|^rotary_dim$|^key_dim$|^d_rel$",
    ),
    "length_of_choice": _pattern(r"^index_topk$"),
    "expert": _pattern(r"experts$|expert_num$|num_experts"),
    "choice": _pattern(r"experts_per_tok(en)?$|top_?k$|^moe_k$"),
    "group": _pattern(r"^n_group$|^topk_group$|expert_group$"),
    "first": _pattern(r"^first_k_dense|^num_dense_layers$|layer_offset$|layer_start_index$|^interleave_layers$"),
    "window": _pattern(r"^window_size$|^pretrained_window"),
    "none": _pattern(r"kv_shared_layers$"),
    "period": _pattern(r"period$|interval$|_step$|frequency$|every_n|_pattern$|group_size$|per_stack$|cycles$"),
    "index": _pattern(
        r"ind(ex|ic)es$|feature_layer|layer_ids$|layer_id$|_layer_index$",
        r"attention_layers$|source_layers$|target_layers$|only_layers$",
    ),
    "layer": _pattern(r"layers?$|^depths?$|_depth$|num_blocks$|block_repeats$|^block_sizes$|attends_per_block$|window_layers$"),
    "pixels": _pattern(r"pinpoints$"),
    "image": _pattern(r"^(image|img|crop|input|max_image|min_image|max_img)_size$|^resolution$|^pos_emb_(height|width)$"),
    "patches": _pattern(
        r"image_seq_length|tokens_per_image|image_tokens$",
        r"^num_patches$|max_num_patches|num_position_embeddings$",
    ),
    "length": _pattern(
        r"position_embeddings|_positions$|^n_positions$|max_seq|_length$",
        r"_len$|^n_ctx$|latents$|query_tokens$|query_num$|max_pos",
        r"max_relative|_distance$|_radius$|landmarks$|num_(rows|columns)$",
        r"(_embeddings|num_embeddings)$|hash_buckets$|_extent$|mem_len",
    ),
    "width": _pattern(
        r"size|dims?$|dim_|_dim|width|channels?$|rank$|d_model|n_embd",
        r"d_ff|dff|inner|filters$|^d_|units|rnn|ffn|hidden|_features?$",
        r"d_ssm|d_state|feats?$|scalar$|^embedding|num_centroids",
    ),
}  # fmt: skip


def kind_of(name: str) -> str | None:
    """What a field counts, by its name; None if the name says nothing."""
    return next((kind for kind, pattern in KINDS.items() if pattern.search(str(name))), None)


def small_config(model_type: str, scale: int = 0, **overrides: Any) -> PreTrainedConfig:
    """The default configuration of a model type, made small.

    Args:
        model_type: a key of `transformers.CONFIG_MAPPING`.
        scale: which of `SCALES` to divide by.
        **overrides: fields of the outermost configuration, as they are to be.
    """
    config_class = CONFIG_MAPPING[model_type]
    before = config_class(**exceptions.ARGUMENTS.get(model_type, {})).to_dict()
    before = _without_derived(before)
    values = _shrink(before, *SCALES[scale], _token_map(before), _patch_ratio(before))
    for path, value in exceptions.FIELDS.get(model_type, {}).items():
        _put(values, path, value)
    return config_class.from_dict({**values, **overrides})


def _without_derived(values: dict) -> dict:
    """`values` without what is made anew from the rest, and names of layers or labels that will not be there any more."""
    return {
        name: _without_derived(value) if isinstance(value, dict) else value
        for name, value in values.items()
        if name not in DERIVED
    }


def _put(values: dict, path: str, value: Any) -> None:
    *parents, name = path.split(".")
    for parent in parents:
        values = values[parent]
    values[name] = value


def _walk(values: dict) -> Iterator[tuple[dict, str, Any]]:
    for name, value in values.items():
        yield values, name, value
        if isinstance(value, dict):
            yield from _walk(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _token_map(values: dict) -> dict[int, int]:
    """Old ids and vocabulary sizes to new ones: in the same order, as far apart as before, but no more than `GAP`."""
    found = {0}
    for _, name, value in _walk(values):
        if kind_of(name) == "token":
            found.update(v for v in (value if isinstance(value, list | tuple) else [value]) if _is_count(v) and v > 0)
    mapped, last = {0: 0}, 0
    for value in sorted(found - {0}):
        mapped[value] = mapped[last] + min(value - last, GAP)
        last = value
    return mapped


def _patch_ratio(values: dict) -> int:
    """By how much the first image of a configuration tree gets smaller, along a side."""
    for parent, name, value in _walk(values):
        if name == "image_size" and (patch := _patch(parent)):
            side = max(value) if isinstance(value, list | tuple) else value
            if _is_count(side):
                return max(1, side // _small_side(side, patch))
    return 1


def _patch(values: dict) -> int:
    patch = values.get("patch_size") or 0
    patch = patch[0] if isinstance(patch, list | tuple) and patch else patch
    return patch if _is_count(patch) else 0


def _small_side(side: int, patch: int) -> int:
    """The side of an image of few patches: a divisor of how many there were, so that what pools them still can."""
    patches = side // patch
    least = -(-max(4, -(-56 // patch)) // 4) * 4
    fitting = [n for n in range(least, patches + 1, 4) if patches % n == 0 and n <= 3 * least]
    return patch * (fitting[0] if fitting else min(least, patches))


def _shrink(values: dict, width: int, heads: int, tokens: dict[int, int], ratio: int) -> dict[str, Any]:
    """One dictionary of a configuration, and those within it."""
    heads = _head_divisor(values, heads)
    count = _layer_count(values)
    stages = next(
        (len(value) for name, value in values.items() if name in STAGES and isinstance(value, list | tuple)), 0
    )
    kept = list(range(count)) if stages and stages == count else _layers_to_keep(values)

    def number(kind: str, value: int) -> int:
        if value <= 0:
            return tokens.get(value, value) if kind == "token" else value
        match kind:
            case "token":
                return tokens[value]
            case "width":
                return max(1, value // width) if value > 8 else value
            case "head_width":
                return max(2, value * heads // width) if value > 4 else value
            case "head" | "kv_head":
                return max(1, value // heads)
            case "expert":
                return min(value, 4)
            case "choice":
                return min(value, 2)
            case "none":
                return 0
            case "group" | "first":
                return min(value, 1)
            case "window":
                return min(value, 2) if stages else value
            case "period":
                return min(value, 2)
            case "index":
                return min(value, len(kept) - 1)
            case "layer":
                return value if value == stages else len(kept) if value == count else min(value, 2)
            case "image":
                patch = _patch(values)
                return _small_side(value, patch) if patch else max(1, value // ratio)
            case "pixels":
                return max(1, value // ratio)
            case "patches":
                return max(1, value // ratio**2)
            case "length" | "length_of_choice":
                return min(value, 512)
        return value

    def convert(name: Any, value: Any) -> Any:
        if isinstance(value, dict):
            if count and value and all(str(key).isdigit() and int(key) < count for key in value):
                value = {kept.index(int(key)): entry for key, entry in value.items() if int(key) in kept}
            nested = _shrink(value, width, heads, tokens, ratio)
            return {**nested, **_sections(value, width // heads)}
        kind = kind_of(name)
        if (
            isinstance(value, list | tuple)
            and count
            and len(value) == count > len(kept)
            and not (kind == "index" and _is_count(value[0]))
        ):
            value = [value[i] for i in kept]
        if isinstance(value, list | tuple):
            inner = [convert(name, item) for item in value]
            if kind == "index" and all(map(_is_count, inner)):
                inner = sorted(set(inner))
            return inner
        return number(kind, value) if kind and _is_count(value) else value

    return _complete({name: convert(name, value) for name, value in values.items()})


def _complete(values: dict) -> dict[str, Any]:
    """What many configurations leave open, and a few then miss."""
    heads, width = values.get("num_attention_heads"), values.get("hidden_size")
    if _is_count(heads) and _is_count(width):
        for name, value in (("num_key_value_heads", heads), ("head_dim", width // heads)):
            if name in values and values[name] is None:
                values[name] = value
    if values.get("vocab_size") and values.get("pad_token_id", 0) is None:
        values["pad_token_id"] = 0
    if values.get("is_encoder_decoder") and values.get("decoder_start_token_id") is None:
        values["decoder_start_token_id"] = values.get("pad_token_id") or 0
    text = values.get("text_config") or {}
    for part in values.values():  # what is seen or heard is handed on as wide as the text is
        if isinstance(part, dict) and text.get("hidden_size"):
            part.update({name: text["hidden_size"] for name in HANDED_ON if _is_count(part.get(name))})
    vocabulary = values.get("vocab_size") or text.get("vocab_size")
    if _is_count(vocabulary):
        # Some defaults name special tokens of another vocabulary.
        beyond = [name for name, v in values.items() if kind_of(name) == "token" and _is_count(v) and v >= vocabulary]
        for place, name in enumerate(name for name in beyond if name.endswith(("_id", "_index"))):
            values[name] = vocabulary - 1 - place
    return values


def _sections(values: dict, divisor: int) -> dict[str, Any]:
    """Rotary sections, which share a head's width."""
    return {
        name: [max(1, part // divisor) for part in value]
        for name, value in values.items()
        if str(name).endswith("_section") and isinstance(value, list | tuple)
    }


def _head_divisor(values: dict, wanted: int) -> int:
    """`wanted`, or what is left of it when all numbers of heads are to stay whole."""
    numbers: list[int] = []
    for name, value in values.items():
        if kind_of(name) == "head":
            numbers += [v for v in (value if isinstance(value, list | tuple) else [value]) if _is_count(v) and v > 1]
    return next(n for n in (4, 2, 1) if n <= wanted and all(number % n == 0 for number in numbers))


def _layer_count(values: dict) -> int:
    """The number of layers that lists go by."""
    names = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "depth")
    return next((values[name] for name in names if _is_count(values.get(name))), 0)


def _layers_to_keep(values: dict) -> list[int]:
    """Which layers stay: two, or as many as it takes to have every kind of layer that a list of the configuration names."""
    count = _layer_count(values)
    if count <= 2:
        return list(range(max(count, 2)))
    kept: list[int] = []
    for value in values.values():
        if isinstance(value, list | tuple) and len(value) == count and all(isinstance(v, str | bool) for v in value):
            kinds = {value[i] for i in kept}
            for i, kind in enumerate(value):
                if kind not in kinds:
                    kinds.add(kind)
                    kept.append(i)
    for i in range(count):
        if len(set(kept)) >= 2:
            break
        kept.append(i)
    return sorted(set(kept))
