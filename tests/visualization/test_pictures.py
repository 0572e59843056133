"""The PNGs: heat maps, sheets of pictures, and words on their colours."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from atom_hf.errors import AtomError
from atom_hf.importance.results import ImageImportance
from atom_hf.visualization.colors import NEGATIVE, POSITIVE
from atom_hf.visualization.pictures import heat_map, write_sheet, write_words
from helpers.importances import HOSTILE, NAN, picture, text

FULL = {
    "images": [
        picture(np.linspace(-1, 1, 16).reshape(4, 4), label="3", predicted="3", confidence=0.9999),
        picture([[0.5, NAN], [-0.25, 0]], (30, 50), label="8", predicted="3", confidence=0.41),
    ],
    "texts": [
        text("Rough winds — do", [0.42, -0.42, NAN, 0.001], label="Shakespeare", predicted="Shakespeare", confidence=1),
        text("I celebrate", [-1, 1], label="Whitman", predicted="Dickinson", confidence=0.5),
    ],
}


def test_heat_map_colours():
    flat = ImageImportance(Image.new("L", (4, 4), 128), np.array([[1.0, -1.0], [0.0, NAN]]))
    pixels = np.asarray(heat_map(flat, 80), int)
    assert pixels.shape == (80, 80, 3)
    high, low, zero = pixels[4, 4], pixels[4, 75], pixels[75, 4]
    assert np.abs(high - POSITIVE).max() < 40 and np.abs(low - NEGATIVE).max() < 40
    assert high[0] > high[2] + 100 and low[2] > low[0] + 80
    assert np.ptp(zero) == 0 and zero[0] > 128
    hatched = pixels[40:, 40:]
    assert np.ptp(hatched, axis=2).max() == 0 and len(np.unique(hatched)) == 2
    assert 0.3 < (hatched == hatched.min()).mean() < 0.7


def test_heat_map_follows_scale_size_and_patches():
    faint = picture([[0.1, -0.1]])
    assert np.abs(np.asarray(heat_map(faint, 80, scale=0.1), int)[2, 2] - POSITIVE).max() < 50
    assert np.ptp(np.asarray(heat_map(faint, 80), int)[2, 2]) < 30
    assert heat_map(picture([[1]], (30, 60)), 120).size == (120, 60)
    assert heat_map(picture(np.zeros((14, 14)), (224, 224))).size == (168, 168)
    assert heat_map(picture(np.full((224, 224), NAN), (300, 2))).size == (1, 168)
    # Pixels of a tiny picture become squares: as many greys as it has pixels, and no more.
    assert len(np.unique(np.asarray(heat_map(picture([[0]]), 168)))) <= 64


def test_heat_map_colours_only_what_the_model_saw():
    # A picture twice as wide as high, of which the middle square was seen.
    wide = ImageImportance(Image.new("L", (80, 40), 128), np.array([[1.0, -1.0]]), box=(20, 0, 60, 40))
    pixels = np.asarray(heat_map(wide, 160), int)
    assert pixels.shape == (80, 160, 3)
    assert np.ptp(pixels[:, :40], axis=2).max() == 0 == np.ptp(pixels[:, 120:], axis=2).max()
    assert pixels[:, :40].max() < 100
    assert pixels[5, 45, 0] > pixels[5, 45, 2] + 100 and pixels[5, 115, 2] > pixels[5, 115, 0] + 80
    # The same as the result says of the picture's own pixels (above the marks of the signs).
    assert (np.isnan(wide.on_pixels()[:8]) == (pixels[:16:2, ::2].max(axis=2) < 100)).all()
    # Padding: what lies beyond the picture is not drawn.
    padded = replace(wide, importance=np.array([[1.0], [-1.0], [0.5]]), box=(0, -40, 80, 80))
    pixels = np.asarray(heat_map(padded, 80), int)
    assert (pixels[5:35, 5, 2] > pixels[5:35, 5, 0]).all()


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "1"])
def test_pictures_of_any_mode(mode):
    result = ImageImportance(Image.new("RGB", (8, 8), "white").convert(mode), np.zeros((2, 2)))
    assert heat_map(result).getpixel((5, 5)) == (250, 250, 250)


def test_the_sign_shows_without_colour(tmp_path):
    # Of a positive and a negative mark on equal ground, only the first has a vertical arm.
    plus, minus = (np.asarray(heat_map(picture([[value]], (8, 8)), 90).convert("L"), int) for value in (0.8, -0.8))
    for marked, vertical in ((plus, True), (minus, False)):
        assert marked[45, 46] < 60
        assert (marked[44 - 2, 45] < 60) == vertical
    lines = []
    for value in (1, -1):
        write_words(tmp_path / "words.png", [text("mmmmmmmm", [value])])
        with Image.open(tmp_path / "words.png") as image:
            lines.append(np.asarray(image.convert("L"), int)[88, 50:110] < 20)
    assert lines[0].all() and 0.2 < lines[1].mean() < 0.8


def test_sheet(tmp_path):
    path = write_sheet(tmp_path / "new" / "sheet.png", [picture([[1, -1]], label="1", predicted="1")] * 9, columns=4)
    assert path == tmp_path / "new" / "sheet.png"
    with Image.open(path) as image:
        assert image.format == "PNG" and image.width > 4 * 168 and image.height > 3 * 2 * 168
        pixels = np.asarray(image.convert("RGB"), int)
    heat = pixels[44 + 176 : 44 + 176 + 168, 44 : 44 + 168]
    assert heat[9, 9, 0] > heat[9, 9, 2] + 80 and heat[9, -9, 2] > heat[9, -9, 0] + 80
    sizes = []
    for images in (FULL["images"][:1], FULL["images"]):
        with Image.open(write_sheet(tmp_path / "sheet.png", images)) as image:
            sizes.append(image.size)
    assert sizes[0] == sizes[1]  # one or two columns: the scale needs the width


def test_a_wrong_sample_has_a_frame(tmp_path):
    for write, right, wrong in (
        (write_sheet, picture([[0]], label="a", predicted="a"), picture([[0]], label="b", predicted="a")),
        (write_words, text("a", [1], label="a", predicted="a"), text("a", [1], label="b", predicted="a")),
    ):
        dark = []
        for result in (right, wrong):
            with Image.open(write(tmp_path / "x.png", [result])) as image:
                dark.append((np.asarray(image.convert("L")) < 60).sum(axis=1).max())
        assert dark[1] > dark[0] + 8


def test_words(tmp_path):
    path = write_words(tmp_path / "words.png", FULL["texts"], width=700)
    with Image.open(path) as image:
        assert image.format == "PNG" and image.width == 700 and image.height > 200
        colours = {pixel for _, pixel in image.getcolors(100_000)}
    assert {NEGATIVE, POSITIVE} <= colours
    # A word and a name that are wider than the picture are cut, not drawn over its edge.
    long = text("m" * 5000 + " é—ß ab\ncd", [1, -1, 0, NAN], label="n" * 5000, predicted="m" * 5000)
    write_words(path, [long], width=480)
    with Image.open(path) as image:
        assert image.width == 480 and (np.asarray(image.convert("L"))[:, -20:] == 255).all()


def test_lines_of_the_text_stay_lines(tmp_path):
    heights = []
    for source in ("a b c d e", "a b\nc d\ne", "a\nb\nc\nd\ne"):
        with Image.open(write_words(tmp_path / "words.png", [text(source, [1] * 5)])) as image:
            heights.append(image.height)
    assert heights[0] < heights[1] == heights[2] - 2 * 36


def test_the_legend_and_the_scale_are_in_the_picture(tmp_path):
    pictures = []
    for values, fitted in (([0.1, -0.2], False), ([1, -0.2], False), ([1, -0.2], True)):
        pictures.append(write_words(tmp_path / "words.png", [text("a b", values)], fitted=fitted).read_bytes())
    assert len(set(pictures)) == 3


def test_hostile_and_long_texts(tmp_path):
    about = {"label": HOSTILE, "predicted": HOSTILE + "!"}
    write_words(tmp_path / "words.png", [text(HOSTILE, [1] * len(HOSTILE.split()), **about), text("", [])])
    write_sheet(tmp_path / "sheet.png", [picture([[1]], **about)])
    values = np.random.default_rng(0).uniform(-1, 1, 1000).tolist()
    long = text(" ".join(f"word{i}" for i in range(1000)), values)
    with Image.open(write_words(tmp_path / "words.png", [long])) as image:
        assert image.width == 1000 and image.height > 3000


@pytest.mark.parametrize(
    "write, what, says",
    [
        (write_sheet, {"images": []}, "0 images"),
        (write_sheet, {"images": [picture([[0]])], "columns": 0}, "in 0 columns"),
        (write_sheet, {"images": [picture([[2]])]}, "must lie in"),
        (write_words, {"texts": []}, "0 texts"),
        (write_words, {"texts": [text("a", [0])], "width": 100}, "width 100"),
    ],
)
def test_what_cannot_be_drawn_is_rejected(tmp_path, write, what, says):
    with pytest.raises(AtomError, match=says):
        write(tmp_path / "out", **what)
    assert not list(tmp_path.iterdir())


def test_rounding_beyond_1_is_forgiven():
    assert np.isfinite(np.asarray(heat_map(picture([[-1 - 5e-7]])))).all()
