"""Drawn shapes: a square, a disc or a triangle on black, whose factors are its position x, y, its size and its shade."""

from collections.abc import Sequence

import numpy as np

SIDE = 20  # pixels of an image

NAMES = ("square", "disc", "triangle")

FACTORS = ("x", "y", "size", "shade")

LOW, HIGH = np.array([0.3, 0.3, 0.14, 0.4]), np.array([0.7, 0.7, 0.26, 1.0])
"""Of the centre and of half the side of the square around a shape, as shares of the image's side; and of the pixels' value."""


def draw_factors(count: int, seed: int | Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Shapes [count], equally frequent, and factors [count, 4]: all uniform and independent."""
    rng = np.random.default_rng(seed)
    return rng.permutation(np.arange(count) % len(NAMES)), rng.uniform(LOW, HIGH, (count, len(FACTORS)))


def render(shapes: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Images float32 [N, 1, 20, 20] in [0, 1]; a pixel at an edge is as bright as its centre's distance to the edge says."""
    middles = (np.arange(SIDE) + 0.5) / SIDE
    x, y, half, shade = factors.T[:, :, None, None]
    across, down = abs(middles[None, None, :] - x), middles[None, :, None] - y
    # Distances to the edges, negative inside. The triangle is as high as it is wide, with its tip above.
    square = np.maximum(across, abs(down)) - half
    disc = np.hypot(across, down) - half
    triangle = np.maximum(down - half, (across - (down + half) / 2) / np.hypot(1, 0.5))
    distances = np.choose(shapes[:, None, None], [square, disc, triangle])
    return (shade * (0.5 - distances * SIDE).clip(0, 1))[:, None].astype(np.float32)
