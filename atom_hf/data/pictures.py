"""Read the pictures of a data set with 8 bits a channel, reject broken ones by name, and check them before training."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from ..errors import AtomError, first_line
from ..utils.pictures import eight_bit, has_colour, has_transparency, in_mode, is_deep, value_scale
from ..utils.terminal import get_logger

logger = get_logger(__name__)

LOOKED_THROUGH = 5000  # pictures; a broken one beyond them is rejected by name when it is read


class Picture(datasets.Image):
    """`datasets.Image` that scales deep pictures to 8 bits, and raises `AtomError` with the name of one that is broken."""

    def decode_example(self, value: Any, token_per_repo_id: Any = None) -> Any:
        """A PIL image of 8 bits a channel. Raises `AtomError`."""
        return _read(value, lambda stored: eight_bit(super(Picture, self).decode_example(stored, token_per_repo_id)))


def _read(value: Any, read: Any, row: int | None = None) -> Any:
    """What `read` makes of a picture's stored value; its errors are an `AtomError` that names the picture."""
    try:
        if value is None:
            raise AtomError("there is none in this row")
        if isinstance(value, dict) and value.get("bytes") is None and os.path.isfile(value["path"] or ""):
            # Pillow leaves a file open that is broken, or that has several frames.
            value = {**value, "bytes": Path(value["path"]).read_bytes()}
        return read(value)
    except Exception as error:  # a broken file raises many kinds of errors
        path = value.get("path") if isinstance(value, dict) else None
        name = f"picture {path!r}" if path else "a picture" if row is None else f"the picture of row {row}"
        raise AtomError(f"--dataset: {name} cannot be read: {first_line(error)}; repair or remove it") from error


def picture_mode(model_config: Any) -> str:
    """The mode of the pictures that a model takes: "L" if it has one channel, else "RGB"."""
    return "L" if getattr(model_config, "num_channels", 3) == 1 else "RGB"


def check_pictures(parts: list[datasets.Dataset], model_config: Any) -> None:
    """Reads the pictures of the data, or of very large data some thousands, and says what the model will not see of them.

    Raises `AtomError` for a picture that cannot be read, and for deep pictures whose values have no common scale.
    """
    mode = picture_mode(model_config)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        found = list(pool.map(lambda stored: _look(*stored, mode), _stored(parts)))
    counts = Counter(name for one in found for name, value in one.items() if value is True)
    among = f"of {len(found)} pictures"
    _check_scales([one["scale"] for one in found if "scale" in one], among)
    for name, text in (
        ("colour", _COLOUR),
        ("transparent", "have transparent parts, which are read as the colour underneath"),
        ("frames", "have several frames or pages; the first is read"),
    ):
        if counts[name]:
            logger.warning("%d %s %s", counts[name], among, text)


_COLOUR = "have colour, which is left out: the model takes grey ones (num_channels 1)"


def say_lost_colour(images: Sequence[Any], model_config: Any) -> None:
    """Says how many of the pictures have colour, if the model takes grey ones."""
    if picture_mode(model_config) == "L" and (count := sum(map(has_colour, images))):
        logger.warning("%d of %d pictures %s", count, len(images), _COLOUR)


def _stored(parts: list[datasets.Dataset]) -> Iterator[tuple[int, Any]]:
    """The row number and stored value of the pictures to look through."""
    for rows in parts:
        stored = rows.with_format(None).select_columns("image").cast_column("image", datasets.Image(decode=False))
        chosen = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), LOOKED_THROUGH)).round().astype(int))
        for number, row in zip(chosen.tolist(), stored.select(chosen), strict=True):
            yield number, row["image"]


def _look(row: int, value: Any, mode: str) -> dict[str, Any]:
    def read(stored: Any) -> dict[str, Any]:
        with datasets.Image().decode_example(stored) as image:
            found: dict[str, Any] = {
                "transparent": has_transparency(image),
                "frames": getattr(image, "n_frames", 1) > 1,
            }
            if is_deep(image):
                found["scale"] = (*value_scale(image), image.mode)
            if mode == "L":
                found["colour"] = has_colour(image)
            in_mode(image, mode)
            return found

    return _read(value, read, row)


def _check_scales(scales: list[tuple[float, float, str]], among: str) -> None:
    """Deep pictures: (largest value, value of white, mode) of each. Raises `AtomError`, or says how they are scaled."""
    seen = sorted({white for high, white, _ in scales if high > 0})
    if len(seen) > 1:
        raise AtomError(
            f"--dataset: {len(scales)} {among} hold deep values on different scales (white is "
            f"{' and '.join(f'{white:g}' for white in seen)}); save all of them with 8 bits"
        )
    if not seen:
        return
    peak, white = max(high for high, _, _ in scales), seen[0]
    logger.info("%d %s have more than 8 bits: 0 to %g is scaled to 0 to 255", len(scales), among, white)
    if white > 255 and peak <= 255:
        raise AtomError(
            f"--dataset: {len(scales)} {among} have 16 bits and no value above {peak:g} of {white:g}, which is black; "
            "save them with 8 bits"
        )
    if peak < white / 4:
        logger.warning(
            "their largest value is %g of %g, so that all are dark; stretch them if it is white", peak, white
        )
