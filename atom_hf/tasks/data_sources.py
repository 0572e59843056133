"""Load the data sources of a task: from what `--dataset` may name to columns of the source's types."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import torch
from tqdm.auto import tqdm

from ..data.load import load_data
from ..data.pictures import Picture
from ..data.sources import load_source
from ..data.splits import draw_rows, first_eval_split, hold_out_rows, main_split, named_split
from ..errors import AtomError
from ..utils.pictures import in_mode
from ..utils.terminal import get_logger
from .kinds import Kind, Type
from .rows import Column
from .spec import Source

logger = get_logger(__name__)

ROLES = {"pixels": "image", "vector": "image", "class": "label", "tokens": "text"}


@dataclass(frozen=True)
class DataBinding:
    """What a data source is: a data set, and how its rows are chosen. The fields are the flags of `atom-hf train`."""

    dataset: str
    columns: tuple[str | tuple[str, ...], ...] | None = None
    """A column for each of the source's; for a vector the names of its numbers. By default they are found."""
    dataset_config: str | None = None
    eval_dataset: str | None = None
    train_split: str | None = None
    eval_split: str | None = None
    eval_fraction: float = 0.2
    max_train_samples: int | None = None
    max_eval_samples: int | None = None
    sample_seed: int = 0
    max_length: int = 128


def data_binding(name: str, given: Any) -> DataBinding:
    """The binding of a source, as a recipe gives it: a name, or a mapping. Raises `AtomError`."""
    where = f"data {name}"
    if isinstance(given, str):
        return DataBinding(given)
    known = {field.name: field for field in dataclasses.fields(DataBinding)}
    if not isinstance(given, Mapping) or not isinstance(given.get("dataset"), str):
        raise AtomError(f"{where}: give the name or path of a data set, or 'dataset: ...' and options, got {given!r}")
    unknown = [str(key) for key in given if key not in known]
    if unknown:
        raise AtomError(f"{where}: no such option: {unknown[0]}; there are {', '.join(known)}")
    values = dict(given)
    for key, value in values.items():
        kinds = {"columns": list, "eval_fraction": float, "sample_seed": int, "max_length": int}
        kind = kinds.get(key, int if key.startswith("max_") else str)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise AtomError(f"{where}: {key} must be {_KINDS[kind]}, got {value!r}")
    if "columns" in values:
        columns = values["columns"]
        parts = [part for column in columns for part in (column if isinstance(column, list) else [column])]
        if not parts or not all(isinstance(part, str) for part in parts):
            raise AtomError(f"{where}: columns are names, or lists of names of numbers, got {columns!r}")
        values["columns"] = tuple(tuple(column) if isinstance(column, list) else column for column in columns)
    return DataBinding(**values)


_KINDS = {list: "a list", float: "a number such as 0.2", int: "a whole number", str: "a text"}


def load_columns(source: Source, binding: DataBinding, tokenizer: Any = None) -> tuple[list[Column], list[Column]]:
    """The columns of a source: of the rows to train on, and of those to evaluate on.

    Args:
        tokenizer: encodes texts.

    Raises:
        AtomError: the data cannot be loaded, or do not fit the source's types.
    """
    where = f"data {source.name}"
    try:
        train, evaluation, names = _tables(source, binding)
    except AtomError as error:
        raise AtomError(f"{where}: {error}") from error
    found = []
    for rows, says in ((train, "training"), (evaluation, "evaluation")):
        columns = []
        for place, (wire, name) in enumerate(zip(source.types, names, strict=True)):
            at = f"{where}: {source.name}.{place + 1} ({wire})"
            columns.append(_column(wire, rows, name, at, tokenizer, binding.max_length))
        logger.info("%s: %d %s rows of %s", source.name, len(rows), says, binding.dataset)
        found.append(columns)
    return found[0], found[1]


def _tables(
    source: Source, binding: DataBinding
) -> tuple[datasets.Dataset, datasets.Dataset, Sequence[str | tuple[str, ...]]]:
    """The training and evaluation rows, and the column of each of the source's types."""
    rules = {
        f.name: getattr(binding, f.name) for f in dataclasses.fields(binding) if f.name not in ("columns", "max_length")
    }
    if binding.columns is None:
        data = load_data(**rules)
        wanted = [ROLES.get(wire.kind.name) for wire in source.types]
        has = data.train.column_names
        for wire, role in zip(source.types, wanted, strict=True):
            if role not in has:
                raise AtomError(f"{binding.dataset!r} has {', '.join(has)} and nothing for {wire}; name its columns")
            if wanted.count(role) > 1:
                raise AtomError(f"it has several columns of {wire.kind.name}; name the data set's columns")
        return data.train, data.eval, wanted
    if len(binding.columns) != len(source.types):
        raise AtomError(f"columns names {len(binding.columns)}, and {source.name} has {len(source.types)}")
    flat = [part for column in binding.columns for part in ([column] if isinstance(column, str) else column)]
    splits = load_source(binding.dataset, binding.dataset_config, "--dataset", flat)
    train_name = main_split(splits, binding.train_split, "train_split", binding.dataset)
    train = named_split(splits, train_name, "train_split", binding.dataset)
    if binding.eval_dataset is not None:
        others = load_source(binding.eval_dataset, None, "--eval_dataset", flat)
        name = main_split(others, binding.eval_split, "eval_split", binding.eval_dataset)
        evaluation = named_split(others, name, "eval_split", binding.eval_dataset)
    else:
        name = binding.eval_split or first_eval_split(splits, train_name, {})
        evaluation = None if name is None else named_split(splits, name, "eval_split", binding.dataset)
    if evaluation is None:
        train, evaluation = hold_out_rows(train, binding.eval_fraction, binding.sample_seed, binding.dataset)
    for rows in (train, evaluation):
        absent = [name for name in flat if name not in rows.column_names]
        if absent:
            raise AtomError(f"{binding.dataset!r} has no column {absent[0]}; it has {', '.join(rows.column_names)}")
    train = draw_rows(train, binding.max_train_samples, binding.sample_seed, "max_train_samples")
    return (
        train,
        draw_rows(evaluation, binding.max_eval_samples, binding.sample_seed, "max_eval_samples"),
        binding.columns,
    )


