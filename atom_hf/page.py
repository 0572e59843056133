"""What the heads found, to look at: one offline HTML page, or one PNG, of tables, pictures and words."""

import base64
import io
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from PIL import Image, ImageDraw, ImageFont

from .errors import AtomError

MEANING = (
    "+1 carries meaning and tells the sample apart; −1 tells it apart without carrying meaning; "
    "0 carries meaning but does not tell it apart."
)
# Blue and vermillion stay apart under every common colour blindness, and both show on white and on dark paper.
NEGATIVE, POSITIVE = (42, 123, 192), (226, 100, 28)
PAPER, INK, MUTED = (255, 255, 255), (29, 28, 26), (97, 93, 87)
LEVELS = 20  # steps of strength per sign: finer than the eye tells apart, few enough for one CSS class each
# Control characters break HTML, lone surrogates UTF-8, and bidi overrides would reorder what follows them.
FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True)
class TextReading:
    """Words under their importance in [-1, 1], one per word; nan for a word that is no token of the atom."""

    words: list[str]
    importance: list[float]
    label: str | None = None
    predicted: str | None = None
    confidence: float | None = None


@dataclass(frozen=True)
class ImageReading:
    """A picture (any size) under its importance [rows, columns] on the patch grid, in [-1, 1]; nan for none."""

    image: Image.Image
    importance: np.ndarray
    label: str | None = None
    predicted: str | None = None
    confidence: float | None = None


@dataclass(frozen=True)
class Table:
    """Ready strings; each row has as many cells as the header, and its first cell names the row."""

    caption: str
    header: list[str]
    rows: list[list[str]]
    note: str = ""


def write_page(
    path, *, title: str, intro: str = "", tables: Sequence[Table] = (), images: Sequence = (), texts: Sequence = ()
) -> Path:
    """Write one HTML file that needs no network (images: ImageReadings, texts: TextReadings); return its path.

    A blank line in `intro` starts a paragraph. AtomError: nothing to show, or a table or reading that does not fit.
    """
    if not (tables or images or texts):
        raise AtomError("write_page: tables, images and texts are all empty; give at least one table or reading")
    for table in tables:
        if odd := [len(row) for row in table.rows if len(row) != len(table.header)]:
            raise AtomError(f"table {table.caption!r}: {len(table.header)} cells in the header but {odd[0]} in a row")
    values = _values(images, "images") + _values(texts, "texts")
    show = {"title": title, "intro": intro, "tables": tables, "images": list(zip(images, values))}
    show["texts"] = [(reading, value.tolist()) for reading, value in zip(texts, values[len(images) :])]
    show["absent"] = any(np.isnan(value).any() for value in values)
    return _save(path, TEMPLATES.get_template("page.html.j2").render(show, scale=_scale(values)).encode())


