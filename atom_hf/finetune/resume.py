"""The checkpoint that a run resumes from, if any."""

import os
from pathlib import Path

from ..errors import AtomError
from ..training.arguments import AtomTrainingArguments
from ..utils.files import check_output_folder
from ..utils.terminal import get_logger

logger = get_logger(__name__)


def find_checkpoint(args: AtomTrainingArguments, save: bool) -> str | None:
    """The checkpoint to resume from, if any. Raises `AtomError` for a folder with another run in it."""
    folder = args.output_dir
    check_output_folder(folder)
    resume = args.resume_from_checkpoint
    if resume and str(resume).lower() not in ("true", "1", "false"):
        if not os.path.isfile(os.path.join(resume, "trainer_state.json")):
            raise AtomError(f"--resume_from_checkpoint {resume!r} is not a checkpoint folder; true takes the last one")
        return resume
    last = last_checkpoint(folder)
    if resume and str(resume).lower() != "false":
        if last is None:
            raise AtomError(
                f"--resume_from_checkpoint: {folder} holds no checkpoint to resume from; leave the flag out"
            )
        return last
    signs = ("config.json", "model.safetensors", "trainer_state.json", "results.jsonl")
    if last is not None or (save and any(os.path.exists(os.path.join(folder, name)) for name in signs)):
        raise AtomError(
            f"--output_dir {folder!r} holds another run; resume it by --resume_from_checkpoint true, "
            "or give another --output_dir"
        )
    return None


def last_checkpoint(folder: str) -> str | None:
    """The last checkpoint that was written to its end; Trainer writes its state last."""
    found = []
    for path in Path(folder).glob("checkpoint-*"):
        number = path.name.removeprefix("checkpoint-")
        if number.isdigit() and (path / "trainer_state.json").is_file():
            found.append((int(number), str(path)))
        else:
            logger.warning("%s is incomplete and is skipped", path)
    return max(found)[1] if found else None