def _column(
    wire: Type, rows: datasets.Dataset, name: str | tuple[str, ...], where: str, tokenizer: Any, most: int
) -> Column:
    kind = wire.kind
    if isinstance(name, tuple):
        return Column(_numbers(kind, rows, name, where))
    feature = rows.features[name]
    if isinstance(feature, datasets.Image) or (isinstance(feature, dict) and set(feature) == {"bytes", "path"}):
        return Column(read_pictures(kind, rows.cast_column(name, Picture()), name, where))
    values = rows.select_columns([name])[:][name]
    if kind.name == "tokens":
        if tokenizer is None:
            raise AtomError(f"{where}: no box that takes it is a model with a tokenizer; bind one")
        if not all(isinstance(value, str) for value in values):
            raise AtomError(f"{where}: column {name!r} does not hold texts")
        if len(tokenizer) > kind.sizes[0]:
            raise AtomError(f"{where}: the tokenizer has {len(tokenizer)} pieces, and {kind} has {kind.sizes[0]}")
        encoded = tokenizer(list(values), truncation=True, max_length=min(most, tokenizer.model_max_length))[
            "input_ids"
        ]
        return Column([np.asarray(ids, dtype=np.int32) for ids in encoded])
    if kind.name == "class":
        return Column(_labels(kind, feature, values, where))
    if kind.name in ("logit", "scalar"):
        return Column(_numbers(kind, rows, (name,), where)[:, 0])
    array = np.asarray(values, dtype=np.float32) if _are_lists(values) else None
    if array is None or array[0].size != kind.values:
        raise AtomError(f"{where}: column {name!r} holds neither pictures nor lists of {kind.values} numbers")
    return Column(torch.as_tensor(array).reshape(len(array), *kind.sizes))


def _are_lists(values: Sequence[Any]) -> bool:
    try:
        return np.asarray(values, dtype=np.float32).ndim > 1
    except (ValueError, TypeError):
        return False


def _labels(kind: Kind, feature: Any, values: Sequence[Any], where: str) -> torch.Tensor:
    if not all(isinstance(value, int) and not isinstance(value, bool) and value >= 0 for value in values):
        raise AtomError(f"{where}: classes are whole numbers from 0 on; leave out columns, and names are numbered")
    many = len(feature.names) if isinstance(feature, datasets.ClassLabel) else max(values) + 1
    if many > kind.sizes[0] or (isinstance(feature, datasets.ClassLabel) and many != kind.sizes[0]):
        raise AtomError(f"{where}: the data has {many} classes, and {kind} has {kind.sizes[0]}")
    return torch.as_tensor(values, dtype=torch.long)


def _numbers(kind: Kind, rows: datasets.Dataset, names: Sequence[str], where: str) -> torch.Tensor:
    if kind.name not in ("vector", "logit", "scalar") or len(names) != kind.values:
        raise AtomError(
            f"{where}: {len(names)} columns of numbers are no {kind}; give {kind.values} for a vector of as many"
        )
    try:
        table = np.stack([np.asarray(rows[:][name], dtype=np.float64) for name in names], axis=1)
    except (ValueError, TypeError) as error:
        raise AtomError(f"{where}: {', '.join(names)} must hold numbers") from error
    if not np.isfinite(table).all():
        raise AtomError(f"{where}: {', '.join(names)} hold numbers that are missing or not finite")
    return torch.as_tensor(table, dtype=torch.float32)


def read_pictures(kind: Kind, rows: datasets.Dataset, name: str, where: str) -> torch.Tensor:
    """Bytes [N, c, h, w] of a column of pictures, resized if need be; or [N, n] of a vector of as many grey pixels.

    Raises:
        AtomError: beginning with `where`, for pictures that are no rows of the kind.
    """
    if kind.name not in ("pixels", "vector"):
        raise AtomError(f"{where}: column {name!r} holds pictures, and {kind} is none")
    mode, side = "L", None
    if kind.name == "pixels":
        channels, height, width = kind.sizes
        if channels not in (1, 3):
            raise AtomError(f"{where}: pictures have 1 or 3 channels, and {kind} has {channels}")
        mode, side = "L" if channels == 1 else "RGB", (width, height)
    found, resized = [], 0
    for row in tqdm(rows.select_columns([name]), desc=f"pictures of {where}", disable=len(rows) < 5000):
        picture = in_mode(row[name], mode)
        if side is not None and picture.size != side:
            picture, resized = picture.resize(side), resized + 1
        found.append(np.asarray(picture))
    if resized:
        logger.info("%s: %d pictures are resized to %d x %d", where, resized, *side)
    pixels = np.stack(found) if len({one.shape for one in found}) == 1 else None
    if pixels is None or (kind.name == "vector" and pixels[0].size != kind.values):
        raise AtomError(f"{where}: pictures of {found[0].size} pixels are no {kind}; give their size")
    array = torch.as_tensor(pixels)
    if kind.name == "vector":
        return array.reshape(len(array), -1)
    return array.unsqueeze(1) if mode == "L" else array.permute(0, 3, 1, 2)
