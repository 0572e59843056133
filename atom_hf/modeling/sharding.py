"""Models whose parameters are sharded over processes (FSDP, DeepSpeed ZeRO)."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from transformers.integrations import is_deepspeed_zero3_enabled


def name_units(model: Any) -> None:
    """Names the classes that FSDP shards as units of their own, of a Transformers model, so that Accelerate can use them.

    Accelerate shards the input embedding as a unit of its own, after these classes: one that holds the embedding
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
    """Within it parameters that ZeRO-3 has sharded are whole and may be written to; what rank 0 writes is kept."""
    if not is_deepspeed_zero3_enabled():
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(list(parameters), modifier_rank=0)


def prepare_precision(accelerator: Any, model: Any) -> None:
    """What mixed precision needs before a model with atom heads is sharded."""
    if is_deepspeed_zero3_enabled():
        # DeepSpeed shards parameters of one precision only, and has float32 copies of its own; with ZeRO-3 it cast the model's
        # when they were made, and leaves others as they are.
        for parameter in model.atom_heads.parameters():
            parameter.data = parameter.data.to(next(model.parameters()).dtype)
    plugin = getattr(accelerator.state, "fsdp_plugin", None)
    policy = getattr(plugin, "mixed_precision_policy", None)
    if policy is not None and plugin.fsdp_version == 2:
        # FSDP2 would cast all that a model gives, the float32 atoms too.
        plugin.mixed_precision_policy = replace(policy, output_dtype=None)


def watch_gradient(hidden: Tensor, measure: Callable[[Tensor], None]) -> None:
    """Calls `measure` with the whole gradient of `hidden`, once it is there.

    Under ZeRO-3 what a module gives are copies of its tensors, one for each place in its output: the task's gradient goes past
    the one that was picked, and meets it at the tensor that they are copies of.
    """
    node, index = hidden.grad_fn, hidden.output_nr
    while type(node).__name__.startswith(("PreBackwardFunction", "PostBackwardFunction")):
        node, index = next((before, at) for before, at in node.next_functions if before is not None)
    if node is hidden.grad_fn:
        hidden.register_hook(measure)
    else:
        node.register_prehook(lambda gradients: measure(gradients[index]))
