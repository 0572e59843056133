"""Keep the channels of a run in a file, so that an interrupted command goes on without reading them again."""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..utils.files import write_atomically
from ..utils.jsonl import hashed
from .channel import Channel

_PARTS = ("mean", "log_variance", "probabilities")


def save_channels(path: Path, channels: Sequence[Channel], settings: str) -> Path:
    """Write the channels of a run to an npz file, with the hash of how they were read. They are of one kind, and not hard."""
    arrays = {
        "settings": np.array(settings),
        "kind": np.array(channels[0].kind),
        "names": np.array([channel.name for channel in channels]),
        "run": np.array(channels[0].run),
        "ids": np.array(channels[0].ids),
        "widths": np.array([channel.data.shape[1] for channel in channels]),
        "noise": np.array([channel.noise or 0.0 for channel in channels]),
    }
    for part in _PARTS:
        columns = [getattr(channel, part) for channel in channels]
        if columns[0] is not None:
            arrays[part] = np.concatenate([column.cpu().numpy() for column in columns], 1)

    def write(file: Path) -> None:
        with file.open("wb") as stream:
            np.savez(stream, **arrays)

    return write_atomically(path, write)


def load_channels(path: Path, settings: str) -> list[Channel] | None:
    """The channels of a file; None if there is none, or it was read in another way."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile):
        return None
    if str(found.get("settings")) != settings:
        return None
    ends = np.cumsum(found["widths"])
    channels = []
    for place, (end, width) in enumerate(zip(ends.tolist(), found["widths"].tolist(), strict=True)):
        parts = {name: found[name][:, end - width : end] for name in _PARTS if name in found}
        about = {"name": str(found["names"][place]), "run": str(found["run"]), "ids": found["ids"].tolist()}
        if str(found["kind"]) == "deterministic":
            channels.append(Channel.deterministic(parts["mean"], noise=float(found["noise"][place]), **about))
        elif str(found["kind"]) == "gaussian":
            channels.append(Channel.gaussian(parts["mean"], parts["log_variance"], **about))
        else:
            channels.append(Channel.soft(parts["probabilities"], **about))
    return channels


def settings_of(model: str, **options: object) -> str:
    """A hash of how channels are read, and of the files of a model in a folder: their sizes and times of change."""
    folder = Path(model).expanduser()
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]
    return hashed({"model": model, "files": stats, **options})
