"""Pictures of more than 8 bits, beside a naive scaling."""

import numpy as np
import pytest
from PIL import Image

from atom_hf.utils.pictures import eight_bit, has_colour, has_transparency, in_mode
from helpers.error_messages import error_message

pytestmark = pytest.mark.promise(
    "A picture that is broken, has more than 8 bits, or is not seen in full is scaled, counted or rejected by name.",
    "every mode of a picture, on every scale",
)


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([0, 257, 32896, 65535], np.uint16, [0, 1, 128, 255]),
        ([0, 1000, 1000, 1000], np.uint16, [0, 4, 4, 4]),  # white is what 16 bits can hold
        ([0, 1, 128, 255], np.int32, [0, 1, 128, 255]),
        ([0, 257, 32896, 65535], np.int32, [0, 1, 128, 255]),
        ([0, 0.25, 0.5, 1], np.float32, [0, 64, 128, 255]),
        ([0, 1, 128, 255], np.float32, [0, 1, 128, 255]),
        ([0, 257, 32896, 65535], np.float32, [0, 1, 128, 255]),
        ([0, 0, 0, 0], np.float32, [0, 0, 0, 0]),
    ],
)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_deep_pictures_are_scaled(values, kind, expected, mode):
    image = Image.fromarray(np.array(values, dtype=kind).reshape(2, 2))
    assert np.asarray(eight_bit(image)).ravel().tolist() == expected
    assert np.asarray(in_mode(image, mode)).reshape(4, -1)[:, 0].tolist() == expected


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([-1, 0], np.float32),
        ([0, 1e6], np.float32),
        ([0, np.nan], np.float32),
        ([0, np.inf], np.float32),
        ([-5, 9], np.int32),
    ],
)
def test_values_without_a_scale(values, kind):
    image = Image.fromarray(np.array([values], dtype=kind))
    error_message(lambda: eight_bit(image), "the picture's values run from", "give a picture of values from 0 to")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_other_pictures_stay_as_they_are(mode):
    image = Image.new("RGB", (2, 2), (10, 20, 30)).convert(mode)
    assert eight_bit(image) is image
    assert in_mode(image, "RGB").tobytes() == image.convert("RGB").tobytes()


def test_a_mode_that_is_not_converted():
    error_message(
        lambda: in_mode(Image.new("LAB", (2, 2)), "L"),
        "the picture's mode LAB cannot be converted to L; save it as RGB",
    )


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("RGB", (9, 9, 9), False),
        ("RGB", (9, 99, 9), True),
        ("P", (9, 99, 9), True),
        ("CMYK", (200, 0, 0), True),
        ("L", (9, 99, 9), False),
    ],
)
def test_colour_is_of_pixels_and_not_of_modes(mode, colour, expected):
    assert has_colour(Image.new("RGB", (2, 2), colour).convert(mode)) == expected


def test_transparency_is_of_pixels_too():
    assert not has_transparency(Image.new("RGBA", (2, 2), (0, 0, 0, 255))) and not has_transparency(
        Image.new("L", (2, 2))
    )
    assert has_transparency(Image.new("RGBA", (2, 2), (0, 0, 0, 200))) and has_transparency(
        Image.new("LA", (2, 2), (0, 0))
    )
