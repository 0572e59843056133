"""Images as a denoiser takes them."""

import numpy as np
import torch
from PIL import Image

from atom_hf.generation.images import ImageRows, pixels_of


def picture(height, width, mode="RGB"):
    rng = np.random.default_rng(0)
    shape = (height, width) if mode == "L" else (height, width, 3)
    return Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))


def test_pixels_are_scaled_to_minus_one_to_one():
    image = picture(4, 6)
    expected = torch.from_numpy(np.asarray(image).astype(np.float32)).permute(2, 0, 1) / 127.5 - 1
    assert torch.equal(pixels_of(image, (4, 6), 3), expected)
    grey = pixels_of(image, (4, 6), 1)
    assert grey.shape == (1, 4, 6) and grey.min() >= -1 and grey.max() <= 1
    assert pixels_of(picture(4, 4, "L"), (4, 4), 3).shape == (3, 4, 4)


def test_the_middle_is_kept_of_what_is_too_wide_or_high():
    wide, high = picture(8, 14), picture(14, 8)
    assert torch.equal(pixels_of(wide, (8, 8), 3), pixels_of(wide.crop((3, 0, 11, 8)), (8, 8), 3))
    assert torch.equal(pixels_of(high, (8, 8), 3), pixels_of(high.crop((0, 3, 8, 11)), (8, 8), 3))
    assert pixels_of(wide, (4, 4), 3).shape == (3, 4, 4) and pixels_of(picture(1, 50), (16, 16), 3).shape == (3, 16, 16)


def test_rows():
    rows = [{"image": picture(4, 4), "label": 2}]
    assert ImageRows(rows, (4, 4), 3, labelled=True)[0]["labels"] == 2 and len(ImageRows(rows, (4, 4), 3)) == 1
    plain = ImageRows(rows, (4, 4), 3)[0]
    assert set(plain) == {"pixel_values"}
    torch.manual_seed(0)
    seen = [ImageRows(rows, (4, 4), 3, flip=True)[0]["pixel_values"] for _ in range(20)]
    mirrored = [torch.equal(one, plain["pixel_values"].flip(-1)) for one in seen]
    assert {True, False} == set(mirrored)
    assert all(
        torch.equal(one, plain["pixel_values"]) for one, flipped in zip(seen, mirrored, strict=True) if not flipped
    )
