"""Encode rows as model inputs: tokenized texts, processed images."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from ..errors import AtomError
from ..modeling.layers import is_image_model, text_config
from ..utils.pictures import in_mode
from .pictures import picture_mode

NO_LIMIT = 10**9  # a tokenizer that knows none says so by a huge number

_LEAST_READ, _READ_PER_TOKEN, _LONGEST_WORD = 4096, 16, 1024  # characters


def image_inputs(images: list[Any], processor: Any, model_config: Any) -> Any:
    """`pixel_values` [B, C, H, W] for PIL images of any mode, with the number of channels that the model takes."""
    mode = picture_mode(model_config)
    return processor([in_mode(image, mode) for image in images], return_tensors="pt")["pixel_values"]


def encode_rows(rows: list[dict[str, Any]], model: Any, processor: Any, max_length: int = 128) -> dict[str, Any]:
    """Encode rows ("text" and optionally "text_pair", or "image") as a classifier's inputs, on its device."""
    if is_image_model(model):
        return {"pixel_values": image_inputs([row["image"] for row in rows], processor, model.config).to(model.device)}
    know_padding(model, processor)
    length = longest_length(model, processor, max_length)
    texts = [
        [readable(row[name], processor, length) for row in rows] for name in ("text", "text_pair") if name in rows[0]
    ]
    encoded = processor(*texts, return_tensors="pt", padding=True, truncation=True, max_length=length)
    IdLimits(model, processor).check({name: encoded[name].tolist() for name in IdLimits.NAMES if name in encoded})
    return {name: value.to(model.device) for name, value in encoded.items()}


def readable(text: str, tokenizer: Any, limit: int) -> str:
    """As much of a text as gives the same first `limit` tokens as all of it: the text itself, unless it is very long.

    A tokenizer reads a whole text before it truncates it. For a book, nearly all of that work is wasted; for a pair of books, a
    fast tokenizer keeps every combination of their truncated parts, which fills the memory.
    """
    if limit >= NO_LIMIT or tokenizer.truncation_side != "right":
        return text
    length = max(_LEAST_READ, _READ_PER_TOKEN * limit)
    while length < len(text):
        part = text[: _word_end(text, length)]
        if len(tokenizer(part, add_special_tokens=False, verbose=False)["input_ids"]) > limit:
            return part
        length *= 8
    return text


def _word_end(text: str, place: int) -> int:
    """The last place before `place` where a word ends, if one ends near it: there is none in a script without spaces."""
    for end in range(place, max(0, place - _LONGEST_WORD), -1):
        if text[end].isspace():
            return end
    return place


class IdLimits:
    """The largest ids that a model's embeddings have rows for."""

    NAMES = ("input_ids", "token_type_ids")

    def __init__(self, model: Any, tokenizer: Any):
        config = text_config(model.config)
        self.sizes = {"input_ids": _vocabulary(model), "token_type_ids": getattr(config, "type_vocab_size", None)}
        self.says = f"the tokenizer ({type(tokenizer).__name__} of {len(tokenizer)} pieces)"
        self.model = type(model).__name__

    def check(self, encoded: dict[str, Sequence[Sequence[int]]]) -> None:
        """Raises `AtomError` for ids [samples, tokens] by name that the model does not have."""
        for name, size in self.sizes.items():
            top = max((max(ids) for ids in encoded.get(name, ()) if len(ids)), default=-1)
            # A model without types is given them, and ignores them.
            if isinstance(size, int) and 0 < size <= top:
                raise AtomError(
                    f"{self.says} is not that of this {self.model}: it gives {name} up to {top}, and the model has {size}; "
                    "give the tokenizer that the model was trained with"
                )


def _vocabulary(model: Any) -> int | None:
    """The rows of a model's table of tokens; None if it has none, or is sharded."""
    try:
        return getattr(model.get_input_embeddings(), "num_embeddings", None)
    except (AttributeError, NotImplementedError):
        return None


def know_padding(model: Any, tokenizer: Any) -> None:
    """Set the padding token of a tokenizer (by default its end-of-text token) and of the model, where they have none."""
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if model.config.get_text_config().pad_token_id is None:
        model.config.get_text_config().pad_token_id = tokenizer.pad_token_id


def longest_length(model: Any, tokenizer: Any, max_length: int) -> int:
    """`max_length`, or less if the model or the tokenizer allows fewer tokens."""
    return min(max_length, position_limit(model), tokenizer.model_max_length)


def position_limit(model: Any) -> int:
    """The maximum number of tokens that a model has positions for; `NO_LIMIT` if its configuration does not say."""
    positions = getattr(text_config(model.config), "max_position_embeddings", None) or 0
    if not isinstance(positions, int) or positions <= 0:  # XLNet has -1
        return NO_LIMIT
    for name, module in model.named_modules():
        # RoBERTa and models like it count positions from the one after the padding's.
        is_table = isinstance(module, nn.Embedding) and module.num_embeddings == positions
        if is_table and module.padding_idx is not None and "position" in name:
            return positions - module.padding_idx - 1
    return positions
