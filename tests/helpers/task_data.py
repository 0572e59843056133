"""A little data of each task, and tiny models for it."""

import datasets

from atom_hf.data.load import TaskData

TINY_GPT2 = {"n_embd": 8, "n_layer": 1, "n_head": 1, "n_positions": 32}
TINY_BERT = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
TINY_VIT = {**TINY_BERT, "image_size": 8, "patch_size": 4}
LINES = ["The sea is calm to-night.", "The tide is full, the moon lies fair", "Upon the straits; — on the French coast"]


def text_data(texts, labels=None, pairs=None, names=("no", "yes")):
    columns = {"text": texts}
    if pairs is not None:
        columns["text_pair"] = pairs
    rows = datasets.Dataset.from_dict(columns)
    if labels is None:
        return TaskData("lines", "causal-lm", rows, rows, None)
    rows = rows.add_column("label", labels, feature=datasets.ClassLabel(names=list(names)))
    return TaskData("lines", "text-classification", rows, rows, list(names))


def image_data(images, names=("no", "yes")):
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(names))}
    columns = {"image": images, "label": [i % 2 for i in range(len(images))]}
    rows = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    return TaskData("pictures", "image-classification", rows, rows, list(names))
