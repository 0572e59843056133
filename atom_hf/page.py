"""What the heads found, to look at: one offline HTML page, or one PNG, of tables, pictures and words."""

import base64
import io
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader
from PIL import Image, ImageDraw, ImageFont

from .errors import AtomError
from .readings import ImageReading, TextReading

MEANING = (
    "As the paper reads it: +1 carries meaning and tells the sample apart;",
    "−1 tells it apart without carrying meaning;",
    "0 carries meaning but does not tell it apart.",
)
# Blue and vermillion stay apart under every common colour blindness, and both show on white and on dark paper.
NEGATIVE, POSITIVE = (42, 123, 192), (226, 100, 28)
PAPER, INK, MUTED = (255, 255, 255), (29, 28, 26), (97, 93, 87)
LEVELS = 20  # steps of strength per sign: finer than the eye tells apart, few enough for one CSS class each
# Control characters break HTML, lone surrogates UTF-8, and bidi overrides would reorder what follows them.
FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
PLAIN = {ord("−"): "-", ord("–"): "-", ord("—"): "-", ord("ß"): "ss"}  # what NFKD leaves outside Pillow's font


@dataclass(frozen=True)
class Table:
    """Ready strings; each row has as many cells as the header, and its first cell names the row."""

    caption: str
    header: list[str]
    rows: list[list[str]]
    note: str = ""


def write_page(path, *, title: str, intro: str = "", tables: list = (), images: list = (), texts: list = ()) -> Path:
    """Write one HTML file of Tables, ImageReadings and TextReadings that needs no network; return its path.

    A blank line in `intro` starts a paragraph. AtomError: nothing to show, or a table or reading that does not fit.
    """
    if not (tables or images or texts):
        raise AtomError("write_page: tables, images and texts are all empty; give at least one table or reading")
    for table in tables:
        if odd := [len(row) for row in table.rows if len(row) != len(table.header)]:
            raise AtomError(f"table {table.caption!r}: {len(table.header)} cells in the header but {odd[0]} in a row")
    values, scale = _values(images=images, texts=texts)
    readings, absent = list(zip([*images, *texts], values, strict=True)), any(np.isnan(value).any() for value in values)
    show = {"title": title, "intro": intro, "tables": tables, "readings": readings, "pictures": len(images)}
    return _save(path, TEMPLATES.get_template("page.html.j2").render(show, scale=scale, absent=absent).encode())


