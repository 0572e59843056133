"""Results checked, the scale of their colours, and their numbers in words, for all pictures and pages."""

import math
import unicodedata

import numpy as np

from ..errors import AtomError
from ..importance.results import ImageImportance, TextImportance
from ..utils.terminal import STEERING

PLAIN = {ord("−"): "-", ord("–"): "-", ord("—"): "-", ord("ß"): "ss"}  # what NFKD leaves outside Pillow's font


def checked_scale(images: list[ImageImportance] = (), texts: list[TextImportance] = ()) -> float:
    """Which importance gets the full colour: 1, or where all are faint (under 0.3) their largest.

    AtomError: an importance, place, confidence or atom that cannot be.
    """
    top = 0.0
    for name, group in (("images", images), ("texts", texts)):
        for index, result in enumerate(group):
            where = f"{name}[{index}]"
            if isinstance(result, TextImportance):
                _check_spans(where, result)
            else:
                _check_grid(where, result)
            values = np.abs(importances(result))
            if np.any(values > 1 + 1e-6):
                raise AtomError(f"{where}: importance up to {np.nanmax(values):.6g}; it must lie in [-1, 1]")
            if result.confidence is not None and not 0 <= result.confidence <= 1 + 1e-6:
                raise AtomError(f"{where}: confidence {result.confidence}; give a number in [0, 1], or None")
            if result.atom is not None and np.ndim(result.atom.center) != 1:
                raise AtomError(f"{where}: the atom's centre has shape {np.shape(result.atom.center)}; give [h]")
            top = max(top, float(np.nan_to_num(values).max(initial=0)))
    return top if 0 < top < 0.3 else 1.0


def importances(result: ImageImportance | TextImportance) -> np.ndarray:
    """All importances of a sample, flat: of patches, or of words and their pieces; nan for no token."""
    if isinstance(result, TextImportance):
        return np.array([span.importance for span in (*result.words, *result.pieces)], float)
    return np.asarray(result.importance, float).ravel()


def tokens(result: ImageImportance | TextImportance) -> np.ndarray:
    """The importances of its tokens: of patches, of word pieces, or of words where no pieces are given; no nan."""
    spans = (result.pieces or result.words) if isinstance(result, TextImportance) else None
    values = importances(result) if spans is None else np.array([span.importance for span in spans], float)
    return values[~np.isnan(values)]


def outcome(result: ImageImportance | TextImportance) -> tuple[str, str, str, str]:
    """The word "wrong", the predicted and the true class, the confidence (100% only if it is 1); each "" for none."""
    predicted, true = ("" if name is None else str(name) for name in (result.predicted, result.label))
    wrong = "wrong" if predicted and true and predicted != true else ""
    return wrong, predicted, true, "" if result.confidence is None else percent(result.confidence)


LEANINGS = 3
"""How many words are named of either sign."""


def leanings(result: ImageImportance | TextImportance, fitted: bool = True) -> list[tuple[str, list[str]]]:
    """Of a text the words with the largest importance of either sign, strongest first, under what the sign says of them.

    Empty for an image, which shows them better, and of a sign that no word has.
    """
    if isinstance(result, ImageImportance):
        return []
    ranked = sorted(
        (word for word in result.words if not math.isnan(word.importance)), key=lambda word: -word.importance
    )
    titles = ("leans on", "speaks against it") if fitted else ("most positive", "most negative")
    ends = (ranked[:LEANINGS], ranked[::-1][:LEANINGS])
    found = []
    for title, words, sign in zip(titles, ends, (1, -1), strict=True):
        shown = [f"{word.text} {signed(word.importance)}" for word in words if signed(sign * word.importance)[0] == "+"]
        found += [(title, shown)] if shown else []
    return found


def verified_line(result: ImageImportance | TextImportance) -> str:
    """What masking the most important parts did, in words; empty if that was not tried."""
    seen = result.verified
    if seen is None:
        return ""
    parts = ", ".join(f"“{part}”" for part in seen.masked)
    if isinstance(result, ImageImportance):
        parts = f"its {len(seen.masked)} strongest patches" if len(seen.masked) > 1 else "its strongest patch"
    also = [] if math.isnan(seen.promised) else [f"{seen.promised:.2f} by the importances"]
    also += [] if math.isnan(seen.others) else [f"{seen.others:.2f} without as many others"]
    of = f"{result.explained.target} " if result.explained else ""
    return f"without {parts}: {of}{seen.before:.2f} → {seen.after:.2f}" + (f" ({'; '.join(also)})" if also else "")


def percent(confidence: float) -> str:
    """100% only if it is 1."""
    return f"{min(confidence, 1 if confidence >= 1 else 0.99):.0%}"


def signed(value: float) -> str:
    """Two digits with a true minus; "no token" for nan."""
    if value != value:
        return "no token"
    shown = f"{value:+.2f}"
    return "0.00" if shown[1:] == "0.00" else shown.replace("-", "−")


def clean(value):
    """What may stand on a page: what breaks or reorders it becomes U+FFFD, one for one; ready HTML passes.

    Control characters break HTML, lone surrogates UTF-8, and bidi overrides would reorder what follows them.
    """
    return value if hasattr(value, "__html__") else STEERING.sub("\ufffd", str(value))


def plain(text) -> str:
    """The text in the letters of Pillow's built-in font, as far as they go: no accents, plain dashes, one line."""
    text = unicodedata.normalize("NFKD", " ".join(clean(text).split())).translate(PLAIN)
    return "".join(part for part in text if not unicodedata.combining(part))


def _check_grid(where: str, result: ImageImportance) -> None:
    shape = np.shape(result.importance)
    if len(shape) != 2 or 0 in shape:
        raise AtomError(f"{where}: importance has shape {shape}; give [rows, columns] of the patch grid")
    if result.box is not None and not (result.box[0] < result.box[2] and result.box[1] < result.box[3]):
        raise AtomError(f"{where}: box {result.box}; give left, top, right, bottom with left < right and top < bottom")


def _check_spans(where: str, result: TextImportance) -> None:
    sources = [result.text, result.pair]
    for span in (*result.words, *result.pieces):
        source = sources[span.source] if span.source in (0, 1) else None
        if source is None or not 0 <= span.start <= span.end <= len(source):
            raise AtomError(
                f"{where}: {span.text!r} at {span.start} to {span.end} of source {span.source} lies outside the text; "
                "give character offsets into it (0), or into its pair (1)"
            )
        if source[span.start : span.end] != span.text:
            raise AtomError(
                f"{where}: {span.text!r} is not what stands at {span.start} to {span.end}; "
                "give spans with text == source[start:end]"
            )
