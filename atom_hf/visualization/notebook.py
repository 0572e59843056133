"""Readings as a piece of HTML that a notebook shows: styles stand in its elements, so that it changes nothing around it."""

import base64
import html
from collections.abc import Sequence

from ..importance.results import ImageImportance, TextImportance
from .colors import LEVELS, NEGATIVE, POSITIVE, level_of, word_style
from .pictures import heat_map, png, resized
from .values import checked_scale, clean, leanings, outcome, signed, verified_line
from .words import runs

STRONGEST = 0.6
"""How far the full colour covers the notebook's own ground, on which its own text stays readable, light or dark."""

SIZE = 192  # pixels of a picture

SHOWN = 50
"""How many of several readings are shown."""


def to_html(results: Sequence[TextImportance | ImageImportance]) -> str:
    """The readings, one below the other. Raises `AtomError` for one that does not fit."""
    shown = results[:SHOWN]
    texts = [result for result in shown if isinstance(result, TextImportance)]
    scale = checked_scale([result for result in shown if not isinstance(result, TextImportance)], texts)
    blocks = [_text(each, scale) if isinstance(each, TextImportance) else _image(each, scale) for each in shown]
    more = f"<div>... and {len(results) - SHOWN:,} more</div>" if len(results) > SHOWN else ""
    return f'<div style="max-width:50rem">{"".join(blocks)}{more}</div>'


def _text(result: TextImportance, scale: float) -> str:
    lines = []
    for source in runs(result):
        words = "".join(_word(run, scale) for run in source)
        lines.append(f'<div dir="auto" style="font-size:1.2em;line-height:1.9;white-space:pre-wrap">{words}</div>')
    return _block(result, "".join(lines))


def _word(run, scale: float) -> str:
    shown = _safe(run.text)
    if run.word is None or run.word.importance != run.word.importance:
        return shown
    level = level_of(run.word.importance, scale)
    colour, weight = NEGATIVE if level < 0 else POSITIVE, word_style(level)[2]
    line = f"border-bottom:{weight}px {'dotted' if level < 0 else 'solid'} currentColor;" if weight else ""
    ground = f"rgba({', '.join(map(str, colour))}, {STRONGEST * abs(level) / LEVELS:.2f})"
    return f'<span title="{_safe(signed(run.word.importance))}" style="background:{ground};{line}">{shown}</span>'


def _image(result: ImageImportance, scale: float) -> str:
    pair = [
        f'<img alt="{_safe(says)}" style="margin-right:.5rem" src="data:image/png;base64,'
        f'{base64.b64encode(png(picture)).decode()}">'
        for says, picture in (
            (result.name or "picture", resized(result.image, SIZE)),
            ("its importance", heat_map(result, SIZE, scale)),
        )
    ]
    return _block(result, f"<div>{''.join(pair)}</div>")


def _block(result: TextImportance | ImageImportance, shown: str) -> str:
    wrong, predicted, true, sure = outcome(result)
    said = [f"<b>{_safe(predicted)}</b>" if predicted else "", sure, f"true: {_safe(true)}" if true else "", wrong]
    about = [" &nbsp; ".join(part for part in said if part)]
    about += [_safe(f"{name}: {', '.join(words)}") for name, words in leanings(result) if words]
    if line := verified_line(result):
        about.append(_safe(line))
    lines = "".join(f'<div style="opacity:.85">{line}</div>' for line in about if line)
    return f'<div style="margin:0 0 1.2rem">{shown}{lines}</div>'


def _safe(text: str) -> str:
    return html.escape(clean(text))
