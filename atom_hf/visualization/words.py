"""Split a text, as it was written, at the ends of its words."""

import math
from bisect import bisect_left
from typing import NamedTuple

from ..importance.results import TextImportance, WordImportance
from .values import signed

TAIL = 2000
"""If the model did not read a text to its end, the number of characters to show after the last word that it read."""


class Run(NamedTuple):
    """A stretch of a text: a word, or what stands between words (`word` is None)."""

    text: str
    word: WordImportance | None = None
    pieces: tuple[WordImportance, ...] = ()
    cut: bool = False
    """Whether it comes after the last token that the model read."""

    @property
    def says(self) -> str:
        """The importance of the word, and of each of its pieces where it has several."""
        if self.word is None:
            return ""
        parts = ", ".join(f"{piece.text.strip()} {signed(piece.importance)}" for piece in self.pieces)
        return f"{signed(self.word.importance)}, mean of {parts}" if parts else signed(self.word.importance)


def runs(result: TextImportance) -> list[list[Run]]:
    """The text, and its pair if it has one, as runs whose texts joined are the source; of a text that the model read in part,
    what follows the last word that it read is cut short.

    Words without a character are left out; one that begins inside the word before it shows from that word's end on.
    """
    sources = [result.text] if result.pair is None else [result.text, result.pair]
    return [_cut(result, number, source) for number, source in enumerate(sources)]


def _cut(result: TextImportance, number: int, source: str) -> list[Run]:
    pieces = sorted((p for p in result.pieces if p.source == number), key=lambda p: (p.start, p.end))
    starts, found, end = [piece.start for piece in pieces], [], 0
    words = [word for word in result.words if word.source == number]
    shown = len(source)
    if result.truncated:
        shown = max((word.end for word in words if not math.isnan(word.importance)), default=0) + TAIL
    for word in sorted((word for word in words if word.start < shown), key=lambda word: word.start):
        if word.end <= max(end, word.start):
            continue
        if word.start > end:
            found.append(Run(source[end : word.start]))
        inside = pieces[bisect_left(starts, word.start) : bisect_left(starts, word.end)]
        inside = tuple(piece for piece in inside if piece.end <= word.end)
        found.append(Run(source[max(end, word.start) : word.end], word, inside if len(inside) > 1 else ()))
        end = word.end
    left = len(source) - max(end, shown)
    rest = source[end:] if left <= 0 else f"{source[end:shown]} ... and {left:,} more characters"
    if rest:
        found.append(Run(rest))
    if result.truncated:
        read = [i for i, run in enumerate(found) if run.word and not math.isnan(run.word.importance)]
        last = read[-1] + 1 if read else 0
        found[last:] = [run._replace(cut=True) for run in found[last:]]
    return found
