"""Read rows from built-in data sets, files, folders and the Hugging Face Hub."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection
from glob import escape
from itertools import combinations
from pathlib import Path

import datasets
import huggingface_hub
import numpy as np
import pyarrow.parquet as pq

from ..builtin import BUILT_IN_DATASETS
from ..errors import AtomError
from ..hub.messages import LOG_IN, without_token
from ..utils.terminal import get_logger
from .cache import writing_cache
from .delimited import table_options

logger = get_logger(__name__)

EVAL_SPLITS = ("validation", "valid", "val", "dev", "test")

# Only an empty cell is missing: pandas would also take "None", "NA" and "null" for it, which are valid class names.
_CSV = {"keep_default_na": False, "na_values": [""]}

# In order of priority for a folder with several kinds: the later ones often just describe the earlier ones.
_READERS = {
    ".parquet": ("parquet", {}),
    ".csv": ("csv", _CSV),
    ".tsv": ("csv", {**_CSV, "sep": "\t"}),
    ".jsonl": ("json", {}),
    ".json": ("json", {}),
    ".txt": ("text", {}),
}

IMAGE_FILES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")

DATA_FILES = (*(suffix for suffix in _READERS if suffix != ".txt"), ".npz")

_FILES = f"{', '.join(_READERS)} or .npz"


def load_source(
    dataset: str, config: str | None, flag: str, columns: Collection[str] = ()
) -> dict[str, datasets.Dataset]:
    """All splits of a data set.

    Args:
        dataset: the name of a built-in data set, else a path that exists, else an id on the Hub.
        config: the configuration of a data set on the Hub.
        flag: the argument that named it, for error messages.
        columns: the names of columns that the arguments give, which tell the header of a csv file from a row.

    Returns:
        The rows of each split, by its name.

    Raises:
        AtomError: there is no such data set, or it cannot be read.
    """
    path = Path(dataset).expanduser()
    if config and (dataset in BUILT_IN_DATASETS or path.exists()):
        raise AtomError(f"--dataset_config {config!r} is for data sets on the Hub; leave it out for {flag} {dataset!r}")
    if dataset in BUILT_IN_DATASETS:
        return {"digits": _digits, "gaussians": _gaussians, "verse": _verse}[dataset]()
    if dataset and path.exists():  # the path of "" is the working directory
        return _load_path(path, f"{flag} {dataset!r}", columns)
    would_do = f"an existing path, the id of a data set on the Hub or a built-in one ({', '.join(BUILT_IN_DATASETS)})"
    if (
        path.suffix in (*_READERS, ".npz")
        or dataset.startswith((".", "~", "/"))
        or dataset.count("/") > 1
        or not dataset
    ):
        raise AtomError(f"{flag} {dataset!r}: there is no such file or folder; give {would_do}")
    try:
        with writing_cache():
            return dict(datasets.load_dataset(dataset, config or None))
    except AtomError:
        raise
    except ConnectionError as error:
        offline = huggingface_hub.constants.HF_HUB_OFFLINE
        why = "HF_HUB_OFFLINE is set, so the Hub is not asked" if offline else "the Hugging Face Hub cannot be reached"
        raise AtomError(f"{flag} {dataset!r}: there is no such path, and {why}; give {would_do}") from error
    except datasets.exceptions.DatasetNotFoundError as error:
        # `datasets` drops the original error: only the message tells the two cases apart.
        gated = "gated" in str(error)
        page = f"{huggingface_hub.constants.ENDPOINT}/datasets/{dataset}"
        why = (
            f"it is gated, ask for access at {page}"
            if gated
            else "no such data set on the Hugging Face Hub that you may read"
        )
        raise AtomError(f"{flag} {dataset!r}: there is no such path, and {why} ({LOG_IN}); give {would_do}") from error
    except Exception as error:  # builders raise errors of any type; a missing configuration is a ValueError
        why = f"cannot be loaded from the Hugging Face Hub: {without_token(_reason(error))}"
        raise AtomError(f"{flag} {dataset!r} {why}; give --dataset_config or {would_do}") from error


def short_name(dataset: str, config: str | None) -> str:
    """A name of the data set that is valid in a folder's name, such as "poem_sentiment_train" or "glue-cola"."""
    path = Path(dataset).expanduser()
    name = (path.stem if path.is_file() else path.resolve().name) if path.exists() else dataset.split("/")[-1]
    return re.sub(r"[^\w.-]+", "-", f"{name}-{config}" if config else name)


