"""The checkpoint that a run resumes from, if any."""

import json
import logging
import os
from pathlib import Path

from ..errors import AtomError
from ..modeling.finite import check_finite_files
from ..training.arguments import AtomTrainingArguments
from ..utils.files import check_output_folder, complete

logger = logging.getLogger(__name__)

STATE_NAME = "trainer_state.json"  # the file of a checkpoint that Trainer writes last


def find_checkpoint(args: AtomTrainingArguments, save: bool) -> str | None:
    """The checkpoint to resume from, if any. Raises `AtomError` for a folder with another run in it."""
    folder = args.output_dir
    check_output_folder(folder)
    if save:
        complete(folder)
    resume = args.resume_from_checkpoint
    if resume and str(resume).lower() not in ("true", "1", "false"):
        _check_given(resume)
        return resume
    going_on = bool(resume) and str(resume).lower() != "false"
    last = _last_to_resume(folder) if going_on else last_checkpoint(folder)
    if going_on:
        if last is None:
            raise AtomError(
                f"--resume_from_checkpoint: {folder} holds no checkpoint to resume from; leave the flag out"
            )
        return last
    signs = ("config.json", "model.safetensors", STATE_NAME, "results.jsonl")
    if last is not None or (save and any(os.path.exists(os.path.join(folder, name)) for name in signs)):
        raise AtomError(
            f"--output_dir {folder!r} holds another run; resume it by --resume_from_checkpoint true, "
            "or give another --output_dir"
        )
    return None


def is_whole(checkpoint: str | Path) -> bool:
    """Whether a checkpoint was written to its end: Trainer's state is there, and is not cut off itself."""
    try:
        return isinstance(json.loads(Path(checkpoint, STATE_NAME).read_text(encoding="utf-8")), dict)
    except (OSError, ValueError, RecursionError):
        return False


def complete_checkpoints(folder: str | Path) -> list[tuple[int, str]]:
    """The step and the folder of each checkpoint that was written to its end; says which were not."""
    found = []
    for path in Path(folder).glob("checkpoint-*"):
        number = path.name.removeprefix("checkpoint-")
        if number.isdigit() and is_whole(path):
            found.append((int(number), str(path)))
        else:
            logger.warning("%s is incomplete and is skipped", path)
    return found


def last_checkpoint(folder: str | Path) -> str | None:
    """The last checkpoint that was written to its end."""
    return max(complete_checkpoints(folder), default=(0, None))[1]


def last_good_checkpoint(folder: str | Path) -> str | None:
    """The last checkpoint that was written to its end, and whose weights are finite numbers."""
    return next(
        (path for _, path in sorted(complete_checkpoints(folder), reverse=True) if not _what_is_wrong(path)), None
    )


def _last_to_resume(folder: str | Path) -> str | None:
    """The last good checkpoint; says why a later one is passed over."""
    for _, path in sorted(complete_checkpoints(folder), reverse=True):
        if (wrong := _what_is_wrong(path)) is None:
            return path
        logger.warning("%s is skipped: %s", path, wrong)
    return None


def _what_is_wrong(checkpoint: str) -> str | None:
    try:
        check_finite_files(checkpoint)
    except AtomError as error:
        return str(error)
    return None


def _check_given(checkpoint: str) -> None:
    if not os.path.isfile(os.path.join(checkpoint, STATE_NAME)):
        raise AtomError(f"--resume_from_checkpoint {checkpoint!r} is not a checkpoint folder; true takes the last one")
    if os.path.isfile(os.path.join(checkpoint, "all_results.json")):  # the metrics, which a run saves at its end
        raise AtomError(
            f"--resume_from_checkpoint {checkpoint!r} is the folder of a finished run, not a checkpoint: give a "
            "checkpoint-* of the run, or start a new run from its model by --model"
        )
