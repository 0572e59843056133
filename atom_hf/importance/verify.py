"""Mask the parts of a sample that have the largest importance, and see what really happens to what it is importance for."""

import math
from typing import Any, NamedTuple

import numpy as np
import torch

from ..modeling.inference import evaluating
from .by_masking import MaskingReader
from .image import EncodedImage, ImageScorer
from .results import ImageImportance, TextImportance, Verified
from .scoring import Scores
from .text import EncodedText, TextScorer

WORDS = 3
"""How many words of a text are masked, at most."""

PATCHES = 0.1
"""Which share of the patches of an image is masked, at most."""

DRAWS = 8
"""How often as many others are drawn."""


class Part(NamedTuple):
    """A word or patch."""

    name: str
    tokens: list[int]
    importance: float


@torch.no_grad()
def verify(
    scorer: TextScorer | ImageScorer,
    encoded: EncodedText | EncodedImage,
    found: Scores,
    result: TextImportance | ImageImportance,
    target: Any = None,
) -> Verified | None:
    """What masking the parts with the largest positive importance does to one sample, at `DRAWS` + 2 forward passes.

    Args:
        scorer: with which the sample was read.
        encoded: the sample.
        found: its scores.
        result: its words or patches.
        target: what the importance is for, as the scorer was given it.

    Returns:
        None where nothing speaks for the target, or nothing else is left.

    Raises:
        AtomError: tokens that cannot be masked.
    """
    if isinstance(scorer, TextScorer):
        parts, most, processor = _words(encoded, result), WORDS, scorer.tokenizer
        inputs = {name: torch.tensor([ids], device=scorer.model.device) for name, ids in encoded.inputs.items()}
        target = scorer.at_token(encoded, target)
    else:
        parts, processor = _patches(result), scorer.processor
        most = max(1, round(PATCHES * len(parts)))
        inputs = {"pixel_values": encoded.pixels[None].to(scorer.model.device)}
    ranked = sorted(parts, key=lambda part: -part.importance)
    chosen = [part for part in ranked[:most] if part.importance > 0]
    rest = ranked[len(chosen) :]
    if not chosen or not rest:
        return None
    generator = torch.Generator().manual_seed(0)
    draws = DRAWS if len(rest) >= len(chosen) else 0
    drawn = [[rest[i] for i in torch.randperm(len(rest), generator=generator)[: len(chosen)]] for _ in range(draws)]
    with evaluating(scorer.model):
        reader = MaskingReader(scorer.model, processor)
        goal, tokens, masker = reader.prepare(inputs, target)
        keep = torch.ones(2 + draws, tokens.shape[1], dtype=torch.bool, device=tokens.device)
        for row, masked in enumerate((chosen, *drawn), 1):
            keep[row, [token for part in masked for token in part.tokens]] = False
        before, after, *others = reader.values(goal, masker, keep).tolist()
    change = _promised_change(scorer, found, parts, chosen)
    names = [part.name for part in chosen]
    return Verified(names, before, after, before - change, sum(others) / draws if draws else math.nan)


def _promised_change(scorer: TextScorer | ImageScorer, found: Scores, parts: list[Part], chosen: list[Part]) -> float:
    """By how much the value falls without some parts, as the importances say; nan where they have no scale."""
    explained = found.explained
    if explained is None or math.isnan(explained.parts):
        return math.nan
    values = np.asarray(found.importance, float)
    taken = [token for part in chosen for token in part.tokens]
    if isinstance(scorer, ImageScorer):  # behind the tokens that are no patches
        values = values[len(values) - len(parts) :]
    total, own = float(np.nansum(values)), float(np.nansum(values[taken]))
    if scorer.method == "masking":
        return own
    if not total:
        return math.nan
    # As the explainer is fitted: a share of what all importances leave over goes to each token alike (explainer/fit.py).
    left = explained.everything - explained.nothing - explained.parts
    return own * explained.parts / total + left * len(taken) / np.count_nonzero(~np.isnan(values))


def _words(encoded: EncodedText, result: TextImportance) -> list[Part]:
    """The words that have an importance."""
    tokens: dict[int, list[int]] = {}
    starts: dict[tuple[int, int], int] = {}
    for piece in encoded.pieces:
        if piece.word not in tokens:
            starts[piece.source, piece.start] = piece.word
        tokens.setdefault(piece.word, []).extend(piece.tokens)
    known = [word for word in result.words if not math.isnan(word.importance)]
    return [Part(word.text, tokens[starts[word.source, word.start]], word.importance) for word in known]


def _patches(result: ImageImportance) -> list[Part]:
    columns = result.importance.shape[1]
    known = enumerate(result.importance.ravel().tolist())
    return [Part("row {}, column {}".format(*(n + 1 for n in divmod(i, columns))), [i], value) for i, value in known]