def _digits() -> dict[str, datasets.Dataset]:
    from sklearn.datasets import load_digits  # takes about a second to import, and only this data set needs it

    values, labels = load_digits(return_X_y=True)
    images = np.round(values.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    rows = _image_dataset(images, labels, datasets.ClassLabel(names=[str(digit) for digit in range(10)]))
    split = rows.train_test_split(train_size=1000, test_size=797, stratify_by_column="label", seed=0)
    parity = datasets.ClassLabel(names=["even", "odd"])
    return {
        name: part.add_column("parity", [label % 2 for label in part["label"]], feature=parity)
        for name, part in split.items()
    }


def _gaussians() -> dict[str, datasets.Dataset]:
    rng = np.random.default_rng(0)
    pairs = list(combinations(range(4), 2))
    corners = np.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    found = {}
    for split, count in (("train", 2000), ("test", 1000)):
        labels = rng.integers(len(pairs), size=count)
        which = rng.integers(2, size=(count, 16))
        points = corners[np.array(pairs)[labels[:, None], which]] + rng.normal(0, 1.2, (count, 16, 2))
        # A byte a coordinate: 32 steps a unit, 1/38 of a standard deviation.
        pixels = np.clip(np.rint(128 + 32 * points), 0, 255)
        blue = np.full((count, 16, 1), 128)
        images = np.concatenate([pixels, blue], axis=2).astype(np.uint8).reshape(count, 4, 4, 3)
        names = [f"{a}+{b}" for a, b in pairs]
        found[split] = _image_dataset(images, labels, datasets.ClassLabel(names=names))
    return found


def _verse() -> dict[str, datasets.Dataset]:
    folder = BUILT_IN_DATASETS["verse"].folder
    return {split: datasets.Dataset(pq.read_table(folder / f"{split}.parquet")) for split in ("train", "test")}


def _load_path(path: Path, given: str, columns: Collection[str]) -> dict[str, datasets.Dataset]:
    if path.is_file():
        if path.suffix.lower() == ".npz":
            return _load_npz(path, given)
        if path.suffix.lower() not in _READERS:
            raise AtomError(f"{given}: files that end in {path.suffix!r} are not read; give {_FILES}, or a folder")
        return {"train": _read([path], given, columns)}

    found = [f for f in sorted(path.rglob("*")) if not f.name.startswith(".")]
    files = [f for f in found if f.is_file()]
    if nowhere := [f.name for f in found if f.is_symlink() and not f.exists()]:
        logger.warning("%s: %d links lead nowhere and are left out, such as %s", given, len(nowhere), nowhere[0])
    if any(f.suffix.lower() in IMAGE_FILES for f in files):
        return _load_image_folder(path, given)
    suffix = next((s for s in _READERS if any(f.suffix.lower() == s for f in files)), None)
    if suffix is None:
        raise AtomError(f"{given}: the folder holds no images and no file that is read; give one with {_FILES} files")
    groups: dict[str | None, list[Path]] = {}
    for file in (f for f in files if f.suffix.lower() == suffix):
        groups.setdefault(_split_in(file.stem) or _split_in(file.relative_to(path).parent.name), []).append(file)
    if unnamed := groups.pop(None, None):
        if groups:
            which = ", ".join(f.name for f in unnamed)
            raise AtomError(f"{given}: some files name a split but not {which}; name all of them (train, test) or none")
        groups = {"train": unnamed}
    # Each on its own, so that a test file without labels does not fail the others.
    return {split: _read(group, given, columns) for split, group in groups.items()}


def _split_in(name: str) -> str | None:
    found = re.search(rf"(?<![a-z])(train|{'|'.join(EVAL_SPLITS)})(?![a-z])", name.lower())
    return found and found[1]


def _load_image_folder(path: Path, given: str) -> dict[str, datasets.Dataset]:
    # "train" may also be a class, which then holds images directly.
    splits = {
        folder.name.lower(): [f"{escape(str(folder))}/**"]
        for folder in sorted(path.iterdir())
        if folder.is_dir()
        and folder.name.lower() in ("train", *EVAL_SPLITS)
        and any(inner.is_dir() or inner.stem == "metadata" for inner in folder.iterdir())
    }
    return _builder("imagefolder", splits or {"train": [f"{escape(str(path))}/**"]}, given, drop_labels=False)


def _read(files: list[Path], given: str, columns: Collection[str]) -> datasets.Dataset:
    if empty := [file.name for file in files if file.stat().st_size == 0]:
        raise AtomError(f"{given}: {', '.join(empty)} is empty; give a file with at least one row")
    builder, options = _READERS[files[0].suffix.lower()]
    if builder == "csv":
        try:
            options = {**options, **table_options(files, options.get("sep", ","), columns, given)}
        except (csv.Error, OSError) as error:
            raise _unreadable(given, builder, error) from error
    return _builder(builder, {"train": [escape(str(file)) for file in files]}, given, **options)["train"]


def _builder(builder: str, files: dict[str, list[str]], given: str, **options) -> dict[str, datasets.Dataset]:
    try:
        with writing_cache():
            return dict(datasets.load_dataset(builder, data_files=files, **options))
    except AtomError:
        raise
    except Exception as error:  # the readers raise whatever pandas, pyarrow and json raise
        if "corresponds to no data" in str(error):
            raise AtomError(f"{given} is empty: it has no rows; give a file with at least one row") from error
        raise _unreadable(given, builder, error) from error


def _unreadable(given: str, kind: str, error: BaseException) -> AtomError:
    return AtomError(f"{given} cannot be read as {kind}: {_reason(error)}; fix it or give {_FILES}")


def _reason(error: BaseException) -> str:
    """The reader's own message in one line: `datasets` wraps it in an uninformative error."""
    return " ".join(str(error.__cause__ or error).split())[:300].rstrip(".")


def _load_npz(path: Path, given: str) -> dict[str, datasets.Dataset]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # zipfile, numpy and the file system each have their own
        raise _unreadable(given, "npz", error) from error
    wanted = "x_train, y_train, x_test and y_test (or x and y): uint8 images [n, H, W] or [n, H, W, 1 or 3], labels [n]"
    splits = {}
    for split, end in (("train", "_train"), ("train", ""), ("test", "_test")):
        images, labels = arrays.get(f"x{end}"), arrays.get(f"y{end}")
        if images is None or labels is None or split in splits:
            continue
        if images.dtype != np.uint8 or not (images.ndim == 3 or (images.ndim == 4 and images.shape[3] in (1, 3))):
            raise AtomError(f"{given}: x{end} is {images.dtype} {list(images.shape)}; give {wanted}")
        if labels.size != len(images):
            raise AtomError(f"{given}: y{end} has {labels.size} labels for {len(images)} images; give {wanted}")
        splits[split] = _image_dataset(images, labels.reshape(-1))
    if "train" not in splits:
        raise AtomError(f"{given}: it holds {', '.join(arrays) or 'no array'}; give {wanted}")
    return splits


def _image_dataset(images: np.ndarray, labels: np.ndarray, label_feature=None) -> datasets.Dataset:
    """Rows of "image" and "label" from uint8 images `[n, H, W]` or `[n, H, W, 1 or 3]` and their labels `[n]`."""
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[..., 0]
    # Netpbm is a header before the bytes of the array. PNG would take many seconds for a data set as large as MNIST.
    header = f"{'P5' if images.ndim == 3 else 'P6'} {images.shape[2]} {images.shape[1]} 255\n".encode()
    encoded = [{"bytes": header + image.tobytes(), "path": None} for image in images]
    rows = datasets.Dataset.from_dict({"image": encoded}, features=datasets.Features({"image": datasets.Image()}))
    return rows.add_column("label", labels, feature=label_feature)
