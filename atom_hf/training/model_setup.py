"""Prepare a Trainer's model: attach heads, keep them trainable and in float32."""

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from accelerate.utils import is_compiled_module
from torch import Tensor, nn
from transformers import Trainer
from transformers.integrations import is_deepspeed_zero3_enabled

from ..atoms.config import AtomConfig
from ..atoms.explainer_sizes import explainer_sizes
from ..atoms.forms import FORMS
from ..errors import AtomError
from ..modeling.attach import attach_atoms
from ..modeling.collector import to_be_read
from ..modeling.forward import forward_with_atoms
from ..modeling.gradient_balancer import GradientBalancer
from ..modeling.mixin import AtomMixin
from ..modeling.unwrap import inner_model, is_adapter, is_sentence_transformer, show_heads
from ..utils.terminal import get_logger

logger = get_logger(__name__)


def prepare_model(model: Any, config: AtomConfig, processing_class: Any, seed: int | None = None) -> Any:
    """Prepare `model` to train atoms: attaches them, or keeps its existing heads with their layer, tokens and side.

    Args:
        model: a Transformers model, a `PeftModel`, a `SentenceTransformer`, or the name of a model that the trainer loads
            itself: a name is returned unchanged, and the loaded model has to be prepared later.
        config: configures new heads, and the training of all.
        processing_class: the tokenizer.
        seed: of new heads' weights; by default the process's random state is used.
    """
    if isinstance(model, str):
        return model
    inner = inner_model(model)
    if not isinstance(inner, AtomMixin):
        with _class_forward(inner), torch.random.fork_rng(enabled=seed is not None):
            if seed is not None:
                # The model was made before the trainer sets the seed, which should determine the heads all the same.
                torch.manual_seed(seed)
            attach_atoms(model, config, processing_class)
    else:
        _take_on(inner, config)
    reclaim_heads(model)
    return model


def reclaim_heads(model: Any, kept: dict[str, Tensor] | None = None) -> None:
    """Undo what a trainer did to the heads of its model: unfreeze them, cast them back to float32, wrap a replaced forward.

    Args:
        model: the trainer's model.
        kept: the heads' state dict from before, to restore the weights of heads that were cast.
    """
    if is_adapter(model):
        attach_atoms(model)  # again: enrolls the heads in what the adapter trains and saves
    inner = inner_model(model)
    if is_sentence_transformer(model) and show_heads not in model._forward_hooks.values():
        model.register_forward_hook(show_heads)
    _adopt_forward(inner)
    for parameter in inner.atom_heads.trained_parameters():  # never frozen, even where the model is
        parameter.requires_grad_(True)
    for name, parameter in inner.atom_heads.named_parameters():
        # For a quantized base TRL casts every trainable parameter to bfloat16, the heads included.
        if parameter.dtype != torch.float32 and not is_deepspeed_zero3_enabled():
            source = parameter.data if kept is None else kept[name]
            parameter.data = source.to(parameter.device, torch.float32)


def check_wrapped(trainer: Any) -> None:
    """Reject unsupported training of wrapped models: adapters and SentenceTransformers.

    Raises:
        AtomError: sharding (FSDP, DeepSpeed) of such a model; a sentence-transformers loss with gradient caching (GradCache),
            which runs each batch first without a gradient, and again during the backward pass.
    """
    if inner_model(trainer.model) is trainer.model:
        return
    kind = type(trainer.model).__name__
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        raise AtomError(
            f"model: checkpoints of a {kind} under FSDP or DeepSpeed would lack its atom heads; use DDP, or a model "
            "without adapters"
        )
    if not is_sentence_transformer(trainer.model):
        return
    losses = trainer.loss.values() if isinstance(trainer.loss, dict) else [trainer.loss]
    cached = [
        type(module).__name__
        for module in torch.nn.ModuleList(losses).modules()
        if getattr(module, "uses_gradient_cache", type(module).__name__.startswith("Cached"))
    ]
    if cached:
        raise AtomError(
            f"loss: {cached[-1]} runs each batch through the model again during the backward pass, where the atom loss "
            "cannot be added; use one without a gradient cache, such as MultipleNegativesRankingLoss"
        )


