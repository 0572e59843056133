"""Models with heads as readers of texts and of pictures: what goes in, one forward pass, and what comes out of it."""

import functools
import inspect
import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .crop import seen_box
from .energy import Atoms
from .errors import AtomError
from .modeling import AtomMixin, evaluating, without_labels
from .readings import AtomReading, ImageReading, TextReading
from .spans import Piece, find_pieces, make_spans
from .tasks import image_inputs
from .tokens import patch_grid, text_config
from .wrapped import inside

SURROGATE = re.compile("[\ud800-\udfff]")
NO_LIMIT = 10**9  # a tokenizer that knows none says so by a huge number


@dataclass(frozen=True)
class Found:
    """What one forward pass found of one sample."""

    importance: np.ndarray
    """[N], nan for no token of the atom."""
    logits: np.ndarray | None
    """[classes], where the model gives one row for each sample."""
    atom: AtomReading | None


@dataclass(frozen=True)
class EncodedText:
    """A text as the model takes it, and where its tokens came from."""

    sources: list[str]
    inputs: dict[str, list[int]]
    pieces: list[Piece]
    truncated: bool


@dataclass(frozen=True)
class EncodedImage:
    """A picture as the model takes it."""

    image: Any
    pixels: Tensor
    """[C, H, W]."""


class TextReader:
    """Texts to readings in three steps, which the pipeline takes one by one: `encode`, `forward` over a batch, `reading`."""

    def __init__(self, model: Any, tokenizer: Any):
        _check_model(model, "input_ids", "texts")
        if not getattr(tokenizer, "is_fast", False):
            raise AtomError(
                f"tokenizer: {type(tokenizer).__name__} does not know where its pieces come from; "
                "give a fast one (AutoTokenizer)"
            )
        self.model, self.tokenizer, self.limit = model, tokenizer, _limit(model, tokenizer)

    def encode(self, text: str, pair: str | None = None) -> EncodedText:
        """The inputs of one text, cut where the model ends."""
        for name, value in (("text", text), ("text_pair", pair)):
            if not isinstance(value, str) and (name == "text" or value is not None):
                raise AtomError(f"{name} must be a string, got {type(value).__name__}")
            if value is not None and SURROGATE.search(value):
                raise AtomError(f"{name} holds a lone surrogate: it was decoded from bytes that are no UTF-8")
        cut = {"truncation": True, "max_length": self.limit} if self.limit < NO_LIMIT else {}
        encoded = self.tokenizer(text, pair, **cut)
        encoding = encoded.encodings[0]
        sources = [text] if pair is None else [text, pair]
        return EncodedText(sources, dict(encoded), find_pieces(encoding, sources), bool(encoding.overflowing))

    def forward(self, batch: list[EncodedText]) -> list[Found]:
        """One forward pass. A text of no tokens is not an atom, and has no prediction."""
        real = [one for one in batch if one.inputs["input_ids"]]
        config = text_config(self.model.config)
        marks = (config.pad_token_id, self.tokenizer.pad_token_id, self.tokenizer.eos_token_id)
        found = []
        # A classifier that reads the last token finds it by the padding, and without any takes one text at a time.
        size = 1 if config.pad_token_id is None and not self.model.can_generate() else max(1, len(real))
        for start in range(0, len(real), size):
            part = real[start : start + size]
            pad = {
                "input_ids": next((mark for mark in marks if mark is not None), 0),
                "token_type_ids": self.tokenizer.pad_token_type_id,
            }
            # In front only for models that sum a text up by its last place: others count places from the first.
            front = getattr(self.model.config, "summary_type", None) == "last"
            inputs = {
                name: nn.utils.rnn.pad_sequence(
                    [torch.tensor(one.inputs[name]) for one in part],
                    batch_first=True,
                    padding_value=pad.get(name, 0),
                    padding_side="left" if front else "right",
                )
                for name in part[0].inputs
            }
            length = inputs["input_ids"].shape[1]
            for one, row in zip(part, _forward(self.model, inputs), strict=True):
                if len(row.importance) < length:
                    raise AtomError(
                        f"{type(self.model).__name__} shortens its sequence: layer {self.model.atom_config.layer} has "
                        f"{len(row.importance)} tokens for {length} of the text; attach heads to another layer to read words"
                    )
                own = row.importance[len(row.importance) - length :]  # behind the virtual tokens of a prompt
                count = len(one.inputs["input_ids"])
                found.append(replace(row, importance=own[length - count :] if front else own[:count]))
        found = iter(found)
        return [next(found) if one.inputs["input_ids"] else Found(np.empty(0), None, None) for one in batch]

    def reading(self, encoded: EncodedText, found: Found) -> TextReading:
        """What was found, on the text as it was written."""
        words, pieces = make_spans(encoded.pieces, encoded.sources, found.importance, encoded.truncated)
        text, pair = (*encoded.sources, None)[:2]
        predicted, confidence = predict(found.logits, self.model.config)
        return TextReading(
            text,
            words,
            pieces,
            pair,
            predicted=predicted,
            confidence=confidence,
            atom=found.atom,
            truncated=encoded.truncated,
        )


