"""Make the data of the studies `separation_*.yaml`: python recipes/study/separation.py

Each table has two labels: one to train on, and another that training does not have, for a probe of what the features still
know. Every table has three parts: `train` (a study draws its training samples from it), `probe` (the rows that probes are
fitted on; of the training split too, and no row of `train`), and `test` (rows of the test or development split, which nothing
was chosen on). The folder `development` has the same three parts made of the rows of `train` alone, to choose settings on.

    mnist     image; parity; digit; writing: terciles of ink x terciles of slant, nine classes that cut across the digits;
              parity_20, parity_40: parity, of which 20 and 40 % are wrong in `train`
    fashion   image; top (T-shirt, pullover, coat, shirt) or not; class; top_20, top_40
    sst2      text; label (positive or not); length: quartiles of the number of words
    cola      text; label (acceptable or not): no model is trained on it, so it has no `train`

Thresholds of terciles and quartiles are those of the rows of `train`. Data sets are named by their Hub ids; a flag takes a
local copy.
"""

import argparse
from pathlib import Path

import datasets
import numpy as np

from atom_hf.data.sources import load_source

TRAIN, PROBE, TEST = 10_000, 1_000, 2_000  # rows at most
TOPS = (0, 2, 4, 6)
SEED = 0
WRONG = (20, 40)  # percent of the labels


