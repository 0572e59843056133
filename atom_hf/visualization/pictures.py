"""Token importance as PNGs: pictures under their heat maps, words on their colours."""

import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..errors import AtomError
from ..importance.results import ImageImportance, TextImportance
from ..utils.files import write_atomically
from .colors import INK, LEVELS, MUTED, NEGATIVE, PAPER, POSITIVE, level_of, word_style
from .legend import meaning
from .values import checked_scale, outcome, plain
from .words import runs


def heat_map(result: ImageImportance, size: int = 168, scale: float = 1.0) -> Image.Image:
    """The picture in grey under its importance, RGB, longest side `size`; an importance of `scale` has full colour.

    Patches with nan are hatched, what the model did not see is dark; the strongest patches bear + or -, so that the sign
    shows without colour. AtomError: a misfit.
    """
    checked_scale(images=[result])
    grey = np.asarray(resized(result.image, size).convert("L"), float)[..., None]
    (high, wide), grid = grey.shape[:2], np.asarray(result.importance, float)
    left, top, right, bottom = result.box or (0, 0, *result.image.size)
    across, down = wide / result.image.width, high / result.image.height
    small = replace(result, image=Image.new("1", (wide, high)), importance=grid)
    small = replace(small, box=(left * across, top * down, right * across, bottom * down))
    value, seen = small.on_pixels(), ~np.isnan(replace(small, importance=np.zeros((1, 1))).on_pixels())
    strength = 0.85 * np.nan_to_num(np.abs(value) / scale).clip(0, 1)[..., None]
    # The picture is lifted to a light grey, so that a colour over it says importance and not brightness.
    rgb = (152 + grey * 98 / 255) * (1 - strength) + np.where(value[..., None] < 0, NEGATIVE, POSITIVE) * strength
    stripes = np.add.outer(np.arange(high), np.arange(wide)) * 28 // size % 2 == 0
    rgb[np.isnan(value) & seen & stripes] = 96
    rgb[~seen] = 40 + 0.3 * np.broadcast_to(grey, rgb.shape)[~seen]
    picture = Image.fromarray(rgb.round().astype(np.uint8))
    _print_signs(picture, result, np.nan_to_num(grid), scale)
    return picture


def _print_signs(picture: Image.Image, result: ImageImportance, grid: np.ndarray, scale: float) -> None:
    """Draw + or - into the strongest patches, where these are large enough."""
    (wide, high), (width, height), size = picture.size, result.image.size, max(picture.size)
    left, top, right, bottom = result.box or (0, 0, width, height)
    across, down = (right - left) / grid.shape[1] * wide / width, (bottom - top) / grid.shape[0] * high / height
    if (side := min(across, down)) < 5:
        return
    draw, arm, thick = ImageDraw.Draw(picture), min(side / 5, size / 32), max(1, round(min(side, size / 8) / 16))
    for row, column in np.argwhere(np.abs(grid) >= max(0.55 * np.abs(grid).max(), 0.1 * scale)):
        x, y = round(left * wide / width + (column + 0.5) * across), round(top * high / height + (row + 0.5) * down)
        for dx, dy in ((arm, 0), (0, arm))[: 2 if grid[row, column] > 0 else 1]:
            draw.line((x - dx, y - dy, x + dx, y + dy), INK, thick)


