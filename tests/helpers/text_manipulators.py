"""A small classifier of made-up sentences and an editor made of it."""

import functools
import tempfile

import torch

from atom_hf.tasks.manipulation.arguments import ManipulatorArguments
from atom_hf.tasks.manipulation.texts.classifier import TextClassifier
from atom_hf.tasks.manipulation.texts.rows import TextRows, padded, token_ids
from atom_hf.tasks.manipulation.texts.train import manipulate_texts

from .models import make_tokenizer, tiny

NAMES = ["calm", "rough"]

SAYS = (("bliss", "lovely", "comfort"), ("foes", "seized", "arms"))
"""The words that tell the classes apart."""

OTHERS = ("the", "of", "when", "they", "that", "his", "with", "and", "all", "things", "day", "to")


@functools.cache
def sentences(count, seed):
    """Sentences of eight words, of which two tell the class."""
    generator, texts, labels = torch.Generator().manual_seed(seed), [], []
    for row in range(count):
        words = [OTHERS[int(i)] for i in torch.randint(len(OTHERS), (8,), generator=generator)]
        for place in torch.randperm(8, generator=generator)[:2].tolist():
            words[place] = SAYS[row % 2][int(torch.randint(3, (), generator=generator))]
        texts.append(" ".join(words))
        labels.append(row % 2)
    return TextRows(texts, torch.tensor(labels))


@functools.cache
def text_classifier():
    """A BERT that reads them, trained by hand."""
    tokenizer, rows = make_tokenizer(), sentences(200, 0)
    model = tiny("bert", num_labels=2, id2label=dict(enumerate(NAMES)), label2id={n: i for i, n in enumerate(NAMES)})
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    batch = padded(token_ids(rows.texts, tokenizer, 48))
    for _ in range(80):
        logits = model(input_ids=batch.ids, attention_mask=batch.mask).logits
        loss = torch.nn.functional.cross_entropy(logits, rows.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return TextClassifier(model.eval(), tokenizer, NAMES, "org/sentences")


def few_steps(folder, **more):
    """Arguments of a run that takes a second or two."""
    options = {
        "max_steps": 150, "per_device_train_batch_size": 32, "learning_rate": 2e-3, "logging_steps": 150,
        "save_strategy": "no", "report_to": "none", "use_cpu": True, "disable_tqdm": True, **more,
    }  # fmt: skip
    return ManipulatorArguments(str(folder), **options)


@functools.cache
def made_of_texts():
    """The editor, and the filler that it was before."""
    with tempfile.TemporaryDirectory() as folder:
        return manipulate_texts(
            text_classifier(), sentences(200, 0), sentences(60, 1), filling_steps=60, dataset="sentences",
            args=few_steps(folder),
        )  # fmt: skip
