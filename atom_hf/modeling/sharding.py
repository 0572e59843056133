"""Sharded models (FSDP, DeepSpeed ZeRO): units, precision, and gradients of hidden states."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from transformers.integrations import is_deepspeed_zero3_enabled


def name_units(model: Any) -> None:
    """Set the classes that FSDP shards as separate units (`_no_split_modules`) so that Accelerate can shard the model.

    Accelerate shards the input embedding as a separate unit, after these classes. A class that contains the embedding
    (BertEmbeddings, ViTEmbeddings) has sharded it by then, and Accelerate 1.15 fails on such models, with atoms or without.
    """
    try:
        embedding = model.get_input_embeddings()
    except (AttributeError, NotImplementedError):  # a ResNet has none
        embedding = None
    holders = {
        type(module).__name__
        for module in model.modules()
        if embedding is not None and module is not embedding and any(part is embedding for part in module.modules())
    }
    names = getattr(model, "_no_split_modules", None) or []
    model._no_split_modules = [name for name in names if name not in holders]


def gathered_parameters(parameters: Iterable[nn.Parameter]) -> AbstractContextManager:
    """Context manager: gathers parameters that ZeRO-3 has sharded, to read or write; keeps what rank 0 writes."""
    if not is_deepspeed_zero3_enabled():
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(list(parameters), modifier_rank=0)


def prepare_precision(accelerator: Any, model: Any) -> None:
    """Set up mixed precision before a model with atom heads is sharded."""
    if is_deepspeed_zero3_enabled():
        # DeepSpeed shards parameters of one dtype only, and keeps float32 copies of them; with ZeRO-3 it cast the model's when
        # they were created, but does not cast the heads.
        for parameter in model.atom_heads.parameters():
            parameter.data = parameter.data.to(next(model.parameters()).dtype)
    plugin = getattr(accelerator.state, "fsdp_plugin", None)
    policy = getattr(plugin, "mixed_precision_policy", None)
    if policy is not None and plugin.fsdp_version == 2:
        # FSDP2 would cast all outputs of the model, the float32 atoms included.
        plugin.mixed_precision_policy = replace(policy, output_dtype=None)


def watch_gradient(hidden: Tensor, measure: Callable[[Tensor], None]) -> None:
    """Call `measure` with the whole gradient of `hidden`, once backward has computed it.

    Under ZeRO-3 a module returns copies of its tensors, one for each place in its outputs: the task's gradient does not flow
    through the copy that was picked, but joins it at the tensor that was copied.
    """
    # Not `Tensor.register_hook` alone, for these copies.
    node, index = hidden.grad_fn, hidden.output_nr
    while type(node).__name__.startswith(("PreBackwardFunction", "PostBackwardFunction")):
        node, index = next((before, at) for before, at in node.next_functions if before is not None)
    if node is hidden.grad_fn:
        hidden.register_hook(measure)
    else:
        node.register_prehook(lambda gradients: measure(gradients[index]))
