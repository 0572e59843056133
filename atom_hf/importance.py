"""Reading token importance: words and image patches, in one forward pass."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from .forward import OUTPUT_KEYS
from .modeling import evaluating
from .page import ImageReading, TextReading
from .tasks import image_inputs
from .tokens import patch_grid


def read_texts(
    model: Any,
    tokenizer: Any,
    texts: list[str],
    labels: list[str] | None = None,
    *,
    pairs: list[str] | None = None,
    batch_size: int = 32,
) -> list[TextReading]:
    """The importance of each word of each text, or of each text and its pair, with what the model predicts.

    A word's importance is the mean over its pieces; words are the tokenizer's, which keeps punctuation apart. Needs a fast
    tokenizer, which knows where its pieces come from.
    """
    readings = []
    limit = _limit(model, tokenizer)
    if tokenizer.pad_token is None:  # GPT-2 has none
        tokenizer.pad_token = tokenizer.eos_token
    for start, batch in _batches(texts, batch_size):
        seconds = None if pairs is None else pairs[start : start + batch_size]
        encoded = tokenizer(batch, seconds, return_tensors="pt", padding=True, truncation=True, max_length=limit)
        outputs, importance = _forward(model, encoded)
        for row, text in enumerate(batch):
            sources = [text] if seconds is None else [text, seconds[row]]
            words, values = _words(sources, encoded, row, importance[row])
            label = labels[start + row] if labels else None
            readings.append(TextReading(words, values, label, *_prediction(model, outputs, row)))
    return readings


def read_images(
    model: Any, processor: Any, images: list[Any], labels: list[str] | None = None, *, batch_size: int = 32
) -> list[ImageReading]:
    """The importance of each patch of each image (PIL), on the patch grid, with what the model predicts."""
    readings = []
    for start, batch in _batches(images, batch_size):
        pixels = image_inputs(batch, processor, model.config)
        outputs, importance = _forward(model, {"pixel_values": pixels})
        grid = patch_grid(pixels, model.config)
        for row, image in enumerate(batch):
            tokens = importance[row].cpu().numpy()
            if grid is None or grid[0] * grid[1] > len(tokens):
                # A hierarchical model or feature map: as many cells as tokens, in the shape of the image.
                rows = max(1, round((len(tokens) * pixels.shape[-2] / pixels.shape[-1]) ** 0.5))
                shape = (rows, len(tokens) // rows)
            else:
                shape = grid
            values = tokens[len(tokens) - shape[0] * shape[1] :].reshape(shape)
            label = labels[start + row] if labels else None
            readings.append(ImageReading(image, values, label, *_prediction(model, outputs, row)))
    return readings


@torch.no_grad()
def _forward(model: Any, inputs: Any) -> tuple[Any, Tensor]:
    with evaluating(model):
        outputs = model(**{name: tensor.to(model.device) for name, tensor in inputs.items()}, return_atoms=True)
    return outputs, outputs[OUTPUT_KEYS[1]]


def _prediction(model: Any, outputs: Any, row: int) -> tuple[str | None, float | None]:
    logits = outputs["logits"][row] if "logits" in outputs else None
    if logits is None or logits.dim() != 1:
        return None, None
    chosen = int(logits.argmax())
    return model.config.id2label[chosen], float(logits.float().softmax(-1)[chosen])


def _words(texts: list[str], encoded: Any, row: int, importance: Tensor) -> tuple[list[str], list[float]]:
    pieces: dict[tuple[int, int], list[int]] = {}
    for token, place in enumerate(zip(encoded.sequence_ids(row), encoded.word_ids(row), strict=True)):
        if None not in place:
            pieces.setdefault(place, []).append(token)
    words, values = [], []
    for (sequence, word), tokens in pieces.items():
        span = encoded.word_to_chars(row, word, sequence_index=sequence)
        words.append(texts[sequence][span.start : span.end].strip())
        values.append(float(importance[tokens].mean()))
    return words, values


def _limit(model: Any, tokenizer: Any) -> int:
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return min(tokenizer.model_max_length, positions or tokenizer.model_max_length)


def _batches(items: list, size: int) -> Iterator[tuple[int, list]]:
    for start in range(0, len(items), size):
        yield start, items[start : start + size]
