"""The place of a processor's pixels: by a bright square whose place is known, and by what each processor documents."""

import importlib
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from atom_hf.data.encoding import image_inputs
from atom_hf.importance.visible_region import seen_box


def processor(model, name, **settings):
    module = importlib.import_module(f"transformers.models.{model}.image_processing_pil_{model}")
    return getattr(module, f"{name}ImageProcessorPil")(**settings)


SQUASHING = processor("vit", "ViT", size={"height": 24, "width": 36})
CROPPING = processor("clip", "CLIP", size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})
ENLARGING = processor("convnext", "ConvNext", size={"shortest_edge": 70}, crop_pct=0.875)  # to 80, and the middle 70
LEVIT = processor(
    "levit", "Levit", size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}
)  # resized by 256/224 of its own accord
PADDING = processor("clip", "CLIP", do_resize=False, crop_size={"height": 60, "width": 60})
CROPS = [
    (SQUASHING, (120, 90), (0, 0, 120, 90)),
    (CROPPING, (160, 80), (40, 0, 120, 80)),
    (CROPPING, (56, 224), (0, 84, 56, 140)),
    (ENLARGING, (160, 160), (10, 10, 150, 150)),
    (LEVIT, (128, 256), (8, 72, 120, 184)),
    (PADDING, (40, 100), (-10, 20, 50, 80)),
]


def config(channels):
    return SimpleNamespace(num_channels=channels)


@pytest.mark.parametrize(("given", "size", "box"), CROPS)
def test_boxes_that_can_be_worked_out_by_hand(given, size, box):
    assert seen_box(given, size, config(3)) == pytest.approx(box, abs=0.1)


@pytest.mark.parametrize("edge", [32, 56, 224])
@pytest.mark.parametrize("size", [(300, 200), (150, 260), (640, 480), (333, 500)])
def test_boxes_are_right_to_a_thousandth_of_the_longer_side(edge, size):
    """The shorter side is resized to `edge`, the longer one in proportion and cut to whole pixels, as is the margin."""
    given = processor("clip", "CLIP", size={"shortest_edge": edge}, crop_size={"height": edge, "width": edge})
    resized = [edge if side == min(size) else side * edge // min(size) for side in size]
    margins = [(side - edge) // 2 for side in resized]
    left, top = (margin * side / small for margin, side, small in zip(margins, size, resized, strict=True))
    box = (left, top, left + edge * size[0] / resized[0], top + edge * size[1] / resized[1])
    assert seen_box(given, size, config(3)) == pytest.approx(box, abs=max(size) / 1000)


@pytest.mark.parametrize(("given", "size", "_box"), CROPS)
def test_a_bright_square_is_where_the_box_says(given, size, _box):
    """Pixels that come out bright lie, brought back by the box, in the square that was painted."""
    width, height = size
    x, y, side = width // 2 - 3, height // 2 - 11, 14
    painted = np.zeros((height, width, 3), np.uint8)
    painted[y : y + side, x : x + side] = 255
    pixels = np.asarray(image_inputs([Image.fromarray(painted)], given, config(3)))[0].mean(0)
    rows, columns = np.nonzero(pixels > (pixels.max() + np.median(pixels)) / 2)
    left, top, right, bottom = seen_box(given, size, config(3))
    wide, tall = (right - left) / pixels.shape[1], (bottom - top) / pixels.shape[0]
    found = (
        left + columns.min() * wide,
        top + rows.min() * tall,
        left + (columns.max() + 1) * wide,
        top + (rows.max() + 1) * tall,
    )
    # To half a pixel of either, the finer of which blurs the border.
    assert found == pytest.approx((x, y, x + side, y + side), abs=0.6 * max(wide, tall, 1))


def test_one_channel_and_tiny_pictures():
    grey = processor("vit", "ViT", size={"height": 8, "width": 8}, image_mean=[0.5], image_std=[0.5])
    for size in ((8, 8), (28, 28), (1, 1), (3, 200), (2, 1)):
        assert seen_box(grey, size, config(1)) == pytest.approx((0, 0, *size), abs=0.15 + 0.01 * max(size))


def test_a_processor_that_does_something_else_is_not_guessed_at():
    class Mirror:
        def __call__(self, images, return_tensors):
            pixels = np.stack([np.asarray(image, np.float32)[:, ::-1] for image in images])
            return {"pixel_values": pixels.transpose(0, 3, 1, 2)}

    class Blind:
        def __call__(self, images, return_tensors):
            return {"pixel_values": np.zeros((len(images), 3, 8, 8), np.float32)}

    assert seen_box(Mirror(), (30, 20), config(3)) is None
    assert seen_box(Blind(), (30, 20), config(3)) is None
