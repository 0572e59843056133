"""What each attention head hands to the output projection, taken where Transformers calls its attention functions."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn
from transformers import AttentionInterface

from ..errors import AtomError
from ..modeling.states import LayerTokens, StateReader


class HeadCall(NamedTuple):
    """The result of one attention."""

    module: nn.Module
    output: Tensor
    """[B, N, heads, d], as the output projection gets it."""


@contextmanager
def watching_heads() -> Iterator[list[HeadCall]]:
    """Context manager: yields a list that receives every attention of the forward passes within it, in order.

    The functions that models call are those they would call otherwise. Not for several threads at once.
    """
    calls: list[HeadCall] = []
    find = AttentionInterface.get_interface

    def get_interface(self: Any, implementation: str, default: Any) -> Any:
        function = find(self, implementation, default)

        def watched(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            result = function(module, *args, **kwargs)
            calls.append(HeadCall(module, result[0]))
            return result

        return watched

    AttentionInterface.get_interface = get_interface
    try:
        yield calls
    finally:
        AttentionInterface.get_interface = find


class HeadReader:
    """Reads the heads of the attention that leads to some layers: of layer l that of block l, counted from 1.

    Args:
        reader: the layers to read, and where their tokens are.
    """

    def __init__(self, reader: StateReader):
        self.reader = reader
        self.names = {module: name for name, module in reader.base.named_modules()}
        self.heads: dict[int, int] = {}
        """How many heads each layer has, once read."""

    def __call__(self, inputs: dict[str, Any]) -> dict[int, LayerTokens]:
        """The heads' outputs side by side, [B, N, heads * d], by layer.

        Raises:
            AtomError: the embeddings, or a layer whose heads cannot be found.
        """
        with watching_heads() as calls:
            found, _ = self.reader(inputs)
        blocks = self._blocks(calls)
        result = {}
        for layer, tokens in found.items():
            place = layer % self.reader.count - 1
            if place < 0:
                if self.reader.layers == "all":
                    continue
                raise AtomError(f"layer {layer} is the embeddings, which no attention head makes; give one from 1 on")
            fitting = [
                call.output
                for call in blocks.get(place, [])
                if call.output.dim() == 4 and call.output.shape[:2] == tokens.tokens.shape[:2]
            ]
            if not fitting:
                raise AtomError(
                    f"kind 'heads': no attention heads are found in layer {layer} of {type(self.reader.base).__name__} (there "
                    "is no attention over these tokens, or it is not Transformers' own); choose another layer, or kind 'units'"
                )
            # The first of a block is its self-attention; a decoder attends to the encoder after it.
            self.heads[layer] = fitting[0].shape[2]
            result[layer] = LayerTokens(fitting[0].flatten(2), tokens.mask)
        return result

    def _blocks(self, calls: list[HeadCall]) -> dict[int, list[HeadCall]]:
        """The attentions of each block of the stack of layers on the side that is read."""
        stacks: dict[str, dict[int, list[HeadCall]]] = {}
        for call in calls:
            name = self.names.get(call.module)
            match = None if name is None else re.match(r"(.*?)(?:^|\.)(\d+)(?:\.|$)", name)
            if match:
                stacks.setdefault(match[1], {}).setdefault(int(match[2]), []).append(call)
        most = self.reader.count - 1
        own = [stack for stack in stacks.items() if max(stack[1]) < most]
        if getattr(self.reader.base.config, "is_encoder_decoder", False):
            own = [stack for stack in own if re.search(rf"(^|\.)(\w*_)?{self.reader.side}\b", stack[0])] or own
        return own[-1][1] if own else {}
