"""From a tokenizer's pieces to the words and pieces of a text as it was written, by character offsets."""

import re
import unicodedata
from dataclasses import dataclass
from itertools import islice, zip_longest

import numpy as np
from tokenizers import Encoding

from .results import WordImportance

WORD = re.compile(r"\S+")

UNREAD = 10_000
"""The most words to list of those before, and of those after, what the model read."""

JOINER = "\u200d"


@dataclass
class Piece:
    """One or more tokens and the characters that they stand for."""

    tokens: list[int]
    start: int
    end: int
    source: int
    word: int
    """Pieces of a word have the same number."""


def find_pieces(encoding: Encoding, sources: list[str]) -> list[Piece]:
    """The pieces of a text, or of a text and its pair, in the order of their characters.

    - Offsets of byte-level tokenizers take in the space before a word, or not, as they were made: here never. A token of white
      space alone is not a piece.
    - Tokens that are bytes of the same character are one piece.
    - Accents and joiners that a normalizer removed belong to the letter before them.
    - A word is the tokenizer's, which keeps punctuation apart; and white space ends one where the tokenizer knows none.

    Args:
        encoding: of one sample, by a fast tokenizer.
        sources: the text, and its pair if there is one.
    """
    pieces: list[Piece] = []
    last_word = None
    places = zip(encoding.offsets, encoding.sequence_ids, encoding.word_ids, strict=True)
    for token, ((start, end), source, word) in enumerate(places):
        if source is None:
            continue
        text = sources[source]
        visible = text[start:end].strip()
        if not visible:
            continue
        start += len(text[start:end]) - len(text[start:end].lstrip())
        end = start + len(visible)
        before = pieces[-1] if pieces and pieces[-1].source == source else None
        if before is not None and start < before.end:
            before.tokens.append(token)
            before.end = max(end, before.end)
            continue
        same = before is not None and word is not None and word == last_word
        same = same and not any(map(str.isspace, text[before.end : start]))
        number = pieces[-1].word + (not same) if pieces else 0
        pieces.append(Piece([token], start, end, source, number))
        last_word = word
    for piece, after in zip_longest(pieces, pieces[1:]):
        text = sources[piece.source]
        end = after.start if after is not None and after.source == piece.source else len(text)
        while piece.end < end and (unicodedata.category(text[piece.end])[0] == "M" or text[piece.end] == JOINER):
            piece.end += 1
    return pieces


def score_words(
    pieces: list[Piece], sources: list[str], importance: np.ndarray, truncated: bool = False
) -> tuple[list[WordImportance], list[WordImportance]]:
    """(words, pieces) with the mean importance of their tokens; nan where none of these belongs to the atom.

    Args:
        pieces: from `find_pieces`.
        sources: what their offsets count in.
        importance: [N], one for each token; nan for none.
        truncated: whether the tokenizer cut something off. That becomes words with nan, told by white space; of a very long
            text only the first of them.
    """

    def span(group: list[Piece]) -> WordImportance:
        source, start, end = group[0].source, group[0].start, group[-1].end
        values = importance[[token for piece in group for token in piece.tokens]]
        known = values[~np.isnan(values)]
        mean = float(known.mean()) if len(known) else float("nan")
        return WordImportance(sources[source][start:end], start, end, mean, source)

    groups: list[list[Piece]] = []
    for piece in pieces:
        if groups and groups[-1][0].word == piece.word:
            groups[-1].append(piece)
        else:
            groups.append([piece])
    words = list(map(span, groups))
    if truncated:
        for source, text in enumerate(sources):
            words += _unread(text, source, [word for word in words if word.source == source])
        words.sort(key=lambda word: (word.source, word.start))
    return words, [span([piece]) for piece in pieces]


def _unread(text: str, source: int, read: list[WordImportance]) -> list[WordImportance]:
    """The words before the first and after the last one that the model saw, up to `UNREAD` of either."""
    first, last = (read[0].start, read[-1].end) if read else (0, 0)
    found = [*islice(WORD.finditer(text, 0, first), UNREAD), *islice(WORD.finditer(text, last), UNREAD)]
    return [WordImportance(match.group(), match.start(), match.end(), float("nan"), source) for match in found]
