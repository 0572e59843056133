"""Adapters (PEFT): the heads train along with the adapter and are saved in its folder."""

import functools
import inspect
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import CommitInfo
from peft import PeftModel
from torch import Tensor

from ..atoms.heads import AtomHeads
from ..errors import AtomError
from ..hub.card import CARD_NAME
from ..hub.card_facts import write_model_card
from ..hub.upload import check_base
from .heads_file import HEADS_PREFIX, write_heads
from .mixin import AtomMixin, pushing, saving, show_as
from .model_folder import check_folder
from .unwrap import adapter_bases


class AdapterMixin:
    """Mixin that `attach_atoms` adds to a `PeftModel`, whose base is the `AtomMixin`.

    The adapter's own files stay PEFT's: `PeftModel.from_pretrained` loads them on the plain base, without this package.
    There is one set of heads, whichever adapter is active.
    """

    def atom_importance(self, **inputs: Any) -> Tensor:
        """The importance [B, N] of each token with the active adapter, as `AtomMixin.atom_importance`, without virtual ones."""
        importance = AtomMixin.atom_importance(self, **inputs)
        if self.active_peft_config.is_prompt_learning and torch.is_tensor(inputs.get("input_ids")):
            importance = importance[:, -inputs["input_ids"].shape[1] :]
        return importance

    def save_pretrained(self, save_directory: str | Path, *args: Any, **kwargs: Any) -> None:
        """Save the adapters as PEFT does, and the heads and their configuration beside them.

        Arguments are those of `PeftModel.save_pretrained`. `load_atom_model` loads the folder: base, adapter and heads. With
        `push_to_hub` the files become one commit on the Hub, as in `AtomMixin.save_pretrained`.
        """
        with pushing(save_directory, kwargs, getattr(self, "model_tags", None), kwargs.get("is_main_process", True)):
            self._atom_save(save_directory, *args, **kwargs)

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> CommitInfo:
        """Push the adapters, the heads and their configuration as one commit. Arguments are those of `AtomMixin.push_to_hub`.

        Raises:
            AtomError: the base is not available to others; and what `AtomMixin.push_to_hub` raises.
        """
        for base in adapter_bases(self):
            check_base(base, repo_id, "push_to_hub: the adapter")
        return AtomMixin.push_to_hub(self, repo_id, **kwargs)

    def _atom_save(self, save_directory: str | Path, *args: Any, **kwargs: Any) -> None:
        check_folder(save_directory, adapter_bases(self), "save_directory")
        state = kwargs.pop("state_dict", None) or self.state_dict()
        heads = {key: value for key, value in state.items() if f".{HEADS_PREFIX}" in f".{key}"}
        # LoRA's bias="all" would save the biases of the heads in the adapter.
        plain = {key: value for key, value in state.items() if key not in heads}
        writes = kwargs.get("is_main_process", True)
        with saving(save_directory, writes) as folder:
            super().save_pretrained(str(folder), *args, state_dict=plain, **kwargs)
            if writes:
                # PEFT has written a card of its own, with the base's path in it.
                Path(folder, CARD_NAME).unlink(missing_ok=True)
                write_model_card(self, save_directory, folder)
                heads = {key.rpartition(HEADS_PREFIX)[2]: value for key, value in heads.items()}
                write_heads(heads, folder, self.get_base_model().atom_config)

    def _atom_withdraw(self) -> PeftModel:
        self.__class__ = _base_of(type(self))
        return self

    def __reduce__(self) -> tuple:
        return _blank, (_base_of(type(self)),), vars(self)


def enroll(model: PeftModel) -> PeftModel:
    """Make the heads of an adapter's base train and be saved along with the adapter. Idempotent.

    PEFT freezes everything but the adapter when one is made or added, existing heads included.

    Raises:
        AtomError: the adapter has copies of the heads (modules_to_save).
    """
    base = model.get_base_model()
    if not isinstance(base.atom_heads, AtomHeads):
        raise AtomError(
            "modules_to_save: the adapter has its own copies of the atom heads; leave atom_heads out of it: the heads are "
            "trained and saved beside any adapter"
        )
    for parameter in base.atom_heads.trained_parameters():
        parameter.requires_grad_(True)
    if not isinstance(model, AdapterMixin):
        model.__class__ = _adapter_class(type(model))
    return model


def _base_of(cls: type) -> type:
    return cls.__mro__[cls.__mro__.index(AdapterMixin) + 1]


def _blank(base: type) -> Any:
    """An uninitialized instance for `pickle` or `copy` to fill."""
    cls = _adapter_class(base)
    return cls.__new__(cls)


@functools.cache
def _adapter_class(base: type) -> type:
    """A subclass of `base` and `AdapterMixin` with the name of `base`."""
    _, *names = inspect.signature(base.forward).parameters

    def forward(self, *args, **kwargs):
        with _showing_text(self, {**dict(zip(names, args, strict=False)), **kwargs}):
            return base.forward(self, *args, **kwargs)

    show_as(forward, base.forward)
    namespace = {"__module__": base.__module__, "__qualname__": base.__qualname__, "__doc__": base.__doc__}
    return type(base.__name__, (AdapterMixin, base), {**namespace, "forward": forward})


@contextmanager
def _showing_text(model: PeftModel, inputs: dict[str, Any]):
    """Context manager: gives the base the ids and mask of the text, where a prompt-learning adapter passes it embeddings.

    Virtual tokens stand in front of the text and are not in this mask, and so belong to no atom.
    """
    if not model.active_peft_config.is_prompt_learning:
        yield
        return
    base, ids, mask = model.get_base_model(), inputs.get("input_ids"), inputs.get("attention_mask")
    shape = inputs["inputs_embeds"].shape[:2] if ids is None else ids.shape
    text = {"attention_mask": torch.ones(shape, device=base.device) if mask is None else mask}
    base._atom_forward_state.text = text if ids is None else {**text, "input_ids": ids}
    try:
        yield
    finally:
        base._atom_forward_state.text = None
