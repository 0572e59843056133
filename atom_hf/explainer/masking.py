"""Mask tokens of a text or patches of an image."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..atoms.config import AtomConfig
from ..errors import AtomError
from ..modeling.layers import is_image_model
from ..modeling.own_outputs import logits_of
from ..modeling.tokens import find_tokens, patch_grid, special_token_ids

ROWS = 128
"""How many masked samples go through the model at once."""

TEXT_MASKING = {
    "mask": "the mask token stands in the place of each masked token",
    "drop": "tokens are deleted, and the text closes up",
}

IMAGE_MASKING = {
    "mean": "each masked patch has the mean colour of its image",
    "blur": "each masked patch is that of the blurred image",
}


class Masker:
    """Masks tokens of a batch.

    - "mask": the token's id becomes that of the mask token; of a tokenizer without one, of the unknown-word token, else of
      padding.
    - "drop": tokens are deleted, sequences close up and are padded again, as in ERASER (arXiv 1911.03429, section 4.2).
    - "mean": a patch gets the mean colour of its image, channel by channel: it needs no other image.
    - "blur": a patch is that of the image under a Gaussian as wide (standard deviation) as half a patch, cut off after three of
      them. RISE (arXiv 1806.07421, section 4.1) starts its insertion from a blurred image.

    Args:
        model: a classifier of texts, or of images by a grid of patches, with atoms or without.
        processor: its tokenizer or image processor.
        strategy: one of `TEXT_MASKING` or `IMAGE_MASKING`.

    Raises:
        AtomError: a strategy that does not exist, or not for this model.
    """

    def __init__(self, model: Any, processor: Any, strategy: str):
        self.model, self.strategy = model, strategy
        self.is_image = is_image_model(model)
        known = IMAGE_MASKING if self.is_image else TEXT_MASKING
        if strategy not in known:
            kind = "an image" if self.is_image else "a text"
            raise AtomError(f"strategy must be one of {', '.join(known)} for {kind} model; got {strategy!r}")
        config = getattr(model, "atom_config", None) or AtomConfig(
            tokens="content", special_token_ids=[] if self.is_image else special_token_ids(model.config, processor)
        )
        self._config = config
        if self.is_image:
            return
        candidates = [getattr(processor, f"{name}_token_id", None) for name in ("mask", "unk", "pad")]
        self.mask_id = next((number for number in candidates if number is not None), None)
        if self.mask_id is None:
            raise AtomError(f"the tokenizer of {type(model).__name__} has no mask, unknown-word or padding token")
        pad = getattr(processor, "pad_token_id", None)
        self.pad_id = self.mask_id if pad is None else pad
        self.pads_left = getattr(processor, "padding_side", "right") == "left"

    def tokens(self, inputs: dict[str, Tensor], length: int) -> Tensor:
        """Which of the model's `length` tokens can be masked: bool [B, length].

        The tokens of the atom, but for those that stand for no part of the input: padding, special and prefix tokens.

        Raises:
            AtomError: a model whose tokens are not those of its input: hierarchical, pooled, or after a prompt.
        """
        samples = len(next(iter(inputs.values())))
        device = next(iter(inputs.values())).device
        if not self.is_image and length != inputs["input_ids"].shape[-1]:
            raise AtomError(
                f"{type(self.model).__name__} makes {length} tokens of {inputs['input_ids'].shape[-1]}: give a model that "
                "makes one of each word piece"
            )
        if self.is_image:
            grid = patch_grid(inputs["pixel_values"], self.model.config)
            if grid is None or length < grid[0] * grid[1]:
                raise AtomError(
                    f"{type(self.model).__name__} has no token for each patch of its image: give a model such as a ViT"
                )
        config = self._config
        if config.tokens != "content":
            config = AtomConfig(tokens="content", special_token_ids=config.special_token_ids)
        shape = torch.empty(samples, length, 1, device=device)
        return find_tokens(shape, inputs, config, self.model.config)[1]

    def ground(self, inputs: dict[str, Tensor]) -> Tensor | None:
        """What masked patches of images show: [B, C, H, W], or a shape that broadcasts to it. None for texts."""
        if not self.is_image:
            return None
        pixels = inputs["pixel_values"]
        if self.strategy == "mean":
            return pixels.mean((2, 3), keepdim=True)
        grid = patch_grid(pixels, self.model.config)
        return blur(pixels, [side // cells / 2 for side, cells in zip(pixels.shape[2:], grid, strict=True)])

    def __call__(self, inputs: dict[str, Tensor], keep: Tensor, ground: Tensor | None = None) -> dict[str, Tensor]:
        """The inputs without some tokens.

        Args:
            inputs: what the model's `forward` takes, B samples.
            keep: bool [B, N], N as `atom_importance` has it. Where there is no token to mask (NaN there), it says nothing.
            ground: `ground(inputs)`, where it is known already.

        Returns:
            New inputs of B samples; for "drop" as long as the longest that is left.

        Raises:
            AtomError: a model whose tokens cannot be masked.
        """
        keep = keep.to(torch.bool) | ~self.tokens(inputs, keep.shape[1])
        if self.is_image:
            ground = self.ground(inputs) if ground is None else ground
            return {**inputs, "pixel_values": self._paint(inputs["pixel_values"], keep, ground)}
        if self.strategy == "mask":
            ids = inputs["input_ids"]
            return {**inputs, "input_ids": ids.masked_fill(~keep, self.mask_id)}
        return self._drop(inputs, keep)

    def _drop(self, inputs: dict[str, Tensor], keep: Tensor) -> dict[str, Tensor]:
        ids = inputs["input_ids"]
        attention = inputs.get("attention_mask")
        attention = torch.ones_like(ids) if attention is None else attention
        left = keep & attention.bool()
        # What is left comes first, or last where padding is on the left, in its order.
        order = (left if self.pads_left else ~left).to(torch.uint8).argsort(dim=1, stable=True)
        length = max(1, int(left.sum(1).max()))
        order = order[:, -length:] if self.pads_left else order[:, :length]
        real = left.gather(1, order)
        new = {
            name: value.gather(1, order).masked_fill(~real, 0)
            for name, value in inputs.items()
            if torch.is_tensor(value) and value.shape == ids.shape and name != "position_ids"
        }
        new["input_ids"] = ids.gather(1, order).masked_fill(~real, self.pad_id)
        # A text of which nothing is left is one masked word: no model reads an empty sequence.
        empty = ~real.any(1)
        place = -1 if self.pads_left else 0
        new["input_ids"][empty, place] = self.mask_id
        real[empty, place] = True
        new["attention_mask"] = real.to(attention.dtype)
        rest = {name: value for name, value in inputs.items() if name not in new and name != "position_ids"}
        return {**rest, **new}

    def _paint(self, pixels: Tensor, keep: Tensor, ground: Tensor) -> Tensor:
        grid = patch_grid(pixels, self.model.config)
        shown = on_pixels(keep[:, keep.shape[1] - grid[0] * grid[1] :].float(), pixels, grid) > 0
        return torch.where(shown[:, None], pixels, ground)


def on_pixels(values: Tensor, pixels: Tensor, grid: tuple[int, int]) -> Tensor:
    """Values of patches [B, rows * columns] on the pixels of images [B, C, H, W]: [B, H, W].

    Pixels after the last whole patch, which belong to no patch, have 1.
    """
    rows, columns = grid
    height, width = pixels.shape[2] // rows, pixels.shape[3] // columns
    spread = values.view(-1, rows, columns).repeat_interleave(height, 1).repeat_interleave(width, 2)
    return F.pad(spread, (0, pixels.shape[3] - spread.shape[2], 0, pixels.shape[2] - spread.shape[1]), value=1.0)


def of_patches(values: Tensor, grid: tuple[int, int]) -> Tensor:
    """Sums of values of pixels [B, C, H, W] over the pixels and channels of each patch: [B, rows * columns]."""
    height, width = values.shape[2] // grid[0], values.shape[3] // grid[1]
    inside = values[:, :, : height * grid[0], : width * grid[1]].sum(1)
    return inside.reshape(len(values), grid[0], height, grid[1], width).sum((2, 4)).flatten(1)


def blur(pixels: Tensor, deviations: list[float]) -> Tensor:
    """Images [B, C, H, W] under a Gaussian of these standard deviations (down, across) in pixels; edges are extended."""
    channels = pixels.shape[1]
    for axis, deviation in enumerate(deviations):
        reach = math.ceil(3 * deviation)
        places = torch.arange(-reach, reach + 1, dtype=pixels.dtype, device=pixels.device)
        weights = torch.exp(-(places**2) / (2 * deviation**2))
        shape, room = ((-1, 1), (0, 0, reach, reach)) if axis == 0 else ((1, -1), (reach, reach, 0, 0))
        kernel = (weights / weights.sum()).view(1, 1, *shape).expand(channels, 1, -1, -1)
        pixels = F.conv2d(F.pad(pixels, room, mode="replicate"), kernel, groups=channels)
    return pixels


def masked_logits(
    model: Any, masker: Masker, inputs: dict[str, Tensor], sample: Tensor, keep: Tensor, rows: int = ROWS
) -> Tensor:
    """The logits of samples with some of their tokens alone, whichever of them and as often as is asked for.

    Args:
        model: the classifier, in eval mode.
        masker: of the strategy by which the others are masked.
        inputs: what the model's `forward` takes, B samples.
        sample: int [R], which of them each row is of.
        keep: bool [R, N].
        rows: how many go through the model at once.

    Returns:
        [R, C].
    """
    ground, parts, places = masker.ground(inputs), [], []
    # Deleted tokens shorten a text: alike ones go together.
    for some in keep.sum(1).argsort().split(rows):
        each = sample[some]
        its = {name: value[each] for name, value in inputs.items()}
        parts.append(logits_of(model(**masker(its, keep[some], None if ground is None else ground[each]))))
        places.append(some)
    return torch.cat(parts)[torch.cat(places).argsort()]


def class_probability(logits: Tensor, classes: Tensor) -> Tensor:
    """The probability of a class [B] of each row of logits [B, C]: [B]."""
    return logits.float().softmax(-1).gather(1, classes[:, None])[:, 0]