def ink_and_slant(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(sum of brightness, slant) of images [n, height, width] of values 0 to 255, each [n].

    The slant is the regression of a bright pixel's column on its row: columns to the right per row downwards.
    """
    bright = images.astype(np.float64) / 255
    ink = bright.sum((1, 2))
    rows, columns = np.arange(images.shape[1]), np.arange(images.shape[2])
    total = np.maximum(ink, 1e-12)
    down = rows - (bright.sum(2) @ rows / total)[:, None]
    right = columns - (bright.sum(1) @ columns / total)[:, None]
    spread = np.einsum("nij,ni->n", bright, down**2)
    return ink, np.einsum("nij,ni,nj->n", bright, down, right) / np.maximum(spread, 1e-12)


def quantile_classes(values: np.ndarray, reference: np.ndarray, count: int) -> np.ndarray:
    """The class 0 to count - 1 of each value by the quantiles of the reference."""
    return np.searchsorted(np.quantile(reference, np.arange(1, count) / count), values)


def split_rows(train: int, test: int) -> dict[str, tuple[str, np.ndarray]]:
    """For each part: the split it is of, "train" or "test", and its rows there, drawn at random."""
    rng = np.random.default_rng(SEED)
    order, held = rng.permutation(train), rng.permutation(test)
    pool = min(TRAIN, train - PROBE)
    return {
        "probe": ("train", np.sort(order[:PROBE])),
        "train": ("train", np.sort(order[PROBE : PROBE + pool])),
        "test": ("test", np.sort(held[:TEST])),
    }


def image_tables(splits: dict[str, datasets.Dataset]) -> dict[str, dict]:
    """For each part of MNIST or Fashion-MNIST: its images [n, 28, 28], and its classes [n]."""
    label = next(name for name in ("label", "y") if name in splits["train"].column_names)
    drawn = split_rows(len(splits["train"]), len(splits["test"]))
    return {
        part: {"image": rows["image"][:], "class": np.array(rows[label][:])}
        for part, rows in ((part, splits[split].select(chosen)) for part, (split, chosen) in drawn.items())
    }


def mnist(splits: dict[str, datasets.Dataset]) -> dict[str, dict]:
    """The parts of MNIST with their labels."""
    tables = image_tables(splits)
    measured = {
        part: ink_and_slant(np.stack([np.asarray(i) for i in table["image"]])) for part, table in tables.items()
    }
    found = {}
    for part, table in tables.items():
        ink, slant = (quantile_classes(measured[part][i], measured["train"][i], 3) for i in (0, 1))
        digit = table["class"]
        found[part] = {"image": table["image"], "parity": digit % 2, "digit": digit, "writing": 3 * ink + slant}
    return with_wrong_labels(found, "parity")


def fashion(splits: dict[str, datasets.Dataset]) -> dict[str, dict]:
    """The parts of Fashion-MNIST with their labels."""
    found = {part: {**table, "top": np.isin(table["class"], TOPS) * 1} for part, table in image_tables(splits).items()}
    return with_wrong_labels(found, "top")


def with_wrong_labels(tables: dict[str, dict], label: str) -> dict[str, dict]:
    """The tables with columns `LABEL_20` and `LABEL_40` of a label of two classes, of which so many percent are wrong.

    Only in `train`: what a model is measured by stays right.
    """
    rank = np.random.default_rng(SEED).permutation(len(tables["train"][label])) / len(tables["train"][label])
    for percent in WRONG:
        for part, table in tables.items():
            right = np.asarray(table[label])
            table[f"{label}_{percent}"] = np.where(rank < percent / 100, 1 - right, right) if part == "train" else right
    return tables


def development(table: dict, share: float = 0.1) -> dict[str, dict]:
    """Three parts of the rows of a table `train`: a tenth to fit probes on, a tenth to test on, and the rest to train on."""
    count = len(next(iter(table.values())))
    order = np.random.default_rng(SEED + 1).permutation(count)
    cut = int(share * count)
    chosen = {"probe": order[:cut], "test": order[cut : 2 * cut], "train": order[2 * cut :]}
    return {
        part: {name: [values[i] for i in np.sort(rows)] for name, values in table.items()}
        for part, rows in chosen.items()
    }


def text_tables(train: datasets.Dataset, test: datasets.Dataset) -> dict[str, dict]:
    """For each part of a data set of texts: its texts and labels."""
    column = next(name for name in ("sentence", "text") if name in train.column_names)
    found = {}
    for part, (split, chosen) in split_rows(len(train), len(test)).items():
        rows = (train if split == "train" else test).select(chosen)
        found[part] = {"text": rows[column][:], "label": rows["label"][:]}
    return found


def sst2(train: datasets.Dataset, test: datasets.Dataset) -> dict[str, dict]:
    """The parts of SST-2 with their labels."""
    found = text_tables(train, test)
    words = {part: np.array([len(text.split()) for text in table["text"]]) for part, table in found.items()}
    return {
        part: {**table, "length": quantile_classes(words[part], words["train"], 4)} for part, table in found.items()
    }


def cola(train: datasets.Dataset, test: datasets.Dataset) -> dict[str, dict]:
    """The parts of CoLA, without one to train on."""
    found = text_tables(train, test)
    del found["train"]
    return found


def write(name: str, tables: dict[str, dict], folder: Path) -> None:
    """Writes `NAME_PART.parquet` for each part."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, table in tables.items():
        rows = datasets.Dataset.from_dict({column: list(values) for column, values in table.items()})
        if "image" in table:
            rows = rows.cast_column("image", datasets.Image())
        rows.to_parquet(folder / f"{name}_{part}.parquet")
        print(f"{name}_{part}.parquet: {len(rows)} rows, {', '.join(rows.column_names)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mnist", default="ylecun/mnist", help="Hub id, or a file of both splits")
    parser.add_argument("--fashion_mnist", default="zalando-datasets/fashion_mnist", help="likewise")
    parser.add_argument("--sst2", default="SetFit/sst2", help="Hub id, or a file of the training sentences")
    parser.add_argument("--sst2_eval", help="a file of the development sentences")
    parser.add_argument("--cola", default="nyu-mll/glue", help="Hub id, or a file of the training sentences")
    parser.add_argument("--cola_eval", help="a file of the development sentences")
    parser.add_argument("--output_dir", default="runs/data-separation")
    given = parser.parse_args()
    folder = Path(given.output_dir)
    made = {
        "mnist": mnist(load_source(given.mnist, None, "--mnist")),
        "fashion": fashion(load_source(given.fashion_mnist, None, "--fashion_mnist")),
    }
    for name, make in (("sst2", sst2), ("cola", cola)):
        source, held = getattr(given, name), getattr(given, f"{name}_eval")
        config = "cola" if source == "nyu-mll/glue" else None
        splits = load_source(source, config, f"--{name}")
        test = splits["validation"] if held is None else load_source(held, None, f"--{name}_eval")["train"]
        made[name] = make(splits["train"], test)
    for name, tables in made.items():
        write(name, tables, folder)
        if "train" in tables:
            write(name, development(tables["train"]), folder / "development")


if __name__ == "__main__":
    main()
