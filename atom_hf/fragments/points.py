"""The data points that channels are read for: rows of a data set, texts, images or ready batches of inputs, each with an id."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import datasets
import numpy as np
import torch
from PIL import Image

from ..data.encoding import encode_rows
from ..data.load import TaskData, load_data
from ..errors import AtomError
from ..modeling.layers import is_image_model
from ..modeling.own_outputs import takes
from ..utils.pictures import in_mode
from .augmentation import Augmentation

_COLUMNS = ("text", "text_pair", "image")


@dataclass(frozen=True)
class Points:
    """Samples to read channels for: rows that are encoded, or batches of inputs that are given as they are."""

    rows: Any = None
    """A `datasets.Dataset` or a list of rows ("text" and optionally "text_pair", or "image"); None for ready batches."""
    batches: Sequence[Mapping[str, Any]] = ()
    labels: np.ndarray | None = None
    """int [samples], the class of each, where the data say."""
    names: list[str] = field(default_factory=list)
    """Of the classes."""

    @property
    def count(self) -> int:
        """The number of rows, or of ready batches."""
        return len(self.rows if self.rows is not None else self.batches)

    @property
    def is_image(self) -> bool:
        """Whether the rows are images."""
        return self.rows is not None and "image" in self.rows[0]

    def ids(self) -> list[str]:
        """Of the rows: their number, and a few letters that tell contents apart."""
        return [name for start in range(len(self.rows)) for name in _ids([self.rows[start]], start)]

    def inputs(
        self, model: Any, processor: Any, max_length: int, batch_size: int, augmentation: Augmentation | None = None
    ) -> Iterator[tuple[list[str] | None, Iterator[dict[str, Any]]]]:
        """Batches as (ids of their samples, the inputs on the model's device: once, or once for each augmented copy).

        Of ready batches the ids are None: how many samples they are, the model says.
        """
        if self.rows is None:
            for batch in self.batches:
                yield None, iter([{name: _on(value, model.device) for name, value in batch.items()}])
            return
        for start in range(0, len(self.rows), batch_size):
            rows = [self.rows[place] for place in range(start, min(start + batch_size, len(self.rows)))]
            ids = _ids(rows, start)
            copies = [rows] if augmentation is None else augmentation.copies(rows, start)
            encoded = (encode_rows(copy, model, processor, max_length) for copy in copies)
            # A tokenizer may give more than a model of one's own takes.
            yield ids, ({k: v for k, v in one.items() if takes(type(model).forward, k)} for one in encoded)


def find_points(data: Any, samples: int | None = None, seed: int = 0) -> Points:
    """The samples that `data` names.

    Args:
        data: `Points`, what `--dataset` may name, a `TaskData`, a `datasets.Dataset` with a column "text" (and "text_pair") or
            "image", a list of texts, of PIL images or of such rows, or a list of ready batches: mappings of a model's inputs by
            name.
        samples: use as many at most, of a data set drawn with `seed`, of a list the first.
        seed: the same seed draws the same rows.

    Raises:
        AtomError: anything else, or nothing.
    """
    if isinstance(data, Points):
        return data
    if samples is not None and samples < 2:
        raise AtomError(f"samples must be at least 2, got {samples}")
    if isinstance(data, str):
        data = load_data(data)
    names: list[str] = []
    if isinstance(data, TaskData):
        names = data.labels or []
        data = evaluation_rows(data)
    if isinstance(data, datasets.Dataset):
        if not {"text", "image"} & set(data.column_names):
            raise AtomError(
                f'data: a data set needs a column "text" or "image"; it has {", ".join(data.column_names)} (rename_column)'
            )
        if samples is not None and samples < len(data):
            data = data.shuffle(seed=seed).select(range(samples))
        labels = np.asarray(data["label"]) if "label" in data.column_names else None
        if not names and isinstance(data.features.get("label"), datasets.ClassLabel):
            names = data.features["label"].names
        data = data.select_columns([name for name in data.column_names if name in _COLUMNS])
        return Points(data, labels=labels, names=names)
    if isinstance(data, str | bytes | Mapping) or not isinstance(data, Iterable):
        raise AtomError(
            f"data must name a data set or be one, or a list of texts, images, rows or batches; got {data!r:.80}"
        )
    items = list(data)
    if items and all(isinstance(item, Mapping) and any(map(torch.is_tensor, item.values())) for item in items):
        return Points(batches=items)
    items = items[:samples]
    rows = [_row(item) for item in items]
    if not rows:
        raise AtomError("data is empty; give two samples or more")
    return Points(rows)


def evaluation_rows(data: TaskData) -> datasets.Dataset:
    """The evaluation split, or all rows of data that have none: nothing is to be held out from models that are trained."""
    return datasets.concatenate_datasets([data.train, data.eval]) if data.splits[1] is None else data.eval


def check_kind(points: Points, model: Any) -> None:
    """Raise `AtomError` for texts given to a model of images, or images to one of texts."""
    if points.rows is not None and points.is_image != is_image_model(model):
        takes = getattr(model, "main_input_name", "other inputs")
        raise AtomError(
            f"data: {type(model).__name__} takes {takes}, and the data are {'images' if points.is_image else 'texts'}"
        )


def _row(item: Any) -> dict[str, Any]:
    if isinstance(item, str):
        return {"text": item}
    if isinstance(item, Image.Image):
        return {"image": item}
    if isinstance(item, Mapping) and ({"text", "image"} & set(item)):
        return {name: item[name] for name in _COLUMNS if name in item}
    raise AtomError(f'data: a sample must be a text, a PIL image or a row with "text" or "image"; got {item!r:.80}')


def _ids(rows: list[dict[str, Any]], start: int) -> list[str]:
    return [f"{start + place}:{_digest(row)}" for place, row in enumerate(rows)]


def _digest(row: Mapping[str, Any]) -> str:
    if "image" in row:
        content = in_mode(row["image"], "RGB").tobytes()
    else:
        content = "\0".join(row[name] for name in ("text", "text_pair") if name in row).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(content, digest_size=4).hexdigest()


def _on(value: Any, device: Any) -> Any:
    return value.to(device) if torch.is_tensor(value) else value
