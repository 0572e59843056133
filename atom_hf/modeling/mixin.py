"""`AtomMixin`: what a model with atoms can do besides its own: read importance, save, push."""

import functools
import inspect
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import CommitInfo
from torch import Tensor

from ..atoms.config import AtomConfig
from ..atoms.heads import AtomHeads
from ..hub.card import is_own
from ..hub.card_facts import write_model_card
from ..hub.upload import push_model
from .collector import ForwardState, to_be_read
from .forward import forward_with_atoms
from .gradient_balancer import GradientBalancer
from .heads_file import HEADS_PREFIX, write_heads
from .inference import evaluating, without_labels
from .unwrap import is_adapter

HUB_OPTIONS = ("repo_id", "commit_message", "commit_description", "private", "revision", "create_pr")


class AtomMixin:
    """What `attach_atoms` adds to a model.

    `forward` keeps its signature and, in evaluation, its outputs. In training, and wherever `return_atoms=True` is passed,
    the output also holds `atoms` [B, h + 3] (`Atoms.pack`, with their gradient) and `atom_importance` [B, N] (detached;
    NaN where there is no token). Heads run inside `forward`, since DDP, FSDP and compiled models require it.
    """

    atom_config: AtomConfig
    atom_heads: AtomHeads
    atom_balancer: GradientBalancer

    _atom_heads_inside = False  # whether a checkpoint is being saved, with the heads in the model's own file
    _atom_forward_state: ForwardState

    @torch.no_grad()
    def atom_importance(self, **inputs: Any) -> Tensor:
        """The importance of each token, in one forward pass.

        Args:
            **inputs: what the model's `forward` takes, as tensors with a batch dimension. Labels are not needed, but for what
                a decoder writes (`side`): then labels or the decoder's own inputs.

        Returns:
            [B, N] in [-1, 1], float32, NaN where there is no token. N is the length of the hidden states: for text that of
            `input_ids`, for images prefix tokens and then patches in reading order.
        """
        with evaluating(self):
            return self(**without_labels(self, inputs), return_atoms=True).atom_importance

    def save_pretrained(
        self, save_directory: str | Path, is_main_process: bool = True, state_dict: dict | None = None, **kwargs: Any
    ) -> None:
        """Saves the base model as if nothing had been attached, and the heads and their configuration beside it.

        `AutoModelFor...from_pretrained` loads the folder without this package; `load_atom_model` loads it with its heads.
        A model card goes beside them, unless the folder has one that is the user's own.
        Arguments are those of `PreTrainedModel.save_pretrained`. With `push_to_hub` what was written is one commit on the Hub.
        """
        writes = is_main_process and not Path(save_directory).is_file()
        with pushing(save_directory, kwargs, self.model_tags, writes):
            self._atom_save(save_directory, is_main_process, state_dict, writes, **kwargs)

    def _atom_save(
        self, save_directory: str | Path, is_main_process: bool, state_dict: dict | None, writes: bool, **kwargs: Any
    ) -> None:
        state = state_dict or self.state_dict()
        if writes:
            Path(save_directory).mkdir(parents=True, exist_ok=True)
            self.atom_config.save(save_directory)
        # Of a model that Transformers has given an adapter (`add_adapter`) only that is saved: no file that heads could be in.
        if self._atom_heads_inside and not getattr(self, "_hf_peft_config_loaded", False):
            # Trainer resumes by the names that parameters have in memory, not by those of an original checkpoint.
            kwargs["save_original_format"] = False
        else:
            if writes:
                heads = {k.removeprefix(HEADS_PREFIX): v for k, v in state.items() if k.startswith(HEADS_PREFIX)}
                write_heads(heads, save_directory)
            state = {k: v for k, v in state.items() if not k.startswith(HEADS_PREFIX)}
        super().save_pretrained(save_directory, is_main_process=is_main_process, state_dict=state, **kwargs)
        if writes and not self._atom_heads_inside and not is_own(save_directory):
            write_model_card(self, save_directory)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str | None = None,
        commit_description: str | None = None,
        private: bool | None = None,
        token: bool | str | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        max_shard_size: int | str | None = "50GB",
        tags: list[str] | str | None = None,
    ) -> CommitInfo:
        """Pushes the base, the heads and their configuration as one commit. Arguments are those of `PreTrainedModel`'s.

        Raises:
            AtomError: no token, no right to write, a name that is none, a connection that broke off; in one line.
        """
        options = {"commit_message": commit_message, "commit_description": commit_description, "create_pr": create_pr}
        tags = [*(getattr(self, "model_tags", None) or []), *([tags] if isinstance(tags, str) else tags or [])]
        with tempfile.TemporaryDirectory() as folder:
            shards = {} if is_adapter(self) else {"max_shard_size": max_shard_size}
            self.save_pretrained(folder, **shards)
            return push_model(
                folder,
                repo_id,
                private=private,
                token=token,
                revision=revision,
                tags=list(dict.fromkeys(tags)),
                **options,
            )

    def __reduce__(self) -> tuple:
        # The class is made at run time: `pickle` would look for it where the base stands.
        return _blank, (without_atoms(type(self)),), vars(self)

    @contextmanager
    def _atom_checkpoint(self):
        """Within it `save_pretrained` keeps the heads in the model's own file, as a checkpoint that resumes needs."""
        self._atom_heads_inside = True
        try:
            yield
        finally:
            self._atom_heads_inside = False


