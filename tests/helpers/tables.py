"""Data in files, as tests write it."""

import re

import datasets
import pandas as pd
import pytest
from PIL import Image

from atom_hf.data.load import load_data
from atom_hf.errors import AtomError

ROWS = pd.DataFrame(
    {"sentence": [f"line number {i}" for i in range(20)], "label": ["good", "bad"] * 10, "idx": range(20)}
)


def write(path, rows=ROWS):
    """Writes the rows in the format that the name of the file says, and returns its path as a string."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = pd.DataFrame(rows)
    if path.suffix in (".csv", ".tsv"):
        rows.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    elif path.suffix == ".parquet":
        rows.to_parquet(path)
    else:
        rows.to_json(path, orient="records", lines=path.suffix == ".jsonl")
    return str(path)


def write_images(folder, counts, mode="L"):
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            Image.new(mode, (4, 4), 10 * number if mode == "L" else (10 * number, 0, 0)).save(
                folder / name / f"test_{number}.png"
            )
    return str(folder)


def texts(rows):
    return rows["text"][:]


def labels(rows):
    return rows["label"][:]


def pairs(rows):
    return zip(texts(rows), labels(rows), strict=True)


def error_of(*args, **kwargs):
    with pytest.raises(AtomError) as caught:
        load_data(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def bag(line):
    return sorted(re.findall(r"[a-z']+", line.lower()))


def on_hub(monkeypatch, splits):
    calls = []
    given = datasets.DatasetDict({name: datasets.Dataset.from_dict(*rows) for name, rows in splits.items()})
    monkeypatch.setattr(datasets, "load_dataset", lambda *args: calls.append(args) or given)
    return calls
