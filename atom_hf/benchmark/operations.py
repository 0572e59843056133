"""Count the operator calls of a profiled step: what a small model or a GPU pays for is each launch, not its size."""

import functools
from typing import Any

import torch

# They allocate, name or read memory, and compute nothing. (In-place views are no views to the dispatcher.)
NO_WORK = {
    *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "resize_", "resize_as_", "set_"),
    *("squeeze_", "unsqueeze_", "transpose_", "t_", "as_strided_", "detach_", "_unsafe_view", "lift_fresh"),
    *("item", "_local_scalar_dense", "result_type", "promote_types"),
}


def operator_calls(event: Any) -> int:
    """The number of calls of operators within an event of the profiler, itself included.

    An operator is one of PyTorch's dispatcher, `aten::...`. Composite ones (`linear`) count as what they call; views and
    allocations do not count. A call over a list of tensors (`_foreach_add_`, `_fused_adamw_`) is one.
    """
    if event.name.startswith("aten::"):
        kind = _kind(event.name.removeprefix("aten::"))
        # An operator that calls its own name again converts its arguments first.
        composite = kind == "composite" or any(child.name == event.name for child in event.cpu_children)
        if not composite:
            return int(kind == "work")
    return sum(operator_calls(child) for child in event.cpu_children)


@functools.cache
def _kind(name: str) -> str:
    """'work', 'composite' or 'none'."""
    packet = getattr(torch.ops.aten, name, None)
    if packet is None or name in NO_WORK:
        return "none"
    overloads = [getattr(packet, overload) for overload in packet.overloads()]
    # Some are known to TorchScript alone.
    overloads = [each for each in overloads if torch._C._dispatch_has_kernel(each.name())]
    if all(
        torch._C._dispatch_has_kernel_for_dispatch_key(each.name(), "CompositeImplicitAutograd") for each in overloads
    ):
        return "composite"
    return "none" if all(each.is_view for each in overloads) else "work"
