"""Judges of edited texts: classifiers of another architecture, that learned from texts which the editor never saw."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ....errors import AtomError
from ....modeling.inference import default_device
from ...boxes import TextModel
from ..judge import check_judge_rows
from .classifier import load_text_classifier
from .rows import BATCH, TextRows, padded, token_ids

USUAL = "linear"


class TextJudge(NamedTuple):
    """What reads the classes of edited texts."""

    name: str
    read: Callable[[Sequence[str]], Tensor]
    """From texts to the ids [N] of their classes."""

    def accuracy(self, rows: TextRows) -> float:
        """The share of texts whose class it reads."""
        return float((self.read(rows.texts) == rows.labels).float().mean())


def make_text_judge(name: str, rows: TextRows, labels: list[str], max_length: int = 128) -> TextJudge:
    """A judge that learned from texts.

    Args:
        name: "linear" (logistic regression of words and pairs of words, by tf-idf), or the folder or Hub id of a classifier,
            which learns nothing here.

    Raises:
        AtomError: no such judge; a class of which there is no text.
    """
    if name == USUAL:
        check_judge_rows(rows, labels)
        return TextJudge(name, _linear(rows))
    try:
        found = load_text_classifier(name, labels)
    except AtomError as error:
        raise AtomError(str(error).replace("--classifier", "--judge", 1)) from error
    device = default_device()
    get, order = TextModel(found.model.to(device).eval()), torch.tensor([labels.index(label) for label in found.labels])

    @torch.no_grad()
    def read(texts: Sequence[str]) -> Tensor:
        ids = token_ids(texts, found.tokenizer, max_length)
        parts = [ids[start : start + BATCH] for start in range(0, len(ids), BATCH)]
        return order[torch.cat([get(padded(part, device))["logits"].argmax(1).cpu() for part in parts])]

    return TextJudge(name, read)


def _linear(rows: TextRows) -> Callable[[Sequence[str]], Tensor]:
    from sklearn.feature_extraction.text import TfidfVectorizer  # takes a second to import
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    features = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+|[^\w\s]")
    model = make_pipeline(features, LogisticRegression(C=10.0, max_iter=1000)).fit(rows.texts, rows.labels.numpy())
    return lambda texts: torch.as_tensor(model.predict(list(texts)))