def write_sheet(path, images: list[ImageImportance], columns: int = 8, *, fitted: bool = False) -> Path:
    """Write a PNG of all pictures (original, heat map, "predicted (true)") and one colour scale; return its path."""
    if not images or columns < 1:
        raise AtomError(f"write_sheet: {len(images)} images in {columns} columns; give at least one of each")
    scale, side, gap, margin, columns = checked_scale(images=images), 168, 34, 44, min(columns, len(images))
    step, tall, width = side + gap, 2 * side + 74 + gap, max(columns * (side + gap) - gap, 560) + 2 * margin
    draw = ImageDraw.Draw(sheet := Image.new("RGB", (width, -(-len(images) // columns) * tall + margin + 140), PAPER))
    for index, result in enumerate(images):
        left, top = (width - columns * step + gap) // 2 + index % columns * step, margin + index // columns * tall
        for picture, middle in ((resized(result.image, side), 84), (heat_map(result, side, scale), 260)):
            sheet.paste(picture, (left + (side - picture.width) // 2, top + middle - picture.height // 2))
        wrong, predicted, true, sure = outcome(result)
        print_text(
            draw, (left + side / 2, top + 2 * side + 36), f"{predicted} ({true})" if true else predicted, 20, side
        )
        print_text(draw, (left + side / 2, top + 2 * side + 58), f"{wrong} {sure}".strip(), 15, side, MUTED)
        if wrong:
            draw.rounded_rectangle((left - 10, top - 10, left + side + 9, top + 2 * side + 72), 6, None, INK, 2)
    _print_scale(draw, width / 2, sheet.height - 140, scale, meaning(fitted))
    return save(path, png(sheet))


def write_words(path, texts: list[TextImportance], width: int = 1000, *, fitted: bool = False) -> Path:
    """Write a PNG of `width` pixels: words shaded by importance, the prediction at their right; return its path.

    Pillow's built-in font has Latin letters without accents only; others become boxes here, but show on the page.
    """
    if not texts or width < 480:
        raise AtomError(f"write_words: {len(texts)} texts, width {width}; give at least one text and 480 pixels")
    scale, margin, line, side = checked_scale(texts=texts), 44, 36, width // 4
    places = [_wrap(text, 19, width - 2 * margin - side - 20, line) for text in texts]
    judged = [line if outcome(text)[2] else 0 for text in texts]  # of a text whose class is known, a second line
    heights = [max([line + extra] + [y for *_, y in place]) + 20 for place, extra in zip(places, judged, strict=True)]
    draw = ImageDraw.Draw(sheet := Image.new("RGB", (width, sum(heights) + 216), PAPER))
    right, top = width - margin - side, 46
    for spot, heading in ((margin, "importance of each word"), (right, "prediction")):
        print_text(draw, (spot, 36), heading, 15, side, MUTED, "ls")
    for text, place, height in zip(texts, places, heights, strict=True):
        for word, importance, wide, x, y in place:
            x, y, fill = margin + x, top + 36 + y, MUTED if np.isnan(importance) else INK
            if level := level_of(importance, scale):
                paper, fill, weight = word_style(level)
                draw.rounded_rectangle((x - 2, y - 20, x + wide + 1, y + 9), 4, paper)
                for dot in np.arange(x, x + wide - weight, 2 * weight + 1 if level < 0 else wide) if weight else ():
                    draw.rectangle((dot, y + 4, dot + weight if level < 0 else x + wide, y + 3 + weight), fill)
            print_text(draw, (x, y), word, 19, wide + 1, fill, "ls")
        wrong, predicted, true, sure = outcome(text)
        sure_at = width - margin - 46 if sure else width - margin
        print_text(draw, (right, top + 36), predicted, 19, sure_at - right - 8, INK, "ls")
        print_text(draw, (width - margin, top + 36), sure, 19, 60, MUTED, "rs")
        about = ", ".join(filter(None, (wrong, true and f"true {true}")))
        print_text(draw, (right, top + 62), about, 15, side, MUTED, "ls")
        if wrong:
            draw.rounded_rectangle((margin - 14, top + 4, width - margin + 13, top + height - 8), 6, None, INK, 2)
        top += height
    _print_scale(draw, width / 2, top + 20, scale, meaning(fitted))
    return save(path, png(sheet))


def resized(image: Image.Image, size: int) -> Image.Image:
    """The picture, L or RGB, longest side `size`; the pixels of tiny pictures stay squares."""
    if image.mode not in ("L", "RGB"):
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")
    shape = [max(1, round(side * size / max(image.size))) for side in image.size]
    return image.resize(shape, Image.Resampling.NEAREST if 2 * max(image.size) <= size else Image.Resampling.LANCZOS)


def _wrap(result: TextImportance, pixels: int, width: float, line: int) -> list[tuple[str, float, float, float, float]]:
    """Each word and each mark between words: (what Pillow can print, importance, its width, x, y), in lines of `width`."""
    font, places, x, y, gap = ImageFont.load_default(size=pixels), [], 0.0, 0, 9
    for runs_of_source in runs(result):
        for run in runs_of_source:
            for part in [run.text] if run.word else re.findall(r"\n|[^\S\n]+|\S+", run.text):
                if run.word is None and not part.strip():
                    x, y = (0.0, y + line) if part == "\n" and x else (x + (gap if x else 0), y)
                    continue
                wide = min(font.getlength(word := plain(part) or "_"), width)
                x, y = (0.0, y + line) if x and x + wide > width else (x, y)
                places.append((word, run.word.importance if run.word else float("nan"), wide, x, y))
                x += wide + 4  # grounds touch neither each other nor a neighbour's letters
        x, y = (0.0, y + line) if x else (x, y)
    return places


def print_text(draw, spot, text: str, pixels: int, width: float, fill=INK, anchor="ms") -> None:
    """Draw one line of text, cut with an ellipsis where it would be wider than `width`."""
    font, text = ImageFont.load_default(size=pixels), plain(text)[:500]
    while font.getlength(text) > width:
        text = text[:-2] + "…"
    draw.text(spot, text, fill, font, anchor)


def wrapped(text: str, pixels: int, width: float) -> list[str]:
    """The lines of a text, broken at white space where they would be wider than `width`; none of an empty one."""
    font, lines = ImageFont.load_default(size=pixels), []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _print_scale(draw, middle: float, top: float, scale: float, says: tuple[str, ...]) -> None:
    """Draw the colour bar with its ends and its zero, and what they mean, around x = `middle`."""
    for x in range(-LEVELS, LEVELS + 1):
        draw.rectangle((middle + 10 * x - 5, top, middle + 10 * x + 5, top + 12), word_style(x)[0])
    for x, tick in ((-200, f"-{scale:.2g}"), (0, "0"), (200, f"+{scale:.2g}")):
        print_text(draw, (middle + x, top + 34), tick, 16, 99)
    says = says if scale == 1 else (*says, "Here all are small: the scale ends at the largest.")
    for line, part in enumerate(says):
        print_text(draw, (middle, top + 62 + 20 * line), part, 14, 2 * middle, MUTED)


def png(picture: Image.Image) -> bytes:
    picture.save(buffer := io.BytesIO(), "PNG")
    return buffer.getvalue()


def save(path, content: bytes) -> Path:
    return write_atomically(path, content)
