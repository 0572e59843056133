"""Push from a trainer with the flag on: the plain model with its heads, and checkpoints to resume from."""

import functools
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list
from transformers.trainer import TRAINER_STATE_NAME, TRAINING_ARGS_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, HubStrategy, SaveStrategy
from transformers.utils.hub import PushInProgress, hf_api

from ..errors import AtomError
from ..hub.card import CARD_NAME, is_own
from ..hub.card_facts import describes
from ..hub.upload import LAST_CHECKPOINT, check_base, check_repository, commit, files_to_push, open_repository
from ..modeling.finite import not_finite
from ..modeling.mixin import saving
from ..modeling.unwrap import adapter_bases
from ..utils.files import write_failure
from ..utils.terminal import get_logger

logger = get_logger(__name__)

STAGING = "_push-"  # such names are skipped when the folder around them is pushed


class PushMixin:
    """Part of `AtomTrainerMixin`. With the flag off pushing is the Trainer's own.

    With it on, every push is one commit: at the root the model as `save_model` writes it, which loads without this package
    and without a warning, and beside it the checkpoint, if the hub strategy includes one. Trainer would copy the checkpoint's
    weights to the root, where a plain load finds unexpected heads among them; make two commits, between which the two do not
    agree; and silently ignore a failed push in the background.
    """

    _atom_on: bool

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        if not self._atom_on:
            return super().init_hf_repo(token=token, private=private)
        if self.is_world_process_zero():
            name = self.args.hub_model_id or Path(self.args.output_dir).absolute().name
            check_repository(name, "hub_model_id")
            for base in adapter_bases(self.accelerator.unwrap_model(self.model)):
                check_base(base, name, "push_to_hub: the adapter")
            private = self.args.hub_private_repo if private is None else private
            self.hub_model_id = open_repository(name, token=token or self.args.hub_token, private=private)
            self.push_in_progress = None

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Push the model, its heads and the processing class as one commit. Arguments are those of `Trainer.push_to_hub`.

        Raises:
            AtomError: the Hub rejected the push, or the connection was lost; the repository is unchanged.
        """
        if not self._atom_on:
            return super().push_to_hub(commit_message, blocking, token, revision, private, **kwargs)
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        token = token or self.args.hub_token
        if self.hub_model_id is None:
            self.init_hf_repo(token=token, private=private)
        with self._atom_whole_state():
            self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        given = kwargs.pop("tags", None) or []
        tags = [*([given] if isinstance(given, str) else given), *(getattr(self.model, "model_tags", None) or [])]
        kwargs.setdefault("model_name", self.hub_model_id.split("/")[-1])
        self.create_model_card(**kwargs, **({"tags": list(dict.fromkeys(tags))} if tags else {}))
        self._finish_current_push()
        files, _ = files_to_push(self.args.output_dir)
        options = {"message": commit_message, "token": token, "revision": revision or self.args.hub_revision}
        if blocking:
            return self._atom_commit(files, **options)
        return hf_api().run_as_future(self._atom_commit, files, **options)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if not self._atom_on:
            return super()._push_from_checkpoint(checkpoint_folder)
        if self.args.hub_strategy == HubStrategy.END:
            return
        staging = self._atom_staging()
        if staging is None:
            return
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        try:
            with self._atom_whole_state():
                self.save_model(staging, _internal_call=True)
            if not self.is_world_process_zero():
                return
            files, beside = self._atom_stage(staging, checkpoint_folder)
        except Exception as error:
            if (why := write_failure(error)) is None:
                raise
            shutil.rmtree(staging, ignore_errors=True)
            logger.error(f"step {self.state.global_step} is not pushed, for which it could not be copied: {why}")
            return
        at = (
            f"step {self.state.global_step}"
            if self.args.save_strategy == SaveStrategy.STEPS
            else f"epoch {int(self.state.epoch)}"
        )
        # Read now: while a model is being saved the arguments have no token.
        options = {"token": self.args.hub_token, "revision": self.args.hub_revision}
        job = hf_api().run_as_future(
            self._atom_push, staging, files, beside, message=f"Training in progress, {at}", **options
        )
        if self.push_in_progress is None or self.push_in_progress.is_done():
            self.push_in_progress = PushInProgress([job])
        else:
            self.push_in_progress.jobs.append(job)

    def _atom_stage(self, staging: str, checkpoint_folder: str) -> tuple[dict[str, Path], dict[str, Path]]:
        """The files of the model in a staging folder, and those of the checkpoint, linked there, by path in the repository."""
        if is_own(self.args.output_dir):
            shutil.copy(Path(self.args.output_dir, CARD_NAME), staging)
        files, _ = files_to_push(staging)
        if self.args.hub_strategy not in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
            return files, {}
        last = self.args.hub_strategy == HubStrategy.CHECKPOINT
        name = LAST_CHECKPOINT if last else Path(checkpoint_folder).name
        return files, _checkpoint_files(checkpoint_folder, staging, name)

    def _atom_staging(self) -> str | None:
        """A staging folder for one push, the same on every process; None to skip this push while the last one is running.

        Training continues during an upload: the next push must not overwrite its files, and a checkpoint that is removed
        meanwhile is kept here until it is uploaded.
        """
        found: list[str | None] = [None]
        if self.is_world_process_zero():
            running = self.push_in_progress is not None and not self.push_in_progress.is_done()
            if self.args.hub_always_push or not running:
                os.makedirs(self.args.output_dir, exist_ok=True)
                if not running:
                    kept = {Path(folder).name for folder, _ in self._atom_outstanding}
                    for old in Path(self.args.output_dir).glob(f"{STAGING}*"):  # of a run that was killed
                        if old.name not in kept:
                            shutil.rmtree(old, ignore_errors=True)
                found = [tempfile.mkdtemp(prefix=STAGING, dir=self.args.output_dir)]
        if self.args.world_size > 1:
            broadcast_object_list(found)
        return found[0]

    @contextmanager
    def _atom_whole_state(self) -> Iterator[None]:
        """Context manager: full state dicts under FSDP, for the model at the root; restores the state dict type."""
        plugin = self.accelerator.state.fsdp_plugin if self.is_fsdp_enabled else None
        before = plugin.state_dict_type if plugin is not None else None
        if plugin is not None:
            plugin.set_state_dict_type("FULL_STATE_DICT")
        try:
            yield
        finally:
            if plugin is not None:
                plugin.set_state_dict_type(before)

    @functools.cached_property
    def _atom_outstanding(self) -> list[tuple[str, dict[str, Path]]]:
        """Checkpoints whose push failed, as (staging folder, its files by path in the repository)."""
        return []

    def _atom_push(
        self, staging: str, files: dict[str, Path], beside: dict[str, Path], *, message: str, **options: Any
    ) -> None:
        """Push in the background. A failure is logged at once, and its checkpoint (`beside`) is kept for the next push."""
        kept = False
        try:
            self._atom_commit({**files, **beside}, message=message, **options)
        except AtomError as error:
            logger.error(
                f"{message}: {error}; the repository is unchanged, training continues, and the next push includes everything"
            )
            if beside:
                self._atom_outstanding.append((staging, beside))
                kept = True
            raise
        finally:
            if not kept:
                shutil.rmtree(staging, ignore_errors=True)

    def _atom_commit(self, files: dict[str, Path], **options: Any) -> Any:
        """One commit of the files and of the checkpoints whose earlier pushes failed."""
        whole: dict[str, Path] = {}
        for _, beside in self._atom_outstanding:
            # A later checkpoint replaces one of the same name.
            names = {path.split("/")[0] for path in beside}
            whole = {path: file for path, file in whole.items() if path.split("/")[0] not in names} | beside
        names = {path.split("/")[0] for path in files}
        whole = {path: file for path, file in whole.items() if path.split("/")[0] not in names}
        made = commit(self.hub_model_id, {**whole, **files}, **options)
        while self._atom_outstanding:
            shutil.rmtree(self._atom_outstanding.pop()[0], ignore_errors=True)
        return made

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        if not self._atom_on:
            return super()._save(output_dir, state_dict=state_dict)
        folder = self.args.output_dir if output_dir is None else output_dir
        # The arguments, with any token in them, are pickled into training_args.bin.
        token, self.args.hub_token = self.args.hub_token, None
        try:
            with saved_together(self, folder) as part:
                super()._save(part, state_dict=state_dict)
                if part == folder:
                    return
                model = self.accelerator.unwrap_model(self.model)
                if names := not_finite(model):
                    logger.warning(f"{folder}: the saved model holds numbers that are not finite (NaN), in {names[0]}")
                if is_own(folder) and describes(model):
                    Path(part, CARD_NAME).unlink(missing_ok=True)
        finally:
            self.args.hub_token = token


@contextmanager
def saved_together(trainer: Any, folder: str) -> Iterator[str]:
    """Context manager: where to save a model and its tokenizer, so that they take the places of those in `folder` together.

    A checkpoint is written in its place: it is new, and counts as one only when Trainer has written its state, last of all.
    """
    if not trainer.args.should_save or Path(folder).name.startswith(PREFIX_CHECKPOINT_DIR):
        yield folder
        made = Path(folder, TRAINING_ARGS_NAME)
        for weights in Path(folder).glob("*.safetensors") if made.is_file() else ():
            weights.chmod(made.stat().st_mode & 0o777)  # safetensors makes files that only their owner may read
        return
    with saving(folder) as part:
        yield str(part)


def check_whole(checkpoint: str, only_model: bool | None) -> None:
    """Reject an incomplete checkpoint: Trainer silently starts anew whatever lacks its file.

    Args:
        checkpoint: its folder.
        only_model: whether it was saved with `save_only_model`, without these files; None if unknown.

    Raises:
        AtomError: a file is missing.
    """
    parts = {
        "optimizer.*": "the optimizer's state",
        "scheduler.pt": "the scheduler's state",
        "rng_state*": "the random state",
    }
    if list(Path(checkpoint).glob("global_step*")) or list(Path(checkpoint).glob("optimizer_*")):
        return  # DeepSpeed and FSDP use other files
    missing = [what for pattern, what in parts.items() if not list(Path(checkpoint).glob(pattern))]
    if missing and not only_model and (only_model is False or len(missing) < len(parts)):
        raise AtomError(
            f"resume_from_checkpoint: {checkpoint} is incomplete, {' and '.join(missing)} is missing; fetch or copy it again"
        )


def _checkpoint_files(checkpoint: str, staging: str, name: str) -> dict[str, Path]:
    """The files of a checkpoint, linked into the staging folder, by their path in the repository."""
    files = {}
    for path in sorted(Path(checkpoint).rglob("*")):
        steps = path.relative_to(checkpoint)
        if not path.is_file() or path.name == "training_args.bin":  # nothing resumes from it
            continue
        held = Path(staging, ".checkpoint", steps)
        held.parent.mkdir(parents=True, exist_ok=True)
        if steps.as_posix() == TRAINER_STATE_NAME:
            _write_state(path, held)
        else:
            try:
                os.link(path, held)
            except OSError:  # a file system without hard links
                shutil.copy(path, held)
        files[f"{name}/{steps.as_posix()}"] = held
    return files


def _write_state(file: Path, copy: Path) -> None:
    """Copy Trainer's state without this machine's folders: without such a folder Trainer looks for the best model anew."""
    state = json.loads(file.read_text(encoding="utf-8"))
    if state.get("best_model_checkpoint"):
        state["best_model_checkpoint"] = Path(state["best_model_checkpoint"]).name
    copy.write_text(json.dumps(state, indent=2, sort_keys=True) + "\n", encoding="utf-8")