class ImageReader:
    """Pictures to readings in three steps, as `TextReader`."""

    def __init__(self, model: Any, processor: Any):
        _check_model(model, "pixel_values", "images")
        self.model, self.processor = model, processor
        self._box = functools.lru_cache(maxsize=256)(lambda size: seen_box(processor, size, model.config))

    def encode(self, image: Any) -> EncodedImage:
        """The pixels of one picture."""
        pixels = image_inputs([image], self.processor, self.model.config)
        if pixels.ndim != 4 or len(pixels) != 1:
            raise AtomError(
                f"the image processor makes pixel_values {list(pixels.shape)} of one image; "
                "one that makes [1, C, H, W] is needed"
            )
        return EncodedImage(image, pixels[0])

    def forward(self, batch: list[EncodedImage]) -> list[Found]:
        """One forward pass for each run of pictures of the same shape."""
        found: list[Found] = []
        while len(found) < len(batch):
            rest = batch[len(found) :]
            shape = rest[0].pixels.shape
            count = next((i for i, one in enumerate(rest) if one.pixels.shape != shape), len(rest))
            found += _forward(self.model, {"pixel_values": torch.stack([one.pixels for one in rest[:count]])})
        return found

    def reading(self, encoded: EncodedImage, found: Found) -> ImageReading:
        """What was found, on the patch grid, with the place of the grid in the picture."""
        rows, columns, tall, wide = _grid(encoded.pixels, len(found.importance), self.model.config)
        values = found.importance[len(found.importance) - rows * columns :].reshape(rows, columns)
        box = self._box(encoded.image.size)
        if box is not None:
            left, top, right, bottom = box
            box = (left, top, left + (right - left) * wide, top + (bottom - top) * tall)
            box = None if box == (0, 0, *encoded.image.size) else box
        predicted, confidence = predict(found.logits, self.model.config)
        return ImageReading(encoded.image, values, predicted=predicted, confidence=confidence, atom=found.atom, box=box)


def predict(logits: np.ndarray | None, model_config: Any) -> tuple[str | None, float | None]:
    """(what is predicted, with which confidence) from logits [classes]; (None, None) where there are none.

    The confidence is softmax's, or the sigmoid's where several classes may hold. Of a regression the number is what is
    predicted, and it has no confidence.
    """
    if logits is None:
        return None, None
    if len(logits) == 1 or model_config.problem_type == "regression":
        return ", ".join(f"{value:.3g}" for value in logits), None
    chosen = int(logits.argmax())
    if model_config.problem_type == "multi_label_classification":
        return model_config.id2label[chosen], float(1 / (1 + np.exp(-logits[chosen])))
    powers = np.exp(logits - logits.max())
    return model_config.id2label[chosen], float(powers[chosen] / powers.sum())


@torch.no_grad()
def _forward(model: Any, inputs: dict[str, Tensor]) -> list[Found]:
    inputs = {name: tensor.to(model.device) for name, tensor in inputs.items()}
    if "logits_to_keep" in inspect.signature(inside(model).forward).parameters:
        inputs["logits_to_keep"] = 1  # a language model's are not looked at, and are large
    with evaluating(model):
        outputs = model(**without_labels(model, inputs), return_atoms=True)
    importance = outputs["atom_importance"].float().cpu().numpy()
    atoms = Atoms.unpack(outputs["atoms"].float().cpu())
    logits = outputs.get("logits")
    logits = logits.float().cpu().numpy() if logits is not None and logits.dim() == 2 else None
    found = []
    for row, exists in enumerate(atoms.exists.tolist()):
        charges = (float(part[row]) for part in (atoms.positive, atoms.negative))
        atom = AtomReading(*charges, atoms.center[row].numpy(), float(atoms.radius[row])) if exists else None
        found.append(Found(importance[row], None if logits is None else logits[row], atom))
    return found


def _grid(pixels: Tensor, count: int, model_config: Any) -> tuple[int, int, float, float]:
    """(rows, columns) of an image's tokens, and the shares of its height and width that they cover.

    Args:
        pixels: [C, H, W].
        count: how many tokens there are, with those that stand before the patches.
    """
    grid = patch_grid(pixels[None], model_config)
    high, wide = pixels.shape[-2:]
    if grid is not None and grid[0] * grid[1] <= count:
        patch = getattr(model_config, "vision_config", model_config).patch_size
        height, width = (patch, patch) if isinstance(patch, int) else patch
        # What is left over at the bottom and at the right is in no patch.
        return *grid, grid[0] * height / high, grid[1] * width / wide
    # A hierarchical model or feature map: as many cells as tokens, in the shape of the image.
    shapes = [(rows, count // rows) for rows in range(1, count + 1) if count % rows == 0]
    rows, columns = min(shapes, key=lambda shape: abs(np.log(shape[0] / shape[1] * wide / high)))
    return rows, columns, 1.0, 1.0


def _limit(model: Any, tokenizer: Any) -> int:
    """How many tokens the model can take at most."""
    positions = getattr(text_config(model.config), "max_position_embeddings", None) or 0
    positions = positions if positions > 0 else NO_LIMIT  # XLNet says -1
    for name, module in model.named_modules():
        # RoBERTa and its kind count places from behind the padding's.
        is_table = isinstance(module, nn.Embedding) and module.num_embeddings == positions
        if is_table and module.padding_idx is not None and "position" in name:
            positions -= module.padding_idx + 1
            break
    prompt = getattr(getattr(model, "active_peft_config", None), "num_virtual_tokens", None) or 0
    return min(tokenizer.model_max_length, positions - prompt)


def _check_model(model: Any, takes: str, what: str) -> None:
    if not isinstance(inside(model), AtomMixin):  # an adapter's base has them
        raise AtomError(
            f"model: {type(model).__name__} has no heads; load it with load_atom_model, or attach_atoms and train"
        )
    main = getattr(model, "main_input_name", None)
    if main != takes:
        raise AtomError(f"model: {type(model).__name__} takes {main}: it reads no {what}")
    if model.atom_config.side == "decoder":
        raise AtomError(
            "model: its heads read what the decoder writes (side 'decoder'), not a text that is given; "
            "model.atom_importance(..., labels=...) reads that"
        )
