"""Whether an edit changes what the classifier finds important: the share of changed patches among the most important."""

from typing import Any

import torch
from torch import Tensor, nn

from ...finetune.pretrained import find_model, load_processor
from ...importance.read import read_images
from ...modeling.heads_file import read_heads_config
from ...modeling.load import load_atom_model
from ...utils.statistics import t_interval
from ...visualization.edits_picture import picture_of
from ..saved_boxes import is_saved_box
from .evaluation import Edits
from .manipulator import logits_of
from .rows import LabelledRows

TOP = 0.25  # the share of patches that count as changed, and as important

GRID = 7  # patches of a side, at most


def patch_side(height: int, width: int) -> int:
    """Pixels of a side of a patch: the least that divides both sides into at most `GRID` patches, or about that."""
    for side in range(1, max(height, width) + 1):
        if height % side == width % side == 0 and max(height, width) // side <= GRID:
            return side
    return max(height, width)


@torch.no_grad()
def occlusion(module: nn.Module, values: Tensor, classes: Tensor, side: int, fill: Tensor) -> Tensor:
    """How much the probability of a class falls when a patch is hidden, [N, patches], row by row (Zeiler and Fergus, 2014).

    Args:
        module: from pixels [N, c, h, w] to logits.
        classes: [N] ids.
        side: pixels of a side of a patch.
        fill: [c, h, w], what a hidden patch shows.
    """
    device = next(module.parameters()).device

    def read(pixels: Tensor) -> Tensor:
        return logits_of(module, pixels.to(device)).softmax(1).cpu().gather(1, classes[:, None])[:, 0]

    whole, drops = read(values), []
    for top in range(0, values.shape[2], side):
        for left in range(0, values.shape[3], side):
            hidden, place = values.clone(), (..., slice(top, top + side), slice(left, left + side))
            hidden[place] = fill[place]
            drops.append(whole - read(hidden))
    return torch.stack(drops, 1)


def patch_changes(before: Tensor, after: Tensor, side: int) -> Tensor:
    """The mean absolute change of each patch, [N, patches], in the order of `occlusion`."""
    change = (after - before).abs().mean(1, keepdim=True)
    return nn.functional.avg_pool2d(change, side).flatten(1)


def fitted_importance(source: str, rows: LabelledRows, side: int) -> Tensor | None:
    """The importance that was fitted to a classifier's prediction, [N, patches], in the order of `occlusion`.

    None where the classifier has none: a learner of a task, or a model without an explainer.

    Args:
        source: the classifier's folder or Hub id.
        rows: of pixels.
        side: pixels of a side of a patch.
    """
    if is_saved_box(source):
        return None
    folder = find_model(source)
    config = read_heads_config(folder)
    if config is None or not config.has_explainer:
        return None
    model, processor = load_atom_model(folder), load_processor(folder, True, "--classifier")
    found = read_images(model, processor, [picture_of(pixels.numpy()) for pixels in rows.floats])
    pixels = torch.stack([torch.as_tensor(one.on_pixels()) for one in found]).nan_to_num(0.0)
    return nn.functional.avg_pool2d(pixels[:, None], side).flatten(1)


def edit_agreement(
    module: nn.Module, rows: LabelledRows, edits: Edits, reference: LabelledRows, source: str | None = None
) -> dict[str, Any]:
    """The share of an edit's most changed patches that were among the most important for the class that the row had.

    Args:
        module: the classifier, from pixels to logits.
        reference: rows whose mean a hidden patch shows.
        source: the classifier's folder or Hub id, whose fitted importance is read if it has one.

    Returns:
        agreement: the mean over rows, each over its edits; low, high: its 95 % t interval; chance: what patches chosen at
        random would give; patches: how many there are, and top, how many of them count; importance: "fitted" to the
        classifier's prediction, or by "occlusion".
    """
    values, side = rows.floats, patch_side(*rows.values.shape[2:])
    fitted = None if source is None else fitted_importance(source, rows, side)
    important = occlusion(module, values, rows.labels, side, reference.floats.mean(0)) if fitted is None else fitted
    changed = patch_changes(values[edits.source], edits.values, side)
    patches = important.shape[1]
    count = max(1, round(TOP * patches))
    top = torch.zeros_like(important).scatter(1, important.topk(count, 1).indices, 1.0)
    hits = top[edits.source].gather(1, changed.topk(count, 1).indices).mean(1)
    per_row = [float(hits[edits.source == row].mean()) for row in range(len(rows))]
    mean, low, high = t_interval(per_row)
    kind = "occlusion" if fitted is None else "fitted"
    shares = {"agreement": mean, "low": low, "high": high, "chance": count / patches}
    return {**shares, "patches": patches, "top": count, "importance": kind}