def become(model: Any, cls: type) -> None:
    """Makes `model` an instance of `cls`."""
    model.__class__ = cls
    if hasattr(model, "_old_forward"):
        # Accelerate's hooks (device_map over several devices) keep the forward that they found on the instance.
        model._old_forward = cls.forward.__get__(model)


def show_as(function: Callable, shown: Callable) -> None:
    """Gives a function the name, documentation and signature of another.

    Not by `functools.wraps` alone: Accelerate takes its own wrapping off again by going back to what was wrapped, and would go
    on past this one.
    """
    functools.update_wrapper(function, shown)
    del function.__wrapped__
    function.__signature__ = inspect.signature(shown)


def without_atoms(cls: type) -> type:
    """What a class with atoms was made from."""
    return cls.__mro__[cls.__mro__.index(AtomMixin) + 1]


def _blank(base: type) -> Any:
    """An empty instance, to be filled by `pickle` or `copy`."""
    cls = with_atoms(base)
    return cls.__new__(cls)


@functools.cache
def with_atoms(base: type) -> type:
    """A subclass of `base` and `AtomMixin` under the base's own name."""

    def forward(self, *args, return_atoms: bool | None = None, **kwargs):
        if not isinstance(self, AtomMixin):  # detached, and called by what wrapped this forward before
            return base.forward(self, *args, **kwargs)
        if not to_be_read(self, return_atoms):
            return base.forward(self, *args, **kwargs)
        return forward_with_atoms(self, base.forward, args, kwargs)

    show_as(forward, base.forward)
    namespace = {
        "forward": forward,
        "from_pretrained": base.from_pretrained,  # of the class gives the plain model, as it always did
        "__module__": base.__module__,
        "__qualname__": base.__qualname__,
        "__doc__": base.__doc__,
    }
    return type(base.__name__, (AtomMixin, base), namespace)


@contextmanager
def pushing(folder: str | Path, kwargs: dict[str, Any], tags: list[str] | None, writes: bool):
    """Takes what `save_pretrained` has for the Hub out of its `kwargs`, and pushes what is written within it if asked to."""
    push_to_hub = kwargs.pop("push_to_hub", False)
    hub = {name: kwargs.pop(name) for name in HUB_OPTIONS if name in kwargs}
    before = _times(folder)
    yield
    if push_to_hub and writes:
        written = {name for name, time in _times(folder).items() if before.get(name) != time}
        repo_id = hub.pop("repo_id", Path(folder).resolve().name)
        push_model(folder, repo_id, only=written, token=kwargs.get("token"), tags=tags, **hub)


def _times(folder: str | Path) -> dict[str, int]:
    """When each file of a folder was written."""
    return {path.name: path.stat().st_mtime_ns for path in Path(folder).glob("*") if path.is_file()}
