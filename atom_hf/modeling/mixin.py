"""`AtomMixin`: the methods of a model with atoms: importance, saving, pushing."""

import functools
import inspect
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import CommitInfo
from torch import Tensor

from ..atoms.config import AtomConfig
from ..atoms.heads import AtomHeads
from ..errors import AtomError
from ..hub.card_facts import write_model_card
from ..hub.upload import push_model
from ..utils.files import replacing
from .collector import ForwardState, to_be_read
from .forward import forward_with_atoms
from .gradient_balancer import GradientBalancer
from .heads_file import HEADS_PREFIX, LAST_NAMES, WEIGHTS_NAMES, write_heads
from .inference import check_numbers, evaluating, explaining_target, without_labels
from .model_folder import check_folder
from .unwrap import adapter_bases, inner_model, is_adapter

_MASKING = f"{__package__.rpartition('.')[0]}.importance.by_masking"

HUB_OPTIONS = ("repo_id", "commit_message", "commit_description", "private", "revision", "create_pr")


class AtomMixin:
    """Mixin that `attach_atoms` adds to a model.

    `forward` keeps its signature and, in eval mode, its outputs. In training, and with `return_atoms=True`, the output also
    holds `atoms` [B, K] (`StepAtoms.pack`, with their gradient) and `atom_importance` [B, N] (detached; NaN where there is
    no token); where it is a tuple, at its end. Heads run inside `forward`, as DDP, FSDP and compiled models require.
    """

    atom_config: AtomConfig
    atom_heads: AtomHeads
    atom_balancer: GradientBalancer

    _atom_run = forward_with_atoms  # a forward pass that reads atoms
    _atom_heads_inside = False  # whether a checkpoint is being saved, with the heads among the model's weights
    _atom_forward_state: ForwardState

    @torch.no_grad()
    def atom_importance(
        self, *, target: Any = None, method: str = "explainer", processing_class: Any = None, **inputs: Any
    ) -> Tensor:
        """The importance of each token, in one forward pass.

        Args:
            target: what it is for; by default what is predicted. Of a classifier whose importance has been fitted to the
                prediction, a class by its name or index, or a list of one for each sample. By masking also what other models
                give: see `importance.targets`.
            method: "explainer" reads the heads in one forward pass; "masking" masks the tokens one by one, at a forward pass
                for each (`importance.by_masking`).
            processing_class: the model's tokenizer, which masking a text needs.
            **inputs: the arguments of the model's `forward`, tensors with a batch dimension. Labels are not needed, except for
                the decoder's side (`side`): give labels or the decoder's inputs then.

        Returns:
            [B, N] in [-1, 1], float32, NaN where there is no token. N is the length of the hidden states: for text that of
            `input_ids`, for images prefix tokens and then patches in reading order.

        Raises:
            AtomError: weights or inputs that are not finite numbers, a target that the method cannot explain.
        """
        if method == "masking":
            # By its name: what masks tokens stands above the models, and imports them.
            found = import_module(_MASKING).masked_importance(self, processing_class, inputs, target)
            return found.importance
        if method != "explainer":
            raise AtomError(f"method must be 'explainer' or 'masking'; got {method!r}")
        samples = len(next(value for value in inputs.values() if torch.is_tensor(value)))
        with evaluating(self), explaining_target(self, target, samples):
            outputs = self(**without_labels(self, inputs), return_atoms=True)
        check_numbers(inner_model(self), outputs.atoms, inputs)
        return outputs.atom_importance

    def save_pretrained(
        self, save_directory: str | Path, is_main_process: bool = True, state_dict: dict | None = None, **kwargs: Any
    ) -> None:
        """Save the base model as Transformers does, and the heads and their configuration beside it.

        `AutoModelFor...from_pretrained` loads the folder without this package; `load_atom_model` loads it with its heads.
        A model card is written too, unless the folder has one that the user wrote.
        Arguments are those of `PreTrainedModel.save_pretrained`. With `push_to_hub` the files become one commit on the Hub.
        """
        writes = is_main_process and not Path(save_directory).is_file()
        with pushing(save_directory, kwargs, self.model_tags, writes):
            self._atom_save(save_directory, is_main_process, state_dict, writes, **kwargs)

    def _atom_save(
        self, save_directory: str | Path, is_main_process: bool, state_dict: dict | None, writes: bool, **kwargs: Any
    ) -> None:
        state = state_dict or self.state_dict()
        if writes:
            check_folder(save_directory, adapter_bases(self), "save_directory")
        with saving(save_directory, writes) as folder:
            # Of a model with an adapter of Transformers' own (`add_adapter`) only that is saved, without the model's weights.
            if self._atom_heads_inside and not getattr(self, "_hf_peft_config_loaded", False):
                # Trainer resumes by the names that parameters have in memory, not by those of an original checkpoint.
                kwargs["save_original_format"] = False
                if writes:
                    self.atom_config.save(folder)
            else:
                if writes:
                    heads = {k.removeprefix(HEADS_PREFIX): v for k, v in state.items() if k.startswith(HEADS_PREFIX)}
                    write_heads(heads, folder, self.atom_config)
                state = {k: v for k, v in state.items() if not k.startswith(HEADS_PREFIX)}
            super().save_pretrained(folder, is_main_process=is_main_process, state_dict=state, **kwargs)
            if writes and not self._atom_heads_inside:
                write_model_card(self, save_directory, folder)

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
        """Push the base, the heads and their configuration as one commit. Arguments are those of `PreTrainedModel.push_to_hub`.

        Raises:
            AtomError: no token, no write access, an invalid name, a lost connection; in one line.
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
        # The class is made at run time: `pickle` would look for it in the base's module.
        return _blank, (without_atoms(type(self)), type(self).__bases__[0]), vars(self)

    @contextmanager
    def _atom_checkpoint(self):
        """Context manager: `save_pretrained` keeps the heads among the model's weights, as resuming from a checkpoint needs."""
        self._atom_heads_inside = True
        try:
            yield
        finally:
            self._atom_heads_inside = False