def heat_map(reading: ImageReading, size: int = 168, scale: float = 1.0) -> Image.Image:
    """The picture in grey under its importance, RGB, longest side `size`; an importance of `scale` has full colour.

    Patches with nan are hatched; the strongest bear + or -, so that the sign shows without colour. AtomError: a misfit.
    """
    (grid,), _ = _values(images=[reading])
    grey = np.asarray(_fitted(reading.image, size).convert("L"), float)[..., None]
    (high, wide), (rows, columns) = grey.shape[:2], grid.shape
    value = grid[np.arange(high) * rows // high][:, np.arange(wide) * columns // wide]
    strength = 0.85 * np.nan_to_num(np.abs(value) / scale).clip(0, 1)[..., None]
    # The picture is lifted to a light grey, so that a colour over it says importance and not brightness.
    rgb = (152 + grey * 98 / 255) * (1 - strength) + np.where(value[..., None] < 0, NEGATIVE, POSITIVE) * strength
    rgb[np.isnan(value) & (np.add.outer(np.arange(high), np.arange(wide)) * 28 // size % 2 == 0)] = 96
    picture = Image.fromarray(rgb.round().astype(np.uint8))
    draw, known, side = ImageDraw.Draw(picture), np.nan_to_num(grid), min(high / rows, wide / columns)
    arm, thick = min(side / 5, size / 32), max(1, round(min(side, size / 8) / 16))
    for row, column in np.argwhere(np.abs(known) >= max(0.55 * np.abs(known).max(), 0.1 * scale)) if side >= 5 else ():
        x, y = round((column + 0.5) * wide / columns), round((row + 0.5) * high / rows)
        for across, down in ((arm, 0), (0, arm))[: 2 if known[row, column] > 0 else 1]:
            draw.line((x - across, y - down, x + across, y + down), INK, thick)
    return picture


def write_sheet(path, images: list[ImageReading], columns: int = 8) -> Path:
    """Write a PNG of all pictures (original, heat map, "predicted (true)") and one colour scale; return its path."""
    if not images or columns < 1:
        raise AtomError(f"write_sheet: {len(images)} images in {columns} columns; give at least one of each")
    scale, side, gap, margin, columns = _values(images=images)[1], 168, 34, 44, min(columns, len(images))
    step, tall, width = side + gap, 2 * side + 74 + gap, max(columns * (side + gap) - gap, 560) + 2 * margin
    draw = ImageDraw.Draw(sheet := Image.new("RGB", (width, -(-len(images) // columns) * tall + margin + 140), PAPER))
    for index, reading in enumerate(images):
        left, top = (width - columns * step + gap) // 2 + index % columns * step, margin + index // columns * tall
        for picture, middle in ((_fitted(reading.image, side), 84), (heat_map(reading, side, scale), 260)):
            sheet.paste(picture, (left + (side - picture.width) // 2, top + middle - picture.height // 2))
        wrong, predicted, true, sure = _outcome(reading)
        _print(draw, (left + side / 2, top + 2 * side + 36), f"{predicted} ({true})" if true else predicted, 20, side)
        _print(draw, (left + side / 2, top + 2 * side + 58), f"{wrong} {sure}".strip(), 15, side, MUTED)
        if wrong:
            draw.rounded_rectangle((left - 10, top - 10, left + side + 9, top + 2 * side + 72), 6, None, INK, 2)
    _print_scale(draw, width / 2, sheet.height - 140, scale)
    return _save(path, _png(sheet))


def write_words(path, texts: list[TextReading], width: int = 1000) -> Path:
    """Write a PNG of `width` pixels: words shaded by importance, the prediction at their right; return its path.

    Pillow's built-in font has Latin letters without accents only; others become boxes here, but show on the page.
    """
    if not texts or width < 480:
        raise AtomError(f"write_words: {len(texts)} texts, width {width}; give at least one text and 480 pixels")
    (values, scale), margin, line, side = _values(texts=texts), 44, 36, width // 5
    places = [_wrap([word.text for word in text.words], 19, width - 2 * margin - side - 20, line) for text in texts]
    heights = [max([line] + [y for *_, y in place]) + line + 40 for place in places]
    draw, top = ImageDraw.Draw(sheet := Image.new("RGB", (width, sum(heights) + 184), PAPER)), 24
    for text, value, place, height in zip(texts, values, places, heights, strict=True):
        for number, (word, wide, x, y) in zip(value, place, strict=True):
            x, y, fill = margin + x, top + 44 + y, MUTED if np.isnan(number) else INK
            if level := 0 if np.isnan(number) else round(number / scale * LEVELS):
                paper, fill, weight = word_style(level)
                draw.rounded_rectangle((x - 4, y - 20, x + wide + 3, y + 9), 4, paper)
                for dot in np.arange(x, x + wide - weight, 2 * weight + 1 if level < 0 else wide) if weight else ():
                    draw.rectangle((dot, y + 4, dot + weight if level < 0 else x + wide, y + 3 + weight), fill)
            _print(draw, (x, y), word, 19, wide + 1, fill, "ls")
        wrong, predicted, true, sure = _outcome(text)
        about = ", ".join(filter(None, (wrong, sure, true and f"true {true}")))
        _print(draw, (width - margin - side, top + 44), predicted, 19, side, INK, "ls")
        _print(draw, (width - margin - side, top + 70), about, 15, side, MUTED, "ls")
        if wrong:
            draw.rounded_rectangle((margin - 14, top + 6, width - margin + 13, top + height - 6), 6, None, INK, 2)
        top += height
    _print_scale(draw, width / 2, top + 20, scale)
    return _save(path, _png(sheet))


def word_style(level: int, paper=PAPER) -> tuple[tuple, tuple, int]:
    """Of a word at level -LEVELS..LEVELS: the colours of its ground and text, and the weight 0..3 of its underline."""
    share, end = abs(level) / LEVELS, NEGATIVE if level < 0 else POSITIVE
    ground = tuple(round(a + (b - a) * share) for a, b in zip(paper, end, strict=True))
    # Either black or white has a contrast of 4.5:1 with any colour; at this luminance they change places.
    light = np.dot((np.array(ground) / 255) ** 2.2, (0.2126, 0.7152, 0.0722)) > 0.18
    return ground, (0, 0, 0) if light else (255, 255, 255), (share >= 0.1) + (share >= 0.35) + (share >= 0.7)


def _values(**readings) -> tuple[list[np.ndarray], float]:
    """The importances, and which gets the full colour: 1, or where all are faint their largest. AtomError: a misfit."""
    values = []
    for where, reading in ((f"{name}[{i}]", one) for name, group in readings.items() for i, one in enumerate(group)):
        words = getattr(reading, "words", None)
        value = np.array(reading.importance if words is None else [word.importance for word in words], float)
        if words is None and (value.ndim != 2 or not value.size):
            raise AtomError(f"{where}: importance has shape {value.shape}; give [rows, columns] of the patch grid")
        if np.any(np.abs(value) > 1 + 1e-6):
            raise AtomError(f"{where}: importance up to {np.nanmax(np.abs(value)):.6g}; it must lie in [-1, 1]")
        if reading.confidence is not None and not 0 <= reading.confidence <= 1 + 1e-6:
            raise AtomError(f"{where}: confidence {reading.confidence}; give a number in [0, 1], or None")
        values.append(value.clip(-1, 1))
    top = max(float(np.nan_to_num(np.abs(value)).max(initial=0)) for value in values) if values else 0.0
    return values, top if 0 < top < 0.3 else 1.0


def _outcome(reading) -> tuple[str, str, str, str]:
    """The word "wrong", the predicted and the true class, the confidence (100% only if it is 1); each "" for none."""
    predicted, true = ("" if name is None else str(name) for name in (reading.predicted, reading.label))
    wrong, sure = "wrong" if predicted and true and predicted != true else "", reading.confidence
    return wrong, predicted, true, "" if sure is None else f"{min(sure, 1 if sure >= 1 else 0.99):.0%}"


def _fitted(image: Image.Image, size: int) -> Image.Image:
    """The picture, L or RGB, longest side `size`; the pixels of tiny pictures stay squares."""
    if image.mode not in ("L", "RGB"):
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")
    shape = [max(1, round(side * size / max(image.size))) for side in image.size]
    return image.resize(shape, Image.Resampling.NEAREST if 2 * max(image.size) <= size else Image.Resampling.LANCZOS)


def _wrap(words, pixels: int, width: float, line: int) -> list[tuple[str, float, float, float]]:
    """Each word as (what Pillow can print of it, its width, x, y) in lines of `width` pixels."""
    font, places, x, y = ImageFont.load_default(size=pixels), [], 0.0, 0
    for word in words:
        wide = min(font.getlength(word := _plain(word) or "_"), width)
        x, y = (wide + 9, y + line) if x + wide > width else (x + wide + 9, y)
        places.append((word, wide, x - wide - 9, y))
    return places


def _plain(text) -> str:
    """The text in the letters of Pillow's built-in font, as far as they go: no accents, plain dashes, one line."""
    text = unicodedata.normalize("NFKD", " ".join(_clean(text).split())).translate(PLAIN)
    return "".join(part for part in text if not unicodedata.combining(part))


def _print(draw, spot, text: str, pixels: int, width: float, fill=INK, anchor="ms") -> None:
    """Draw one line of text, cut with an ellipsis where it would be wider than `width`."""
    font, text = ImageFont.load_default(size=pixels), _plain(text)[:500]
    while font.getlength(text) > width:
        text = text[:-2] + "…"
    draw.text(spot, text, fill, font, anchor)


def _print_scale(draw, middle: float, top: float, scale: float) -> None:
    """Draw the colour bar with its ends and its zero, and what they mean, around x = `middle`."""
    for x in range(-LEVELS, LEVELS + 1):
        draw.rectangle((middle + 10 * x - 5, top, middle + 10 * x + 5, top + 12), word_style(x)[0])
    for x, tick in ((-200, f"-{scale:.2g}"), (0, "0"), (200, f"+{scale:.2g}")):
        _print(draw, (middle + x, top + 34), tick, 16, 99)
    for line, part in enumerate(
        MEANING if scale == 1 else (*MEANING, "Here all are small: the scale ends at the largest.")
    ):
        _print(draw, (middle, top + 62 + 20 * line), part, 14, 2 * middle, MUTED)


def _clean(value):
    return value if hasattr(value, "__html__") else FORBIDDEN.sub("\ufffd", str(value))


def _png(picture: Image.Image) -> bytes:
    picture.save(buffer := io.BytesIO(), "PNG")
    return buffer.getvalue()


def _save(path, content: bytes) -> Path:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(content)
    return Path(path)


# finalize sees all that the template prints; what its own macros made is known by __html__.
TEMPLATES = Environment(loader=FileSystemLoader(Path(__file__).parent / "assets"), autoescape=True, finalize=_clean)
TEMPLATES.trim_blocks = TEMPLATES.lstrip_blocks = True
TEMPLATES.globals.update(outcome=_outcome, fitted=_fitted, heat_map=heat_map, word_style=word_style, levels=LEVELS)
TEMPLATES.globals.update(meaning=MEANING, data=lambda image: base64.b64encode(_png(image)).decode())
