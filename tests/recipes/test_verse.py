"""The recipe that makes the verse."""

import importlib.util

import numpy as np
import pandas as pd
import pytest

from atom_hf.data.load import load_data
from helpers.paths import ROOT
from helpers.tables import bag, pairs, write

pytestmark = pytest.mark.usefixtures("own_cache")


def verse_recipe():
    path = ROOT / "recipes" / "verse" / "make.py"
    spec = importlib.util.spec_from_file_location("verse_recipe", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_verse_recipe_swaps_exactly_two_words(tmp_path, monkeypatch):
    make = verse_recipe()
    monkeypatch.setattr(make, "ROWS_PER_BLOCK", 60)
    monkeypatch.setattr(make, "MIN_USES", 2)
    data = load_data("verse")
    intact = [line for part in (data.train, data.eval) for line, label in pairs(part) if not label]
    lines = intact + intact[:10] + ["The year was 1492, and the ships sailed", "AND ALL THE SEA WAS WHITE WITH FOAM"]
    source = pd.DataFrame({"line": lines, "block": np.arange(len(lines)) * 10 // len(lines), "corpus_index": 7})
    source["corpus_index"] = source.index + 7
    write(tmp_path / "source.parquet", source)
    for out in ("first", "second"):
        make.main(["--source", str(tmp_path / "source.parquet"), "--out", str(tmp_path / out)])
    written = {split: pd.read_parquet(tmp_path / "first" / f"{split}.parquet") for split in ("train", "test")}
    for split, rows in written.items():
        assert rows.equals(pd.read_parquet(tmp_path / "second" / f"{split}.parquet"))
        assert abs(rows["label"].mean() - 0.5) < 0.01
        blocks = {int(source["block"][index - 7]) for index in rows["corpus_index"]}
        assert blocks == (set(make.TEST_BLOCKS) if split == "test" else set(range(10)) - set(make.TEST_BLOCKS))
        for text, label, index in rows.itertuples(index=False):
            line = source["line"][index - 7]
            if label == 0:
                assert text == line
                continue
            before, after = make.words_of(line), make.words_of(text)
            moved = [i for i, (b, a) in enumerate(zip(before, after, strict=True)) if b[0].lower() != a[0].lower()]
            assert bag(text) == bag(line) and len(moved) == 2 and 2 <= moved[1] - moved[0] <= 5
            assert [mark for _, mark in before] == [mark for _, mark in after] and text[0].isupper()
            assert min(len(before[i][0]) for i in moved) >= 3
    every = pd.concat(written.values())
    assert every["corpus_index"].is_unique and len(every) == 600 and not every["text"].str.contains("1492|AND").any()