def become(model: Any, cls: type) -> None:
    """Change the class of `model` to `cls`."""
    model.__class__ = cls
    if hasattr(model, "_old_forward"):
        # Accelerate's hooks (device_map over several devices) keep the forward that they found on the instance.
        model._old_forward = cls.forward.__get__(model)


def show_as(function: Callable, shown: Callable) -> None:
    """Give a function the name, docstring and signature of another.

    Not by `functools.wraps` alone: Accelerate removes its own wrapper by following `__wrapped__`, and would remove this one.
    """
    functools.update_wrapper(function, shown)
    del function.__wrapped__
    function.__signature__ = inspect.signature(shown)


def without_atoms(cls: type) -> type:
    """The class that `with_atoms` made this one from."""
    return cls.__mro__[cls.__mro__.index(AtomMixin) + 1]


def _blank(base: type, mixin: type = AtomMixin) -> Any:
    """An uninitialized instance for `pickle` or `copy` to fill."""
    cls = with_atoms(base, mixin)
    return cls.__new__(cls)


@functools.cache
def with_atoms(base: type, mixin: type = AtomMixin) -> type:
    """A subclass of `base` and a `mixin` (`AtomMixin` or a class derived from it), with the name of `base`."""

    def forward(self, *args, return_atoms: bool | None = None, **kwargs):
        if not isinstance(self, AtomMixin):  # detached, and called through an earlier wrapper of this forward
            return base.forward(self, *args, **kwargs)
        if not to_be_read(self, return_atoms):
            return base.forward(self, *args, **kwargs)
        return self._atom_run(base.forward, args, kwargs, asked=bool(return_atoms))

    show_as(forward, base.forward)
    namespace = {
        "forward": forward,
        "from_pretrained": base.from_pretrained,  # called on the class it returns the plain model, as before
        "__module__": base.__module__,
        "__qualname__": base.__qualname__,
        "__doc__": base.__doc__,
    }
    return type(base.__name__, (mixin, base), namespace)


def saving(folder: str | Path, writes: bool = True) -> AbstractContextManager[Path]:
    """Context manager: a folder to save a model to, whose files take the places of those in `folder` at the end, together.

    A process that writes nothing gets `folder` itself.
    """
    return replacing(folder, LAST_NAMES, WEIGHTS_NAMES) if writes else nullcontext(Path(folder))


def save_heads(model: Any, folder: str | Path) -> None:
    """Write the heads of a model, with their configuration and card, where it has been saved; its weights stay as they are."""
    inner = inner_model(model)
    with saving(folder) as part:
        write_heads(inner.atom_heads.state_dict(), part, inner.atom_config)
        write_model_card(model, folder, part)


@contextmanager
def pushing(folder: str | Path, kwargs: dict[str, Any], tags: list[str] | None, writes: bool):
    """Context manager: takes the Hub options out of the `kwargs` of `save_pretrained`; pushes what was written, if asked to."""
    push_to_hub = kwargs.pop("push_to_hub", False)
    hub = {name: kwargs.pop(name) for name in HUB_OPTIONS if name in kwargs}
    before = _times(folder)
    yield
    if push_to_hub and writes:
        written = {name for name, time in _times(folder).items() if before.get(name) != time}
        repo_id = hub.pop("repo_id", Path(folder).resolve().name)
        push_model(folder, repo_id, only=written, token=kwargs.get("token"), tags=tags, **hub)


def _times(folder: str | Path) -> dict[str, int]:
    """The modification time of each file in a folder, in ns."""
    return {path.name: path.stat().st_mtime_ns for path in Path(folder).glob("*") if path.is_file()}
