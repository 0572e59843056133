"""Pages of samples under their importance: what `atom-hf explain` writes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from .data import TaskData
from .errors import AtomError
from .importance import read_images, read_texts
from .loading import load_atom_model
from .run import RunArguments, check_page, load_run_data
from .show import write_page, write_sheet, write_words
from .tasks import EMBEDDED_MODELS, load_processor


@dataclass
class ExplainArguments:
    """What a page shows."""

    text: list[str] = field(default_factory=list, metadata={"help": "Texts to show, instead of a data set."})
    samples: int = field(default=24, metadata={"help": "How many evaluation samples of the data set to show."})
    page: str = field(default="importance.html", metadata={"help": "Where to write the page; a PNG goes beside it."})


def explain_model(run: RunArguments, options: ExplainArguments) -> Path:
    """Writes a page of samples under the importance of their tokens, as the heads of a trained model see it.

    Raises:
        AtomError: no model, neither or both of data and texts, a model without heads.
    """
    if run.model is None:
        raise AtomError("give --model: a folder or Hub id of a model that was trained with --atom")
    if (run.dataset is None) == (not options.text):
        raise AtomError("give --dataset or --text, one of them")
    if options.samples < 1:
        raise AtomError(f"--samples must be at least 1, got {options.samples}")
    check_page(options.page)
    if run.model in EMBEDDED_MODELS:
        raise AtomError(f"--model {run.model!r} has no heads yet: train it with --atom, and give the folder it went to")
    model = load_atom_model(run.model, revision=run.model_revision)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    if options.text:
        tokenizer = load_processor(run.model, False, revision=run.model_revision)
        shown = {"texts": read_texts(model, tokenizer, options.text)}
    else:
        data = load_run_data(run)
        processor = load_processor(run.model, data.task == "image-classification", revision=run.model_revision)
        shown = read_samples(model, processor, data, options.samples)
    written = write_page(options.page, title=f"Token importance: {run.model}", **shown)
    write_picture(Path(options.page).with_suffix(".png"), shown)
    return written


def read_samples(model: Any, processor: Any, data: TaskData, samples: int) -> dict[str, list]:
    """Readings of so many evaluation samples, drawn with a fixed seed, as `write_page` takes them."""
    rows = data.eval.shuffle(seed=0).select(range(min(samples, len(data.eval))))
    labels = [data.labels[i] for i in rows["label"]] if data.labels else None
    if data.task == "image-classification":
        return {"images": read_images(model, processor, list(rows["image"]), labels)}
    pairs = list(rows["text_pair"]) if "text_pair" in rows.column_names else None
    return {"texts": read_texts(model, processor, list(rows["text"]), labels, pairs=pairs)}


def write_picture(path: Path, shown: dict[str, list]) -> None:
    """Writes the same readings as one PNG."""
    if shown.get("images"):
        write_sheet(path, shown["images"])
    elif shown.get("texts"):
        write_words(path, shown["texts"])
