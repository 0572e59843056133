"""Importance by masking the tokens of a sample one by one: for any target, at a forward pass for each token.

    q_i = v(all) - v(all but i)

v is the value of a target (`targets.py`), such as a probability. The number of a regression has no bounds: where one of a
sample's changes is beyond 1, all of them are divided by the largest. This is what occlusion measures (Zeiler and Fergus, arXiv
1311.2901), and it knows no interaction between tokens: where two say the same, neither of them counts.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import AtomError
from ..explainer.masking import IMAGE_MASKING, TEXT_MASKING, Masker
from ..modeling.inference import evaluating
from ..modeling.layers import is_image_model, text_config
from ..modeling.tokens import patch_grid
from .cells import CellMasker, cells_of
from .targets import Inputs, Target, find_target

ROWS = 128
"""How many masked copies go through the model at once."""


@dataclass(frozen=True)
class MaskedImportance:
    """What masking says of one target of each of B samples."""

    importance: Tensor
    """[B, N] in [-1, 1], nan where nothing can be masked."""
    names: list[str]
    """What the targets are of."""
    everything: Tensor
    """[B]: the value of the target."""
    nothing: Tensor
    """[B]: its value with all tokens masked that can be."""
    is_predicted: list[bool]
    """Whether the target is what the model itself predicts."""


@torch.no_grad()
def masked_importance(
    model: Any, processor: Any, inputs: Inputs, target: Any = None, strategy: str | None = None
) -> MaskedImportance:
    """The importance of each token or patch of a batch, by masking it.

    Args:
        model: with atoms or without; of texts, or of images.
        processor: its tokenizer or image processor.
        inputs: [B, N] and [B, C, H, W], as the model's `forward` takes them. Padding is left out.
        target: see `targets`; a list of them for one each.
        strategy: one of `explainer.masking.TEXT_MASKING` or `IMAGE_MASKING` that keeps tokens in their places; by default the
            mask token, or the mean colour.

    Returns:
        N is the length of `input_ids`. Of images it is the number of patches, without tokens before them; of a model that has
        none, such as a Swin or a ResNet, that of the cells of `cells.cells_of`.

    Raises:
        AtomError: a target that the model does not have, or tokens that cannot be masked.
    """
    inputs = {
        name: value.to(model.device) for name, value in inputs.items() if torch.is_tensor(value) and name != "labels"
    }
    samples = len(next(iter(inputs.values())))
    targets = target if isinstance(target, list) else [target] * samples
    if len(targets) != samples:
        raise AtomError(f"target: {len(targets)} for {samples} samples; give one, or a list of one each")
    reader = MaskingReader(model, processor, strategy)
    with evaluating(model):
        found = [
            reader.read({name: value[i : i + 1] for name, value in inputs.items()}, targets[i]) for i in range(samples)
        ]
    importance, goals, everything, nothing = zip(*found, strict=True)
    return MaskedImportance(
        torch.stack(importance),
        [goal.name for goal in goals],
        torch.stack(everything),
        torch.stack(nothing),
        [goal.is_predicted for goal in goals],
    )


class MaskingReader:
    """Masks the tokens of single samples. The arguments are those of `masked_importance`."""

    def __init__(self, model: Any, processor: Any, strategy: str | None = None):
        self.model, self.processor = model, processor
        self.is_image = is_image_model(model)
        if not self.is_image and model.main_input_name != "input_ids":
            raise AtomError(
                f"{type(model).__name__} takes {model.main_input_name}, which cannot be masked: give a model of texts or images"
            )
        if not self.is_image and processor is None:
            raise AtomError("processing_class: give the tokenizer, which knows what stands for a masked token")
        strategy = strategy or next(iter(IMAGE_MASKING if self.is_image else TEXT_MASKING))
        if strategy == "drop":
            raise AtomError("strategy 'drop' moves tokens from their places, where a target may be; give 'mask'")
        self.strategy = strategy
        # A classifier that finds its last token by the padding takes one text at a time where it has none.
        alone = not self.is_image and text_config(model.config).pad_token_id is None and not model.can_generate()
        self.rows = 1 if alone else ROWS

    def read(self, inputs: Inputs, target: Any) -> tuple[Tensor, Target, Tensor, Tensor]:
        """(importance [N], target, value, value of nothing) of one sample [1, N]."""
        real = None
        if not self.is_image and (attention := inputs.get("attention_mask")) is not None:
            real = attention[0].bool()
            shape = inputs["input_ids"].shape
            inputs = {name: value[:, real] if value.shape == shape else value for name, value in inputs.items()}
        goal, tokens, masker = self.prepare(inputs, target)
        places = tokens[0].nonzero()[:, 0]
        keep = torch.ones(len(places) + 2, tokens.shape[1], dtype=torch.bool, device=tokens.device)
        keep[1, places] = False
        keep[torch.arange(len(places)) + 2, places] = False
        values = self.values(goal, masker, keep)
        changes = values[0] - values[2:]
        if len(changes) and (most := changes.abs().max()) > 1:
            changes = changes / most
        found = torch.full((tokens.shape[1],), math.nan, device=values.device)
        found[places] = changes
        if not self.is_image:
            found = found[: inputs["input_ids"].shape[1]]
        if real is not None:
            whole = torch.full(real.shape, math.nan, device=values.device)
            whole[real] = found
            found = whole
        return found, goal, values[0], values[1]

    def prepare(self, inputs: Inputs, target: Any) -> tuple[Target, Tensor, Any]:
        """The target of one sample [1, N]; which tokens of its inputs can be masked, bool [1, M]; and what masks them."""
        goal = find_target(self.model, self.processor, inputs, target)
        tokens, masker = self._tokens(goal.inputs)
        if not self.is_image:
            tokens[:, inputs["input_ids"].shape[1] :] = False  # a continuation is what is explained
        return goal, tokens, masker

    def values(self, goal: Target, masker: Any, keep: Tensor) -> Tensor:
        """The values [K] of a target with the tokens alone that `keep` says, bool [K, M]. Raises `AtomError` if not finite."""
        found = []
        for part in keep.split(self.rows):
            copies = {name: value.expand(len(part), *value.shape[1:]) for name, value in goal.inputs.items()}
            found.append(goal.value(self.model(**masker(copies, part))))
        values = torch.cat(found)
        if not values.isfinite().all():
            raise AtomError(f"model: {type(self.model).__name__} gives numbers that are not finite (NaN or infinity)")
        return values

    def _tokens(self, inputs: Inputs) -> tuple[Tensor, Any]:
        """Which tokens can be masked, bool [1, N], and what masks them."""
        if not self.is_image:
            masker = Masker(self.model, self.processor, self.strategy)
            return masker.tokens(inputs, inputs["input_ids"].shape[1]), masker
        grid = cells_of(self.model, inputs["pixel_values"])
        masker = CellMasker(grid, self.strategy)
        if patch_grid(inputs["pixel_values"], self.model.config) == grid:
            masker = Masker(self.model, self.processor, self.strategy)
        return torch.ones(1, grid[0] * grid[1], dtype=torch.bool, device=self.model.device), masker
