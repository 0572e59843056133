"""Features of rows: the input of a classifier's output layer, in evaluation."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import datasets
import numpy as np
import torch

from ..errors import AtomError
from ..finetune.run import Prepared
from ..modeling.output_layer import OutputLayer, Read, find_output_layer, watching

BATCH = {True: 250, False: 32}  # rows in a forward pass, of images and of texts

KEPT, MOST_BYTES = 8, 2**26  # tables of encoded images that are kept, and the size of one that is

_kept: OrderedDict[tuple, list[dict[str, Any]]] = OrderedDict()


def encode(prepared: Prepared, rows: datasets.Dataset) -> Sequence[dict[str, Any]]:
    """Rows as the model's inputs, without augmentation. Small tables of images are decoded once for all runs of a process."""
    encoded = prepared.task.encode(rows)
    if not prepared.data.is_image or not len(rows):
        return encoded
    processor, channels = prepared.task.processing_class, getattr(prepared.task.model.config, "num_channels", None)
    if encoded[0]["pixel_values"].nbytes * len(rows) > MOST_BYTES:
        return encoded
    key = (rows._fingerprint, str(processor), channels)
    if key not in _kept:
        whole = encoded[:]
        names = list(whole)
        _kept[key] = [dict(zip(names, row, strict=True)) for row in zip(*whole.values(), strict=True)]
        while len(_kept) > KEPT:
            _kept.popitem(last=False)
    _kept.move_to_end(key)
    return _kept[key]


def same_inputs(one: datasets.Dataset, other: datasets.Dataset) -> bool:
    """Whether two tables have the same images or texts in the same order, whatever their labels."""

    def raw(rows: datasets.Dataset) -> dict[str, list]:
        rows = rows.select_columns([name for name in rows.column_names if name != "label"])
        return (rows.cast_column("image", datasets.Image(decode=False)) if "image" in rows.column_names else rows)[:]

    return len(one) == len(other) and raw(one) == raw(other)


@torch.no_grad()
def read_outputs(prepared: Prepared, encoded: Sequence[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits [n, classes], labels [n] and features [n, h] of encoded rows, in evaluation.

    The features of a row are what the output layer reads of it; where that is several tokens, their mean. Labels may be other
    ones than the model's classes.
    """
    trainer = prepared.trainer
    model = trainer.accelerator.unwrap_model(trainer.model)
    model.eval()
    order = np.arange(len(encoded))
    if not prepared.data.is_image:
        # Texts of one length make a batch: less to pad.
        order = np.argsort([len(ids) for ids in encoded["input_ids"]], kind="stable")
    layer: OutputLayer | None = None
    logits, features, labels = [], [], []
    for part in np.array_split(order, max(1, -(-len(order) // BATCH[prepared.data.is_image]))):
        rows = [dict(encoded[int(i)]) for i in part]
        labels += [row.pop("labels") for row in rows]
        batch = trainer._prepare_inputs(prepared.task.collator(rows))
        with trainer.compute_loss_context_manager(), watching(model, layer) as read:
            found = model(**batch)["logits"]
        layer = layer or find_output_layer(model, read, found)
        if layer is None:
            raise AtomError(f"{type(model).__name__} has no output layer whose input could be its latent")
        logits.append(found.float().cpu())
        features.append(features_of(read, layer, found).float().cpu())
    place = np.argsort(order)
    return torch.cat(logits).numpy()[place], np.array(labels)[place], torch.cat(features).numpy()[place]


def features_of(read: Read, layer: OutputLayer, logits: torch.Tensor) -> torch.Tensor:
    """What the output layer reads of each sample, [B, d]: of several tokens, their mean."""
    tokens, mask = read.tokens(layer, logits)
    if mask is None:
        return tokens.mean(1)
    weights = mask.unsqueeze(-1).to(tokens.dtype)
    return (tokens * weights).sum(1) / weights.sum(1).clamp(min=1)