def init_class(bases: Iterable[type]) -> type:
    """The first class in a Trainer's MRO whose `__init__` names its arguments."""
    for base in bases:
        parameters = inspect.signature(base.__init__).parameters if "__init__" in vars(base) else {}
        if "args" in parameters and parameters["args"].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD:
            return base
    return Trainer


def parameter_names(method: Callable) -> list[str]:
    """The names of a method's arguments, without `self`."""
    return list(inspect.signature(method).parameters)[1:]


def _take_on(model: AtomMixin, config: AtomConfig) -> None:
    """Configure a model that has heads: what they were made for stays, and `config` says how they train."""
    own = model.atom_config
    if config.form is None:
        config = replace(config, form=own.form)
    elif config.form != own.form:
        # The model keeps the form that it was made for, and with it what the form sets and nobody has asked otherwise.
        asked = {k: v for k, v in vars(config).items() if v != FORMS[config.form].get(k, config)}
        config = replace(config, form=own.form, **{k: asked.get(k, v) for k, v in FORMS[own.form].items()})
    for name in ("layer", "block", "tokens", "side"):
        asked, kept = getattr(config, name), getattr(own, name)
        if asked != kept and not (name == "block" and asked is None) and not (name == "tokens" and own.block):
            logger.warning_once(
                f"atom_{name}: the model's heads were made for {kept!r}, which is used instead of {asked!r}"
            )
    kept = (
        "layer",
        "block",
        "tokens",
        "side",
        "distance",
        "charges",
        "positions",
        "importance_std",
        "position_init",
        "hidden_size",
        "special_token_ids",
        "base_model_class",
    )
    model.atom_config = replace(config, **{name: getattr(own, name) for name in kept}, **explainer_sizes(own))
    model.atom_balancer = GradientBalancer.of(config)


def _adopt_forward(model: AtomMixin) -> None:
    """Wrap a forward that was set on the instance (`model.forward = ...`), so that atoms are read around it.

    TRL sets one: it runs the backbone and returns the log-probabilities of the labels, without hidden states. Does nothing
    if the instance has no such forward.
    """
    theirs = vars(model).get("forward")
    if theirs is None or hasattr(model, "_old_forward") or getattr(theirs, "_reads_atoms", False):
        return

    @functools.wraps(theirs)
    def forward(*args, return_atoms: bool | None = None, **kwargs):
        if not isinstance(model, AtomMixin) or not to_be_read(model, return_atoms):
            return theirs(*args, **kwargs)
        backbone = None if model.base_model is model else model.base_model
        run = functools.partial(_without_self, theirs)
        return forward_with_atoms(model, run, args, kwargs, backbone, asked=bool(return_atoms))

    forward._reads_atoms = True
    model.forward = forward


def _without_self(forward: Callable, _: Any, *args: Any, **kwargs: Any) -> Any:
    return forward(*args, **kwargs)


@contextmanager
def _class_forward(model: Any) -> Iterator[None]:
    """Context manager: removes a forward that a trainer set on the instance; restores it."""
    theirs = getattr(model, "__dict__", {}).pop("forward", None)
    try:
        yield
    finally:
        if theirs is not None:
            model.forward = theirs


def check_compiled(model: nn.Module, what: str) -> None:
    """Reject what a model compiled as a whole hides: its gradients from the relative weight, and what its output layer reads.

    Raises an `AtomError` that begins with `what`.
    """
    whole = [module._orig_mod for module in model.modules() if is_compiled_module(module)]
    whole += [module for module in model.modules() if getattr(module, "_compiled_call_impl", None) is not None]
    models = [module for module in whole if isinstance(module, AtomMixin)]
    if any(model.atom_balancer.ratio for model in models):
        raise AtomError(
            f"{what}: compiled as a whole, the model hides its gradients from the relative weight; use atom_weighting "
            "'absolute' (AtomConfig.weighting), or leave it out"
        )
    if any(model.atom_config.tokens == "read" for model in models):
        raise AtomError(
            f"{what}: compiled as a whole, the model hides what its output layer reads; use atom_form 'paper' "
            "(AtomConfig.form), or leave it out"
        )
