"""Randomly changed samples: the same each time, and no more changed than is said."""

import numpy as np
from PIL import Image

from atom_hf.fragments.augmentation import Augmentation, change_sample

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)


def test_an_image_is_shifted_and_its_border_repeated():
    seen = set()
    for seed in range(200):
        moved = np.asarray(change_sample({"image": Image.fromarray(PIXELS)}, np.random.default_rng(seed))["image"])
        found = [
            (down, across)
            for down in range(-2, 3)
            for across in range(-3, 4)
            if np.array_equal(
                moved, PIXELS[(np.arange(20) + down).clip(0, 19)][:, (np.arange(30) + across).clip(0, 29)]
            )
        ]
        assert len(found) == 1
        seen.update(found)
    assert len(seen) == 35  # every shift of at most a tenth of a side


def test_images_of_any_mode_are_shifted():
    for mode in ("L", "1", "P", "RGBA", "I;16"):
        image = (
            Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 200)
            if mode == "I;16"
            else Image.fromarray(PIXELS).convert(mode)
        )
        assert change_sample({"image": image}, np.random.default_rng(0))["image"].size == (30, 20)


def test_about_a_tenth_of_the_words_is_left_out():
    text = " ".join(f"word{n}" for n in range(2000))
    row = change_sample({"text": text, "text_pair": "one"}, np.random.default_rng(0))
    kept = row["text"].split()
    assert 1700 < len(kept) < 1900 and [word for word in text.split() if word in set(kept)] == kept
    assert row["text_pair"] == "one"  # never without a word


def test_copies_are_the_same_each_time_however_they_are_batched():
    rows = [{"text": " ".join(f"{name}{n}" for n in range(30))} for name in "abcd"]
    augmentation = Augmentation(3, change_sample, seed=5)
    whole = list(augmentation.copies(rows, 0))
    halves = [list(augmentation.copies(rows[:2], 0)), list(augmentation.copies(rows[2:], 2))]
    assert whole == [first + second for first, second in zip(*halves, strict=True)]
    assert len({copy[0]["text"] for copy in whole}) == 3
    assert list(Augmentation(1, change_sample, seed=6).copies(rows, 0)) != whole[:1]
