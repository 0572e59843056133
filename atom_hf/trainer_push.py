"""What a trainer with the flag on puts on the Hub, and when: the plain model with its heads, and checkpoints to resume from."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list
from transformers.trainer_utils import HubStrategy, SaveStrategy
from transformers.utils import logging
from transformers.utils.hub import PushInProgress, hf_api

from .card import CARD_NAME, is_own
from .errors import AtomError
from .repository import check_repository, commit, files_to_push, open_repository

logger = logging.get_logger(__name__)

STAGING = "_push-"  # a name that is passed over when the folder around it is pushed


class PushMixin:
    """Part of `AtomTrainerMixin`. With the flag off it is the Trainer's own pushing.

    With it on, every push is one commit: at the root the model as `save_model` writes it, which loads without this package
    and without a warning, and under the strategies that ask for one the checkpoint beside it. Trainer would copy the
    checkpoint's weights to the root, where the heads in them are foreign to a plain load; make two commits, between which the
    two do not agree; and go on without a word when a push in the background fails.
    """

    _atom_on: bool

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        if not self._atom_on:
            return super().init_hf_repo(token=token, private=private)
        if self.is_world_process_zero():
            name = self.args.hub_model_id or Path(self.args.output_dir).absolute().name
            check_repository(name, "hub_model_id")
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
        """Pushes the model, its heads and the processing class as one commit. Arguments are those of `Trainer.push_to_hub`.

        Raises:
            AtomError: the push was refused or broke off; the repository is as it was.
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
            return commit(self.hub_model_id, files, **options)
        return hf_api().run_as_future(commit, self.hub_model_id, files, **options)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if not self._atom_on:
            return super()._push_from_checkpoint(checkpoint_folder)
        if self.args.hub_strategy == HubStrategy.END:
            return
        staging = self._atom_staging()
        if staging is None:
            return
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        with self._atom_whole_state():
            self.save_model(staging, _internal_call=True)
        if not self.is_world_process_zero():
            return
        if is_own(self.args.output_dir):
            shutil.copy(Path(self.args.output_dir, CARD_NAME), staging)
        files, _ = files_to_push(staging)
        if self.args.hub_strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
            last = self.args.hub_strategy == HubStrategy.CHECKPOINT
            name = "last-checkpoint" if last else Path(checkpoint_folder).name
            files.update(_checkpoint_files(checkpoint_folder, staging, name))
        at = (
            f"step {self.state.global_step}"
            if self.args.save_strategy == SaveStrategy.STEPS
            else f"epoch {int(self.state.epoch)}"
        )
        job = hf_api().run_as_future(self._atom_push, staging, files, f"Training in progress, {at}")
        if self.push_in_progress is None or self.push_in_progress.is_done():
            self.push_in_progress = PushInProgress([job])
        else:
            self.push_in_progress.jobs.append(job)

    def _atom_staging(self) -> str | None:
        """A folder for one push, the same on every process; None where the last push is not done and is not to be waited for.

        Training goes on while files are uploaded: the next push may not write over them, and a checkpoint that is removed
        stays until it is there.
        """
        found: list[str | None] = [None]
        if self.is_world_process_zero():
            running = self.push_in_progress is not None and not self.push_in_progress.is_done()
            if self.args.hub_always_push or not running:
                os.makedirs(self.args.output_dir, exist_ok=True)
                if not running:
                    for old in Path(self.args.output_dir).glob(f"{STAGING}*"):  # of a run that was killed
                        shutil.rmtree(old, ignore_errors=True)
                found = [tempfile.mkdtemp(prefix=STAGING, dir=self.args.output_dir)]
        if self.args.world_size > 1:
            broadcast_object_list(found)
        return found[0]

    @contextmanager
    def _atom_whole_state(self) -> Iterator[None]:
        """Whatever form FSDP's checkpoints have, the model at the root is whole."""
        plugin = self.accelerator.state.fsdp_plugin if self.is_fsdp_enabled else None
        before = plugin.state_dict_type if plugin is not None else None
        if plugin is not None:
            plugin.set_state_dict_type("FULL_STATE_DICT")
        try:
            yield
        finally:
            if plugin is not None:
                plugin.set_state_dict_type(before)

    def _atom_push(self, staging: str, files: dict[str, Path], message: str) -> None:
        """Runs in the background. What fails is said at once: the next push holds everything again."""
        try:
            commit(
                self.hub_model_id, files, message=message, token=self.args.hub_token, revision=self.args.hub_revision
            )
        except AtomError as error:
            logger.error(
                f"{message}: {error}; the repository is as it was, training goes on, and the next push holds all"
            )
            raise
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        if not self._atom_on:
            return super()._save(output_dir, state_dict=state_dict)
        # The arguments are pickled into training_args.bin as they are.
        token, self.args.hub_token = self.args.hub_token, None
        try:
            super()._save(output_dir, state_dict=state_dict)
        finally:
            self.args.hub_token = token


def check_whole(checkpoint: str) -> None:
    """Refuses a checkpoint that was fetched by half: Trainer begins anew, without a word, what a file is missing for.

    One that was saved with `save_only_model` has none of these files. Raises `AtomError`.
    """
    parts = {
        "optimizer.*": "the optimizer's state",
        "scheduler.pt": "the scheduler's state",
        "rng_state*": "the random state",
    }
    if list(Path(checkpoint).glob("global_step*")) or list(Path(checkpoint).glob("optimizer_*")):
        return  # DeepSpeed and FSDP have forms of their own
    missing = [what for pattern, what in parts.items() if not list(Path(checkpoint).glob(pattern))]
    if missing and len(missing) < len(parts):
        raise AtomError(
            f"resume_from_checkpoint: {checkpoint} is not whole, {' and '.join(missing)} is missing; fetch or copy it again"
        )


def _checkpoint_files(checkpoint: str, staging: str, name: str) -> dict[str, Path]:
    """The files of a checkpoint, held in the staging folder, by their path in the repository."""
    files = {}
    for path in sorted(Path(checkpoint).rglob("*")):
        steps = path.relative_to(checkpoint)
        if not path.is_file() or path.name == "training_args.bin":  # nothing resumes from it
            continue
        held = Path(staging, ".checkpoint", steps)
        held.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, held)
        except OSError:  # a file system without hard links
            shutil.copy(path, held)
        files[f"{name}/{steps.as_posix()}"] = held
    return files
