"""Find what a model's output layer reads, in one forward pass, by the tensors and never by a name."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class OutputLayer(NamedTuple):
    """The modules that give the logits, by their names in the model."""

    name: str
    dropout: str | None
    """The dropout whose output it reads, if it does: what goes into that is read, without its noise."""
    picked: bool
    """Whether the logits are those of one token each of the ones that it gives."""

    def is_in(self, model: nn.Module) -> bool:
        """Whether the model still has these modules: an adapter may have been merged, or a head replaced."""
        try:
            return all(model.get_submodule(name) is not None for name in (self.name, self.dropout) if name is not None)
        except AttributeError:
            return False


class Call(NamedTuple):
    """The inputs and the output of one module in a forward pass."""

    name: str
    given: Tensor
    result: Tensor


class Read:
    """What the output layer of a model reads in one forward pass."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def ran(self, layer: OutputLayer) -> bool:
        """Whether the layer was called in this pass."""
        return any(call.name == layer.name for call in self.calls)

    def tokens(self, layer: OutputLayer, logits: Tensor | None) -> tuple[Tensor, Tensor | None] | None:
        """(tokens [B, N, d], mask bool [B, N], or None for all of them); None where the layer did not run.

        One token for each sample where the output layer reads one vector of it. Of a sequence [B, N, d] all tokens, unless
        the logits are those of one token alone (the last, in a decoder with a classifier): then that one.
        """
        last = next((call for call in reversed(self.calls) if call.name == layer.name), None)
        if last is None or (layer.picked and logits is None):
            return None
        given = last.given
        for call in self.calls:
            if call.name == layer.dropout and call.result is last.given:
                given = call.given
        if given.dim() == 2:
            given = given.unsqueeze(1)
        elif given.dim() == 4:
            given = given.flatten(2).transpose(1, 2)  # a feature map
        return given, (last.result == logits.unsqueeze(1)).all(-1) if layer.picked else None


@contextmanager
def watching(model: nn.Module, layer: OutputLayer | None) -> Iterator[Read]:
    """Context manager: yields what the output layer reads in the forward pass within it.

    Args:
        model: the model whose forward pass it is.
        layer: its output layer; None to look for it, for which every module is watched.
    """
    read = Read()
    names = [name for name, _ in model.named_modules() if name] if layer is None else [layer.name, layer.dropout]

    def keep(name: str) -> Any:
        def hook(_: nn.Module, given: tuple, result: Any) -> None:
            if given and torch.is_tensor(given[0]) and torch.is_tensor(result) and given[0].is_floating_point():
                read.calls.append(Call(name, given[0], result))

        return hook

    hooks = [model.get_submodule(name).register_forward_hook(keep(name)) for name in names if name is not None]
    try:
        yield read
    finally:
        for hook in hooks:
            hook.remove()


def find_output_layer(model: nn.Module, read: Read, logits: Any) -> OutputLayer | None:
    """The first module to give the logits in a forward pass in which all were watched; None if none gives them as they are."""
    if not torch.is_tensor(logits):
        return None
    for number, call in enumerate(read.calls):
        same = call.result.numel() == logits.numel() and torch.equal(call.result.flatten(), logits.flatten())
        picked = not same and _is_picked(call.result, logits)
        if not (same or picked) or call.given.dim() not in (2, 3, 4):
            continue
        before = [c.name for c in read.calls[:number] if c.result is call.given]
        dropout = next((name for name in before if isinstance(model.get_submodule(name), nn.Dropout)), None)
        return OutputLayer(call.name, dropout, picked)
    return None


def _is_picked(result: Tensor, logits: Tensor) -> bool:
    """Whether logits [B, C] may be those of one token each of what a layer gave for all, [B, N, C]."""
    if result.dim() != 3 or logits.dim() != 2 or result.shape[::2] != logits.shape:
        return False
    return bool((result == logits.unsqueeze(1)).all(-1).any(1).all())
