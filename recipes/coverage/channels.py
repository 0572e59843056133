"""The channels of one architecture (`atom_hf.fragments`): `read_units_and_space`, for the columns "units" and "space"."""

import math
import warnings

from check import NotBuiltError, smallest, words_of
from inputs import make_batch
from report import NOT_BUILT, READ

from atom_hf.fragments import Channel
from atom_hf.fragments.calibration import noise_information
from atom_hf.fragments.read import read_channels

BITS, ROWS = 0.5, ([0, 1], [2, 3])


class UnreadError(Exception):
    """What is not as it should be, in words."""


def read_units_and_space(task: str, model_type: str) -> tuple[str, str]:
    """For each of the two kinds `READ`, or why it cannot be read."""
    try:
        model, _ = smallest(task, model_type)
    except NotBuiltError:
        return NOT_BUILT, NOT_BUILT
    except Exception as error:
        return words_of(error), words_of(error)
    found = []
    for kind in ("units", "space"):
        try:
            batches = [make_batch(model, task, rows) for rows in ROWS]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read = read_channels(model, batches, kind=kind, bits=BITS)
            check_channels(read, kind)
            found.append(READ)
        except Exception as error:
            found.append(str(error) if isinstance(error, UnreadError) else words_of(error))
    return found[0], found[1]


def check_channels(channels: list[Channel], kind: str) -> None:
    """Raises `UnreadError` for channels that are not one a unit, or one alone, of at least four points that differ."""
    points = len(channels[0].ids)
    if points < 4 or points % 4:
        raise UnreadError(f"{points} data points of 4 samples")
    widths = {channel.mean.shape[1] for channel in channels}
    if (kind == "space") != (len(channels) == 1) or (kind == "units" and widths != {1}):
        raise UnreadError(f"{len(channels)} channels of {sorted(widths)} dimensions")
    bits = [noise_information(channel.mean, channel.noise) for channel in channels]
    if not all(math.isfinite(one) and -1e-9 <= one <= math.log2(points) for one in bits):
        raise UnreadError("information that is not between 0 and log2 N")
    if max(bits) < 0.9 * BITS:
        raise UnreadError("no channel tells the samples apart")
