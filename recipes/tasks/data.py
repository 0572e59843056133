"""Writes the data of two recipes of this folder: python recipes/tasks/data.py

ring.csv: 2,000 points of eight normal distributions on a ring. negatives.npz: photographic negatives of the 1,797 digits of
scikit-learn (CC BY 4.0), for a second domain.
"""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

HERE = Path(__file__).resolve().parent


def ring() -> str:
    """Points x, y as a table."""
    rng = np.random.default_rng(0)
    angles = rng.integers(8, size=2000) * np.pi / 4
    points = 2 * np.stack([np.cos(angles), np.sin(angles)], axis=1) + rng.normal(0, 0.1, (2000, 2))
    return "x,y\n" + "".join(f"{x:.4f},{y:.4f}\n" for x, y in points)


def negatives() -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [1797, 8, 8] and their labels."""
    values, labels = load_digits(return_X_y=True)
    return 255 - np.round(values.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8), labels.astype(np.int64)


def main() -> None:
    (HERE / "ring.csv").write_text(ring(), encoding="utf-8")
    images, labels = negatives()
    np.savez_compressed(HERE / "negatives.npz", x=images, y=labels)


if __name__ == "__main__":
    main()
