"""Random images and recordings for any model, and how many places they take among the tokens of a text.

There are a dozen ways in which models take images: a square, tiles, rows of flattened patches with the shape of their grid.
`layouts` makes all of those whose arguments a model's `forward` has, and `seen_and_heard` takes the first that the model reads.
"""

import contextlib
import functools
import re
from collections.abc import Iterator
from typing import Any

import exceptions
import torch
from torch import Tensor

FRAMES, WAVE = 64, 6400  # of a spectrogram, of a waveform


class _PlacesCounted(Exception):
    """Ends a forward pass as soon as it has told how many places its images or recordings take."""


def field(config: Any, *names: str, default: Any = None) -> Any:
    """The first of the fields that a configuration, or the parts of it, has."""
    parts = [config, *(getattr(config, part, None) for part in getattr(config, "sub_configs", {}))]
    parts += [getattr(part, inner, None) for part in parts[1:] for inner in getattr(part, "sub_configs", {})]
    for name in names:
        for part in parts:
            value = getattr(part, name, None)
            if value is not None:
                return value
    return default


def images(model: Any, samples: int, generator: Any) -> Tensor:
    """[B, C, H, W], as large as the configuration says."""
    size = field(_vision(model.config), "image_size", default=64)
    size = (
        (size, size) if isinstance(size, int) else (size["height"], size["width"]) if isinstance(size, dict) else size
    )
    return torch.randn(samples, _channels(model.config), *size, generator=generator)


def recordings(model: Any, samples: int, generator: Any) -> dict[str, Tensor]:
    """A waveform, or a spectrogram, under the name that the model has for it, with a mask where the model takes one."""
    bins = field(model.config, "num_mel_bins", "feature_projection_input_dim", "input_dim", "feature_size")
    name = model.main_input_name
    if name == "input_values" and bins is None:
        return {name: torch.randn(samples, WAVE, generator=generator), "attention_mask": short_mask(samples, WAVE)}
    if hasattr(model.config, "max_source_positions") and hasattr(model.config, "num_mel_bins"):
        return {name: torch.randn(samples, bins, 2 * model.config.max_source_positions, generator=generator)}
    frames = getattr(model.config, "max_length", FRAMES) if name == "input_values" else FRAMES
    batch = {name: torch.randn(samples, frames, bins, generator=generator)}
    return {**batch, "attention_mask": short_mask(samples, frames)} if name == "input_features" else batch


