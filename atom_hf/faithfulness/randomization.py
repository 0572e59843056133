"""Randomize the parameters of a model, from its output down to its input."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ..errors import AtomError


def cascade(model: Any) -> list[tuple[str, list[nn.Parameter]]]:
    """The parameters of a model in groups, from the output to the input: "top", each layer from the last, "embeddings".

    The importance head is of the top, as the classifier is, and so is any norm between the layers and these.

    Raises:
        AtomError: a model without a stack of layers.
    """
    stacks = [
        (name, module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList) and len(module)
    ]
    if not stacks:
        raise AtomError(f"{type(model).__name__} has no stack of layers to make random one by one")
    name, stack = max(stacks, key=lambda pair: sum(parameter.numel() for parameter in pair[1].parameters()))
    prefix = f"{name}."
    names = [key for key, _ in model.named_parameters()]
    first = next(place for place, key in enumerate(names) if key.startswith(prefix))
    rest = [
        (place, key, value) for place, (key, value) in enumerate(model.named_parameters()) if not key.startswith(prefix)
    ]
    groups = [("top", [value for place, _, value in rest if place > first])]
    groups += [(f"layer {i + 1}", list(stack[i].parameters())) for i in reversed(range(len(stack)))]
    return [*groups, ("embeddings", [value for place, _, value in rest if place < first])]


@contextmanager
def randomized(model: Any, seed: int = 0) -> Iterator[Iterator[str]]:
    """Context manager: yields the names of the groups one by one, each after it and all above it were made random. Restores
    the model at the end.

    Cascading randomisation, Adebayo et al. (arXiv 1810.03292), section 3.1. Each parameter is drawn anew from a normal
    distribution of its own mean and standard deviation (ours): what it had learned is lost, its scale is kept.
    """
    groups = cascade(model)
    kept = [parameter.detach().clone() for _, group in groups for parameter in group]
    generator = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def steps() -> Iterator[str]:
        for name, group in groups:
            for parameter in group:
                spread = parameter.float().std() if parameter.numel() > 1 else parameter.float().abs().sum()
                noise = torch.randn(parameter.shape, generator=generator).to(parameter.device)
                parameter.copy_(parameter.float().mean() + spread * noise)
            yield name

    try:
        yield steps()
    finally:
        with torch.no_grad():
            for parameter, value in zip([p for _, group in groups for p in group], kept, strict=True):
                parameter.copy_(value)
