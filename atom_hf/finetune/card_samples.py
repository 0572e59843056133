"""What a model's card shows of the evaluation data: rows with their prediction, a picture of their importance, each class."""

from pathlib import Path
from typing import Any

import numpy as np

from ..data.load import TaskData
from ..errors import AtomError
from ..hub.card import ClassResult, Example
from ..importance.read import read_samples
from ..utils.pictures import eight_bit
from ..utils.terminal import get_logger
from ..visualization.pictures import png, save, write_sheet, write_words

logger = get_logger(__name__)

PICTURE_NAME, SAMPLE_NAME = "importance.png", "sample.png"

PICTURED = 8  # samples on the picture

LONGEST = 300  # letters of a text on the picture: it is looked at, not read


def class_results(chosen: np.ndarray, truth: np.ndarray, labels: list[str]) -> list[ClassResult]:
    """Precision, recall and F1 of each class of `labels`, from predicted and true classes [n]; 0 where undefined."""
    from sklearn.metrics import precision_recall_fscore_support

    found = precision_recall_fscore_support(truth, chosen, labels=range(len(labels)), zero_division=0)
    return [
        ClassResult(name, int(count), float(precision), float(recall), float(f1))
        for name, precision, recall, f1, count in zip(labels, *found, strict=True)
    ]


def sample_facts(model: Any, processor: Any, data: TaskData, count: int, folder: str | Path) -> dict[str, Any]:
    """Facts of the card on samples, by the names of `CardFacts`; writes their picture, and one picture alone, to the folder.

    Args:
        model: with its heads, on one process.
        processor: its tokenizer or image processor.
        data: whose evaluation rows are drawn from.
        count: of rows in the card; 0 for none, and no picture.
        folder: that of the model.

    Returns nothing of a model that has no importance to be read (of a decoder's side, a slow tokenizer), and says why.
    """
    if count < 1:
        return {}
    try:
        shown = read_samples(model, processor, data, max(count, PICTURED))
    except AtomError as error:
        logger.info("the card shows no samples: %s", error)
        return {}
    fitted, folder = model.atom_config.has_explainer, Path(folder)
    if images := shown.get("images"):
        write_sheet(folder / PICTURE_NAME, images[:PICTURED], fitted=fitted)
        save(folder / SAMPLE_NAME, png(eight_bit(images[0].image)))
        return {"picture": PICTURE_NAME, "sample_picture": SAMPLE_NAME}
    texts = shown["texts"]
    short = [text for text in texts if len(text.text) + len(text.pair or "") <= LONGEST][:PICTURED]
    if short:
        write_words(folder / PICTURE_NAME, short, fitted=fitted)
    examples = [
        Example(each.text, each.pair, each.predicted, each.label, each.confidence) for each in (short or texts)[:count]
    ]
    return {"examples": examples, "picture": PICTURE_NAME if short else None}