def heat_map(reading: ImageReading, size: int = 168, scale: float = 1.0) -> Image.Image:
    """The picture in grey under its importance, RGB, longest side `size`; an importance of `scale` has full colour.

    At 0 the picture stays grey; patches with nan are hatched. The strongest patches of either sign bear a + or a -, so
    that the sign shows without colour too. AtomError: the reading does not fit.
    """
    (grid,) = _values([reading], "images")
    grey = np.asarray(_fitted(reading.image, size).convert("L"), float)[..., None]
    (high, wide), (rows, columns) = grey.shape[:2], grid.shape
    value = grid[np.arange(high) * rows // high][:, np.arange(wide) * columns // wide]
    strength = 0.85 * np.nan_to_num(np.abs(value) / scale).clip(0, 1)[..., None]
    # The picture is lifted off black and white, so that a colour over it says importance, not brightness.
    rgb = (64 + grey * 168 / 255) * (1 - strength) + np.where(value[..., None] < 0, NEGATIVE, POSITIVE) * strength
    rgb[np.isnan(value) & (np.add.outer(np.arange(high), np.arange(wide)) * 28 // size % 2 == 0)] = 128
    picture = Image.fromarray(rgb.round().astype(np.uint8))
    draw, side, known = ImageDraw.Draw(picture), min(high / rows, wide / columns), np.nan_to_num(grid)
    font = ImageFont.load_default(size=min(max(side * 0.7, 6), size / 9))
    for sign, mark in ((1, "+"), (-1, "-")) if side >= 6 else ():
        for row, column in np.argwhere(known * sign >= max(0.6 * (known * sign).max(), 0.1 * scale)):
            center = ((column + 0.5) * wide / columns, (row + 0.5) * high / rows)
            draw.text(center, mark, "white", font, "mm", stroke_width=1, stroke_fill=INK)
    return picture


def write_sheet(path, images: Sequence[ImageReading], columns: int = 8) -> Path:
    """Write a PNG of all pictures (original, heat map, "predicted (true)") and one colour scale; return its path."""
    if not images or columns < 1:
        raise AtomError(f"write_sheet: {len(images)} images in {columns} columns; give at least one of each")
    scale, side, gap, margin, columns = _scale(_values(images, "images")), 168, 34, 44, min(columns, len(images))
    step, tall, rows = side + gap, 2 * side + 74 + gap, -(-len(images) // columns)
    width = max(columns * step - gap, 560) + 2 * margin
    sheet = Image.new("RGB", (width, rows * tall + 120 + margin), PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, reading in enumerate(images):
        left, top = (width - columns * step + gap) // 2 + index % columns * step, margin + index // columns * tall
        for picture, middle in ((_fitted(reading.image, side), 84), (heat_map(reading, side, scale), 260)):
            sheet.paste(picture, (left + (side - picture.width) // 2, top + middle - picture.height // 2))
        wrong, predicted, true, sure = _outcome(reading)
        _print(draw, (left + side / 2, top + 2 * side + 36), f"{predicted} ({true})" if true else predicted, 20, side)
        _print(draw, (left + side / 2, top + 2 * side + 58), f"{wrong} {sure}".strip(), 15, side, MUTED)
        if wrong:
            draw.rounded_rectangle((left - 10, top - 10, left + side + 9, top + 2 * side + 72), 6, None, INK, 2)
    _print_scale(draw, width / 2, margin + rows * tall, scale)
    return _save(path, _png(sheet))


def write_words(path, texts: Sequence[TextReading], width: int = 1000) -> Path:
    """Write a PNG of `width` pixels: words shaded by importance, the prediction at their right; return its path.

    Pillow's built-in font has Latin letters without accents only; others become boxes here, but show on the page.
    """
    if not texts or width < 480:
        raise AtomError(f"write_words: {len(texts)} texts, width {width}; give at least one text and 480 pixels")
    values, margin, line, side = _values(texts, "texts"), 44, 36, width // 5
    scale, places = _scale(values), [_wrap(text.words, 19, width - 2 * margin - side - 20, line) for text in texts]
    heights = [max([line] + [y for *_, y in place]) + line + 40 for place in places]
    sheet = Image.new("RGB", (width, sum(heights) + 120 + margin), PAPER)
    draw, top = ImageDraw.Draw(sheet), margin
    for text, value, place, height in zip(texts, values, places, heights):
        for number, (word, wide, x, y) in zip(value, place):
            x, y, fill = margin + x, top + 44 + y, MUTED if np.isnan(number) else INK
            if level := 0 if np.isnan(number) else round(number / scale * LEVELS):
                paper, fill, rule, weight = word_style(level)
                draw.rounded_rectangle((x - 4, y - 20, x + wide + 3, y + 9), 4, paper)
                for dot in np.arange(x, x + wide - weight, 2 * weight + 1 if level < 0 else wide) if weight else ():
                    draw.rectangle((dot, y + 4, dot + weight if level < 0 else x + wide, y + 3 + weight), rule)
            _print(draw, (x, y), word, 19, wide + 1, fill, "ls")
        wrong, predicted, true, sure = _outcome(text)
        _print(draw, (width - margin - side, top + 44), predicted, 19, side, INK, "ls")
        about = ", ".join(part for part in (wrong, true and f"true {true}", sure) if part)
        _print(draw, (width - margin - side, top + 70), about, 15, side, MUTED, "ls")
        if wrong:
            draw.rounded_rectangle((margin - 14, top + 6, width - margin + 13, top + height - 6), 6, None, INK, 2)
        top += height
    _print_scale(draw, width / 2, top, scale)
    return _save(path, _png(sheet))


def word_style(level: int, paper=PAPER, ink=INK) -> tuple:
    """Of a word at level -LEVELS..LEVELS: colours of its ground, text and underline, and that line's weight 0..3."""
    end, share = NEGATIVE if level < 0 else POSITIVE, abs(level) / LEVELS
    ground = tuple(round(a + (b - a) * share) for a, b in zip(paper, end))
    # The ink where it reads very well, else black or white: one of these always reaches 4.58:1.
    text = max((ink, (0, 0, 0), (255, 255, 255)), key=lambda colour: min(contrast(colour, ground), 7))
    rule = end if contrast(end, ground) >= 3 else text
    return ground, text, rule, (share >= 0.1) + (share >= 0.35) + (share >= 0.7)


def contrast(one, other) -> float:
    """The WCAG contrast ratio of two (red, green, blue) colours, 1..21."""
    shares = np.array([one, other]) / 255
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    dark, bright = sorted(linear @ (0.2126, 0.7152, 0.0722) + 0.05)
    return float(bright / dark)


def _values(readings, name: str) -> list[np.ndarray]:
    """The importances as arrays within [-1, 1], nan kept. AtomError names the reading that does not fit."""
    values = []
    for index, reading in enumerate(readings):
        where, value = f"{name}[{index}]", np.array(reading.importance, float)
        words = getattr(reading, "words", None)
        if words is None and (value.ndim != 2 or not value.size):
            raise AtomError(f"{where}: importance has shape {value.shape}; give [rows, columns] of the patch grid")
        if words is not None and value.shape != (len(words),):
            raise AtomError(f"{where}: {len(words)} words, importance {value.shape}; give one each, nan for none")
        if np.any(np.abs(value) > 1 + 1e-6):
            raise AtomError(f"{where}: importance up to {np.nanmax(np.abs(value)):.6g}; it must lie in [-1, 1]")
        if reading.confidence is not None and not 0 <= reading.confidence <= 1 + 1e-6:
            raise AtomError(f"{where}: confidence {reading.confidence}; give a number in [0, 1], or None")
        values.append(value.clip(-1, 1))
    return values


def _scale(values: list[np.ndarray]) -> float:
    """The importance with the full colour: 1, unless all are so small that the page would look blank."""
    top = max((float(np.nan_to_num(np.abs(value)).max(initial=0)) for value in values), default=0)
    return top if 0 < top < 0.3 else 1.0


def _outcome(reading) -> tuple[str, str, str, str]:
    """"wrong" or "", then the predicted and the true class and the confidence, each "" if unknown."""
    predicted, true = ("" if name is None else str(name) for name in (reading.predicted, reading.label))
    # A confidence that is not quite 1 (or 0) must not read as if it were.
    sure = "" if reading.confidence is None else f"{min(max(reading.confidence, 0.0), 1):.0%}"
    if reading.confidence is not None and reading.confidence < 1 and sure == "100%": sure = ">99%"
    return "wrong" if predicted and true and predicted != true else "", predicted, true, sure


def _fitted(image: Image.Image, size: int) -> Image.Image:
    """The picture with its longest side `size`; pixels of tiny pictures stay squares, transparency becomes white."""
    if image.mode not in ("L", "RGB"):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    longest = max(image.size)
    shape = [max(1, round(side * size / longest)) for side in image.size]
    return image.resize(shape, Image.Resampling.NEAREST if 2 * longest <= size else Image.Resampling.LANCZOS)


def _wrap(words, pixels: int, width: float, line: int) -> list[tuple[str, float, float, float]]:
    """Each word as (word, its width, x, y) in lines of `width` pixels."""
    font, places, x, y = ImageFont.load_default(size=pixels), [], 0.0, 0
    for word in words:
        wide = min(font.getlength(_ascii(word)), width)
        x, y = (0.0, y + line) if x and x + wide > width else (x, y)
        places.append((word, wide, x, y))
        x += wide + 9
    return places


def _ascii(text) -> str:
    """The text in the letters of Pillow's built-in font, as far as it goes: no accents, plain dashes."""
    parts = unicodedata.normalize("NFKD", _clean(text).translate(str.maketrans("−–—␣", "---_")).replace("ß", "ss"))
    return "".join(part for part in parts if not unicodedata.combining(part))


def _print(draw, spot, text: str, pixels: int, width: float, fill=INK, anchor="ms") -> None:
    """Draw one line of text, cut with an ellipsis where it would be wider than `width`."""
    font, text, whole = ImageFont.load_default(size=pixels), _ascii(text), True
    while text and font.getlength(text + "…" * (not whole)) > width:
        text, whole = text[:-1], False
    draw.text(spot, text + "…" * (not whole), fill, font, anchor)


def _print_scale(draw, middle: float, top: float, scale: float) -> None:
    """Draw the colour bar with its ends and its zero, and what they mean, around x = `middle`."""
    for x in range(-220, 221):
        paper = (..)
        draw.line(...)
    tick = ...


def _clean(value):
    return value if isinstance(value, Markup) else FORBIDDEN.sub("\ufffd", str(value))


def _png(picture) -> bytes:
    picture.save(buffer := io.BytesIO(), "PNG", optimize=True)
    return buffer.getvalue()


def _save(path, content: bytes) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
