"""The peak memory of tensors: the bytes of all that an operation made and that are still in use, at the moment of most."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class _Counter(TorchDispatchMode):
    """Counts the storages that operations give while it is active."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, weakref.ref] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = function(*args, **(kwargs or {}))
        for tensor in tree_iter(given):
            if isinstance(tensor, torch.Tensor):
                self._add(tensor.untyped_storage())
        return given

    def _add(self, storage: torch.UntypedStorage) -> None:
        known = self._known.get(storage.data_ptr())
        if known is not None and known() is storage:
            return
        size, place = storage.nbytes(), storage.data_ptr()

        def forget(_: Any) -> None:
            self.now -= size

        self._known[place] = weakref.ref(storage, forget)
        self.now += size
        self.peak = max(self.peak, self.now)


def peak_bytes(act: Callable[[], Any]) -> int:
    """The peak memory of what `act` makes, in bytes, without what an operation needs inside."""
    with _Counter() as counter:
        act()
    return counter.peak
