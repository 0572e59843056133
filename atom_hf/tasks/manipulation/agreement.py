"""Whether an edit changes what the classifier finds important: the share of changed patches among the most important."""

from typing import Any

import torch
from torch import Tensor, nn

from ...utils.statistics import t_interval
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


def edit_agreement(module: nn.Module, rows: LabelledRows, edits: Edits, reference: LabelledRows) -> dict[str, Any]:
    """The share of an edit's most changed patches that were among the most important for the class that the row had.

    Args:
        module: the classifier, from pixels to logits.
        reference: rows whose mean a hidden patch shows.

    Returns:
        agreement: the mean over rows, each over its edits; low, high: its 95 % t interval; chance: what patches chosen at
        random would give; patches: how many there are.
    """
    values, side = rows.floats, patch_side(*rows.values.shape[2:])
    important = occlusion(module, values, rows.labels, side, reference.floats.mean(0))
    changed = patch_changes(values[edits.source], edits.values, side)
    patches = important.shape[1]
    count = max(1, round(TOP * patches))
    top = torch.zeros_like(important).scatter(1, important.topk(count, 1).indices, 1.0)
    hits = top[edits.source].gather(1, changed.topk(count, 1).indices).mean(1)
    per_row = [float(hits[edits.source == row].mean()) for row in range(len(rows))]
    mean, low, high = t_interval(per_row)
    return {"agreement": mean, "low": low, "high": high, "chance": count / patches, "patches": patches, "top": count}
