"""Encode rows as model inputs: tokenized texts, processed images."""

from typing import Any

from ..modeling.layers import is_image_model
from ..utils.pictures import in_mode
from .pictures import picture_mode


def image_inputs(images: list[Any], processor: Any, model_config: Any) -> Any:
    """`pixel_values` [B, C, H, W] for PIL images of any mode, with the number of channels that the model takes."""
    mode = picture_mode(model_config)
    return processor([in_mode(image, mode) for image in images], return_tensors="pt")["pixel_values"]


def encode_rows(rows: list[dict[str, Any]], model: Any, processor: Any, max_length: int = 128) -> dict[str, Any]:
    """Encode rows ("text" and optionally "text_pair", or "image") as a classifier's inputs, on its device."""
    if is_image_model(model):
        return {"pixel_values": image_inputs([row["image"] for row in rows], processor, model.config).to(model.device)}
    know_padding(model, processor)
    encoded = processor(
        [row["text"] for row in rows],
        [row["text_pair"] for row in rows] if "text_pair" in rows[0] else None,
        return_tensors="pt",
        padding=True,
        truncation=True,
        max_length=longest_length(model, processor, max_length),
    )
    return {name: value.to(model.device) for name, value in encoded.items()}


def know_padding(model: Any, tokenizer: Any) -> None:
    """Set the padding token of a tokenizer (by default its end-of-text token) and of the model, where they have none."""
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if model.config.get_text_config().pad_token_id is None:
        model.config.get_text_config().pad_token_id = tokenizer.pad_token_id


def longest_length(model: Any, tokenizer: Any, max_length: int) -> int:
    """`max_length`, or less if the model or the tokenizer allows fewer tokens."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None) or max_length
    return min(max_length, limit, tokenizer.model_max_length)
