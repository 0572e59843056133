"""Make the built-in data set "verse": is a line of verse intact, or have two of its words been swapped?

    python recipes/verse/make.py --source gutenberg_poetry.parquet [--out DIR]

The source is a parquet file with the columns `line`, `block` and `corpus_index`: contiguous blocks of the Gutenberg
Poetry Corpus (Allison Parrish), whose lines come from Project Gutenberg texts that are in the public domain in the US.
`corpus_index` is the number of the line in that corpus, so that every row can be traced to its poem.

The same source gives the same rows: the seed is fixed and nothing else is random. Rows of the test set come from other
blocks than rows of the training set, hence from other poems, and no line is used twice.

How a line is chosen. Six to fourteen words of letters and plain punctuation, a capital first letter and no other
capital but "I" and "O" (a moved name would show), at most 60 characters (longer lines are mostly prose), and every word
known from at least 20 places inside other lines (which leaves out other languages, names and misprints).

How two words are swapped. One is a function word and the other is not, since exchanging such a pair breaks the grammar
of nearly every line, while exchanging two nouns often gives another good line. They stand two to five places apart and
have three letters or more. Punctuation and the capital of the first letter stay where they are, so that neither gives
the swap away. Intact lines are drawn from the lines that could have been swapped too, so that the words of a line say
nothing about its label.
"""

from __future__ import annotations

import argparse
import random
import re
from collections import Counter
from pathlib import Path

import datasets
import pandas as pd

LABELS = ["intact", "swapped"]
SEED = 0
TEST_BLOCKS = (3, 7)
ROWS_PER_BLOCK = 500
MIN_USES = 20
MAX_CHARACTERS = 60

# Words that hold a sentence together and cannot stand where a noun, a verb or an adjective stands. Pronouns and adverbs
# are left out on purpose: "gave them to men" and "gave men to them" are both good English.
_FUNCTION_WORDS = """
the and but nor with from for into upon through unto among between beneath against without toward towards until till
because although his their our your thy its was were are had has have shall should would could might may can must which
whose every than
"""
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())
WORD = re.compile(r"([A-Za-z]+(?:'[A-Za-z]+)?)([,;:.!?]?)")


def words_of(line: str) -> list[tuple[str, str]] | None:
    """The words of a line, each with the punctuation that follows it, or None if the line holds anything else."""
    found = [WORD.fullmatch(part) for part in line.split(" ")]
    return [match.groups() for match in found] if all(found) else None


def swappable(words: list[tuple[str, str]]) -> list[tuple[int, int]]:
    """The pairs of positions whose words may be exchanged."""
    lower = [word.lower() for word, _ in words]
    return [
        (first, second)
        for first in range(len(lower))
        for second in range(first + 2, min(first + 6, len(lower)))
        if min(len(lower[first]), len(lower[second])) >= 3
        and (lower[first] in FUNCTION_WORDS) != (lower[second] in FUNCTION_WORDS)
    ]


def swap(words: list[tuple[str, str]], first: int, second: int) -> str:
    """The line with the words at two positions exchanged; punctuation and the first capital stay in place."""
    moved = [word for word, _ in words]
    moved[first], moved[second] = moved[second], moved[first]
    if first == 0:
        moved[second] = moved[second].lower()
        moved[0] = moved[0][0].upper() + moved[0][1:]
    return " ".join(word + mark for word, (_, mark) in zip(moved, words, strict=True))


def clean_lines(source: pd.DataFrame, min_uses: int) -> dict[int, list[tuple[int, list[tuple[str, str]]]]]:
    """Of each block, the lines that may be used, as (corpus_index, words), without repeats over all blocks."""
    parsed = [(int(b), int(i), words_of(line)) for line, b, i in source[["line", "block", "corpus_index"]].values]
    parsed = [row for row in parsed if row[2]]
    # Counted inside the lines only: the first word is capital whatever it is.
    uses = Counter(word for _, _, words in parsed for word, _ in words[1:] if word.islower())
    seen, clean = set(), {}
    for block, index, words in parsed:
        rest = [word for word, _ in words[1:]]
        key = tuple(word.lower() for word, _ in words)
        if (
            6 <= len(words) <= 14
            and sum(len(word) + len(mark) + 1 for word, mark in words) - 1 <= MAX_CHARACTERS
            and words[0][0][0].isupper()
            and words[0][0][1:] == words[0][0][1:].lower()
            and all(word.islower() or word in ("I", "O") for word in rest)
            and all(word in ("i", "o") or uses[word] >= min_uses for word in key)
            and key not in seen
            and swappable(words)
        ):
            seen.add(key)
            clean.setdefault(block, []).append((index, words))
    return clean


def build(source: pd.DataFrame, rows_per_block: int, min_uses: int) -> dict[str, list]:
    """The rows of both splits, as {"train": [(text, label, corpus_index), ...], "test": [...]}, in corpus order."""
    rng = random.Random(SEED)
    splits = {"train": [], "test": []}
    for block, lines in sorted(clean_lines(source, min_uses).items()):
        drawn = rng.sample(lines, rows_per_block)
        rows = []
        for number, (index, words) in enumerate(drawn):
            label = number % 2
            first, second = rng.choice(swappable(words)) if label else (0, 0)
            rows.append((swap(words, first, second), label, index))
        splits["test" if block in TEST_BLOCKS else "train"] += sorted(rows, key=lambda row: row[2])
    return splits


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="parquet with line, block, corpus_index")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[2] / "atom_hf" / "assets" / "verse")
    options = parser.parse_args(arguments)

    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=LABELS),
            "corpus_index": datasets.Value("int32"),
        }
    )
    options.out.mkdir(parents=True, exist_ok=True)
    for split, rows in build(pd.read_parquet(options.source), ROWS_PER_BLOCK, MIN_USES).items():
        columns = dict(zip(features, map(list, zip(*rows, strict=True)), strict=True))
        path = options.out / f"{split}.parquet"
        datasets.Dataset.from_dict(columns, features=features).to_parquet(path)
        print(f"{path.name}: {len(rows)} rows, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
