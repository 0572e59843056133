"""Results made by hand, and a set of them, for the tests of pages and pictures."""

import re

import numpy as np
from PIL import Image

from atom_hf.importance.results import ImageImportance, SampleAtom, TextImportance, WordImportance

NAN = float("nan")
HOSTILE = (
    '<script>alert("x")</script> \' " onmouseover="evil()" \u202eabc\u2066 \u200fשלום\x00 \ud800 & {{ 7*7 }} {% raw %}'
    "<img src=x onerror=alert(1)></style></title><svg onload=alert(2)>"
)


def picture(grid, shape=(8, 8), **about) -> ImageImportance:
    """A ramp of grey, `shape` = (height, width), under an importance of its patches."""
    pixels = np.linspace(0, 255, shape[0] * shape[1]).reshape(shape).astype(np.uint8)
    return ImageImportance(Image.fromarray(pixels), np.array(grid, float), **about)


def text(source: str, values, **about) -> TextImportance:
    """A text whose words, parted by white space, have these importances in turn."""
    places = [match.span() for match in re.finditer(r"\S+", source)]
    spans = [WordImportance(source[a:b], a, b, value) for (a, b), value in zip(places, values, strict=True)]
    return TextImportance(source, spans, **about)


def atom(positive, negative, center, radius) -> SampleAtom:
    return SampleAtom(positive, negative, np.array(center, np.float32), radius)


def random_atoms(count, width=16, seed=0) -> list[SampleAtom]:
    rng = np.random.default_rng(seed)
    charges, centers = rng.uniform(0, 0.6, (count, 2)), rng.normal(size=(count, width))
    radii = rng.uniform(0.1, 2, count)
    return [atom(*map(float, charges[i]), centers[i], float(radii[i])) for i in range(count)]


def sample_set(count=12) -> dict[str, list]:
    """As many pictures as texts, with atoms, labels, predictions of which some are wrong, and a name each."""
    rng, atoms = np.random.default_rng(1), random_atoms(2 * count)
    images, texts = [], []
    for i in range(count):
        about = {"label": f"class {i % 3}", "predicted": f"class {i % 3 if i % 4 else (i + 1) % 3}"}
        about["confidence"] = float(rng.uniform(0.3, 1))
        grid = rng.uniform(-1, 1, (4, 4))
        images.append(picture(grid, name=f"{i}.png", atom=atoms[2 * i], **about))
        words = f"The number {i} stands here, quietly."
        texts.append(text(words, rng.uniform(-1, 1, 6).tolist(), atom=atoms[2 * i + 1], **about))
    return {"images": images, "texts": texts}
