"""What a classifier's output layer reads, as vectors to edit: the layer is then the classifier, and its body stands still."""

from typing import Any

import datasets
import torch
from torch import nn
from tqdm.auto import tqdm

from ...data.encoding import encode_rows
from ...errors import AtomError
from ...finetune.pretrained import find_model, load_network, load_processor, read_config
from ...modeling.inference import default_device
from ...modeling.output_layer import OutputLayer, find_output_layer, watching
from ..kinds import Kind
from .classifier import Classifier, make_classifier, ordered_labels
from .rows import LabelledRows

BATCH = 64


class Body:
    """A classifier of texts or images of Transformers, whose output layer is linear.

    Args:
        source: its folder, Hub id or built-in name.
        labels: the names of the data's classes.
        is_image: whether the rows are images.

    Raises:
        AtomError: there is none, or it is no classifier of one class each, or has other classes.
    """

    def __init__(
        self, source: str, labels: list[str], is_image: bool, revision: str | None = None, max_length: int = 128
    ):
        where, folder, options = (
            f"--classifier {source!r}",
            find_model(source),
            {"revision": revision} if revision else {},
        )
        try:
            config = read_config(folder, options)
            labels = ordered_labels(config, labels, where)
            task = "image-classification" if is_image else "text-classification"
            self.model = load_network(folder, task, {}, None, options).float().to(default_device()).eval()
        except AtomError as error:
            raise AtomError(str(error).replace(f"--model {folder!r}", where, 1)) from error
        self.processor = load_processor(folder, is_image, "--classifier", **options)
        self.where, self.max_length, self.labels = where, max_length, labels
        self.name, self.revision = source, getattr(config, "_commit_hash", None) or revision
        self.layer: OutputLayer | None = None

    @torch.no_grad()
    def read(self, rows: datasets.Dataset) -> LabelledRows:
        """The vectors [N, d] that the output layer reads of rows, and their labels. Raises `AtomError`."""
        found = []
        for start in tqdm(range(0, len(rows), BATCH), desc="reading", unit="batch", leave=False):
            batch = [rows[index] for index in range(start, min(start + BATCH, len(rows)))]
            found.append(self._read([{key: row[key] for key in row if key != "label"} for row in batch]))
        return LabelledRows(torch.cat(found), torch.tensor(rows["label"]))

    def classifier(self) -> Classifier:
        """The output layer, from vectors to logits; after `read`."""
        layer, form = self.model.get_submodule(self.layer.name), {"architecture": "linear"}
        module = make_classifier(form, Kind("vector", (layer.in_features,)), len(self.labels))
        own = module.layers[0]
        own.weight.data.copy_(layer.weight.data)
        own.bias.data.copy_(torch.zeros_like(own.bias) if layer.bias is None else layer.bias.data)
        return Classifier(module, form, self.labels, self.name, self.revision)

    def _read(self, rows: list[dict[str, Any]]) -> torch.Tensor:
        inputs = encode_rows(rows, self.model, self.processor, self.max_length)
        with watching(self.model, self.layer) as read:
            logits = self.model(**inputs)["logits"]
        if self.layer is None:
            self.layer = find_output_layer(self.model, read, logits)
            if self.layer is None or not isinstance(self.model.get_submodule(self.layer.name), nn.Linear):
                raise AtomError(
                    f"{self.where} has no linear output layer, whose inputs --put residual edits; give --put steer"
                )
        tokens, mask = read.tokens(self.layer, logits)
        if mask is not None:
            tokens = tokens[torch.arange(len(tokens)), mask.int().argmax(1)][:, None]
        if tokens.shape[1] != 1:
            raise AtomError(
                f"{self.where}: its output layer reads several vectors of a row, and --put residual edits one"
            )
        return tokens[:, 0].float().cpu()
