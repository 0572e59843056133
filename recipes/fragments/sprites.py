"""Rendered sprites: a bright square on black, whose factors are its position x, y and its size."""

import numpy as np

SIDE = 16  # pixels of an image

FACTORS = ("x", "y", "size")

LOW, HIGH = np.array([0.25, 0.25, 0.10]), np.array([0.75, 0.75, 0.22])
"""Of the centre and of half the square's side, as shares of the image's."""


def draw_factors(count: int, seed: int) -> np.ndarray:
    """Factors [count, 3], uniform and independent."""
    return np.random.default_rng(seed).uniform(LOW, HIGH, (count, len(FACTORS)))


def render(factors: np.ndarray) -> np.ndarray:
    """Images float32 [N, 1, 16, 16] in [0, 1] of factors [N, 3]; pixels at the edge are bright by the share that is covered."""
    edges = np.arange(SIDE + 1) / SIDE

    def covered(centre: np.ndarray, half: np.ndarray) -> np.ndarray:
        low, high = (centre - half)[:, None], (centre + half)[:, None]
        return (np.minimum(edges[1:], high) - np.maximum(edges[:-1], low)).clip(min=0) * SIDE

    across = covered(factors[:, 0], factors[:, 2])
    down = covered(factors[:, 1], factors[:, 2])
    return (down[:, :, None] * across[:, None, :])[:, None].astype(np.float32)