def short_mask(samples: int, length: int) -> Tensor:
    """[B, length], the last quarter of every second row being padding."""
    mask = torch.ones(samples, length, dtype=torch.long)
    mask[1::2, length * 3 // 4 :] = 0
    return mask


def _vision(config: Any) -> Any:
    return next(
        (getattr(config, n) for n in ("vision_config", "encoder") if getattr(config, n, None) is not None), config
    )


def _audio(config: Any) -> Any:
    names = ("audio_config", "encoder_config", "audio_encoder", "sound_config")
    return next((getattr(config, name) for name in names if getattr(config, name, None) is not None), config)


def _channels(config: Any) -> int:
    return field(_vision(config), "num_channels", "in_channels", "in_chans", default=3)


def layouts(model: Any, names: set[str], samples: int, generator: Any) -> Iterator[dict[str, Tensor]]:
    """Every way of giving one image a sample that the model's `forward` has arguments for, the particular ones first."""
    config = model.config
    vision, channels = _vision(config), _channels(config)
    patch = field(vision, "patch_size", default=16)
    patch = patch if isinstance(patch, int) else patch[0]
    square = images(model, samples, generator)
    side = square.shape[-1]

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    def filled(*row: int) -> Tensor:
        return torch.tensor([row] * samples)

    if "image_grid_thw" in names:
        merge = field(vision, "spatial_merge_size", "merge_size", default=2)
        height, width = (2 * merge, 3 * merge)
        times = field(vision, "temporal_patch_size", "patch_temporal", default=1)
        rows = samples * height * width
        grid = {"image_grid_thw": filled(1, height, width)}
        if "image_merge_sizes" in names:
            grid["image_merge_sizes"] = torch.full((samples,), merge)
        for shape in (
            (channels * times * patch**2,),
            (channels * patch**2,),
            (channels, patch, patch),
            (channels, times, patch, patch),
        ):
            yield {"pixel_values": random(rows, *shape), **grid}
    if "target_sizes" in names:
        yield {"pixel_values": random(1, channels, patch, samples * 16 * patch), "target_sizes": filled(4, 4)}
    if "spatial_shapes" in names:
        yield {
            "pixel_values": random(samples, 16, channels * patch**2),
            "pixel_attention_mask": torch.ones(samples, 16, dtype=torch.long),
            "spatial_shapes": filled(4, 4),
        }
    if "aspect_ratio_ids" in names:
        tiles = vision.max_num_tiles
        yield {
            "pixel_values": random(samples, 1, tiles, channels, side, side),
            "aspect_ratio_ids": filled(1),
            "aspect_ratio_mask": torch.ones(samples, 1, tiles, dtype=torch.long),
        }
    if "flattened_patches" in names:
        places = torch.stack(torch.meshgrid(torch.arange(1, 5), torch.arange(1, 5), indexing="ij"), -1).view(1, 16, 2)
        patches = torch.cat([places.expand(samples, -1, -1).float(), random(samples, 16, channels * patch**2)], -1)
        yield {"flattened_patches": patches}
    if "image_sizes" in names:
        sizes = {"image_sizes": filled(side, side)}
        for tiles in (5, 10):
            yield {
                "pixel_values": random(samples, tiles, channels, side, side),
                "image_sizes": filled(2 * side, 2 * side),
            }
        yield {"pixel_values": random(samples, 2, channels, side, side), **sizes}
        yield {"pixel_values": square, **sizes}
    if "pixel_attention_mask" in names:
        yield {"pixel_values": square[:, None]}
    if "image_token_pooling" in names:
        patches = field(vision, "num_position_embeddings", default=(side // patch) ** 2)
        yield {
            "pixel_values": random(samples, patches, channels * patch**2),
            "image_token_pooling": torch.arange(samples * 4 * 4).view(samples * 4, 4) % patches,
            "image_grids": filled(2, 2, 0, 0),
            "image_num_crops": torch.ones(samples, dtype=torch.long),
        }
    if "qformer_input_ids" in names:
        ids = torch.randint(5, 50, (samples, 6), generator=generator)
        yield {"pixel_values": square, "qformer_input_ids": ids, "qformer_attention_mask": torch.ones_like(ids)}
        yield {
            "pixel_values": square[:, None],
            "qformer_input_ids": ids,
            "qformer_attention_mask": torch.ones_like(ids),
        }
    if "pixel_values" in names:
        yield {"pixel_values": square}
        yield {"pixel_values": square[:, None]}


def audio_layouts(model: Any, names: set[str], samples: int, generator: Any) -> Iterator[dict[str, Tensor]]:
    """Every way of giving one recording a sample that the model's `forward` has arguments for."""
    config = _audio(model.config)
    mask_name = next((n for n in ("input_features_mask", "feature_attention_mask", "padding_mask") if n in names), None)
    if "input_features" in names:
        bins = field(config, "num_mel_bins", "input_dim", "feature_projection_input_dim", "feature_size", default=80)
        longest = field(config, "max_source_positions", default=FRAMES // 2)
        for shape in ((bins, 2 * longest), (2 * longest, bins), (bins, FRAMES), (FRAMES, bins)):
            frames = max(shape) if bins not in shape else next((n for n in shape if n != bins), bins)
            masks = {mask_name: torch.ones(samples, frames, dtype=torch.long)} if mask_name else {}
            yield {"input_features": torch.randn(samples, *shape, generator=generator), **masks}
    if "input_values" in names:
        waves = torch.randn(samples, 4 * WAVE, generator=generator)
        yield {"input_values": waves, **({mask_name: torch.ones_like(waves).bool()} if mask_name else {})}
        yield {"input_values": waves[:, None]}


def placeholder_ids(config: Any) -> dict[str, int]:
    """What stands in a text for a part of an image or a recording."""
    kinds = {"image_features": ("image_token_id", "image_token_index", "image_patch_id"),
             "audio_features": ("audio_token_id", "audio_token_index")}  # fmt: skip
    found = {kind: next((getattr(config, n) for n in names if isinstance(getattr(config, n, None), int)), None)
             for kind, names in kinds.items()}  # fmt: skip
    return {kind: value for kind, value in found.items() if value is not None}


def seen_and_heard(
    model: Any, names: set[str], samples: int, generator: Any, heard: bool
) -> tuple[dict[str, Tensor], dict[int, int]]:
    """An image, or a recording, for each sample as the model reads it, and how many places each takes: by placeholder id.

    A model that reads none of those that are made here gets its text alone, and says so: `text_alone`.
    """
    ids = placeholder_ids(model.config)
    make = audio_layouts if heard else layouts
    for number, batch in enumerate([] if hasattr(model, "text_alone") else make(model, names, samples, generator)):
        if number != getattr(model, "_layout", number):
            continue
        if hasattr(model, "_layout"):
            return batch, model._places
        if "image_embeds_position_mask" in names:  # these know the places by a mask, and how many there are
            return batch, {5: model.config.latent_query_num}
        text = torch.full((samples, exceptions.LENGTHS.get(model.config.model_type, 4)), 5)
        for place, value in enumerate(ids.values()):
            text[:, place] = value
        given = {"input_ids": text, "attention_mask": torch.ones_like(text), "decoder_input_ids": text}
        given |= {**beside_text(model, names, text, []), "bbox": torch.rand(*text.shape, 4)}
        with counting_places(model) as counted, torch.no_grad():
            try:
                model(**{name: value for name, value in given.items() if name in names}, **batch)
                counted.setdefault("read", 0)
            except Exception as error:
                # Some have no such method, and say in words how many places they want.
                if said := re.search(r"features:? (\d+)", str(error)):
                    counted["audio_features" if heard else "image_features"] = int(said[1])
        if counted:
            model._layout = number
            model._places = {ids[kind]: count // samples for kind, count in counted.items() if kind in ids and count}
            if counted == {"read": 0}:  # with one placeholder of each kind
                model._places = dict.fromkeys(ids.values(), 1)
            return batch, model._places
    if "input_ids" not in names:
        raise ValueError(f"{type(model).__name__} reads none of the kinds of images that are made here")
    model.text_alone = True
    return {}, {}


def beside_text(model: Any, names: set[str], ids: Tensor, placeholders: list[int]) -> dict[str, Tensor]:
    """What some models take beside `input_ids`: where in it the images are."""
    kinds = torch.isin(ids, torch.tensor(placeholders or [-1])).long()
    found = {"mm_token_type_ids": kinds, "image_embeds_position_mask": kinds}
    if placeholders:
        found["token_type_ids"] = kinds
    if "image_attention_mask" in names:
        found["image_attention_mask"] = torch.ones(*ids.shape, 1, dtype=torch.long)
    return found


@contextlib.contextmanager
def counting_places(model: Any) -> Iterator[dict[str, int]]:
    """Within it a forward pass ends where images meet their placeholders, having told how many it wants."""
    counted: dict[str, int] = {}
    holders = [module for module in model.modules() if hasattr(module, "get_placeholder_mask")]

    def count(original: Any, input_ids: Any, inputs_embeds: Any, *args: Any, **features: Any) -> Any:
        features |= dict(zip(("image_features", "video_features"), args, strict=False))
        if not features and not hasattr(model.config, "num_query_tokens"):
            return original(input_ids, inputs_embeds)
        if not features:  # each image is answered by as many queries
            counted["image_features"] = len(input_ids) * model.config.num_query_tokens
        for kind, values in features.items():
            if values is not None:
                values = [values] if torch.is_tensor(values) else values
                counted[kind] = sum(value.numel() for value in values) // inputs_embeds.shape[-1]
        raise _PlacesCounted

    for module in holders:
        module.get_placeholder_mask = functools.partial(count, module.get_placeholder_mask)
    try:
        yield counted
    finally:
        for module in holders:
            del module.get_placeholder_mask
