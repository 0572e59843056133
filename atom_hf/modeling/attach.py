"""Attach atom heads to a model, and detach them."""

import inspect
from dataclasses import replace
from typing import Any

import torch
from transformers import PreTrainedModel

from ..atoms.config import AtomConfig
from ..atoms.heads import AtomHeads, ExplainerHead
from ..errors import AtomError
from ..hub.card_facts import base_of_weights
from .collector import ForwardState
from .gradient_balancer import GradientBalancer
from .layers import check_layer, check_width, hidden_size_of
from .mixin import AtomMixin, become, with_atoms, without_atoms
from .sharding import name_units
from .tokens import special_token_ids
from .unwrap import inner_model, is_adapter, is_sentence_transformer, show_heads


def attach_atoms(
    model: PreTrainedModel, config: AtomConfig | None = None, processing_class: Any = None
) -> PreTrainedModel:
    """Gives `model` its atom heads: the same object, now also an `AtomMixin`.

    Attach before a Trainer, DDP, FSDP or `torch.compile` sees the model. The class keeps its name and its
    module, so that configuration, pipelines and `generate` go on as before.

    A `PeftModel` gets them on its base, and saves them beside its adapter. Heads that were there before
    `get_peft_model`, which freezes them, are enrolled by `attach_atoms(peft_model)`.

    Args:
        model: any Transformers model that gives hidden states, one with adapters (PEFT), or a SentenceTransformer.
        config: an `AtomConfig`; its defaults if None. It is copied.
        processing_class: the tokenizer, to know which tokens are special. Without one the ids in the model's own
            configuration count, and BERT's, for one, does not name [CLS] and [SEP].

    Raises:
        AtomError: not a Transformers model, no hidden states, a layer that the model does not have, atoms already attached.
    """
    if is_adapter(model):
        from .adapters import enroll  # imports PEFT

        if config is not None or not isinstance(inner_model(model), AtomMixin):
            attach_atoms(inner_model(model), config, processing_class)
        return enroll(model)
    if is_sentence_transformer(model):
        attach_atoms(inner_model(model), config, processing_class or model.tokenizer)
        return model
    if not isinstance(model, PreTrainedModel):
        raise AtomError(
            "model must be a transformers.PreTrainedModel, a peft.PeftModel or a SentenceTransformer, got "
            f"{type(model).__name__}; attach atoms before the model is wrapped"
        )
    if hasattr(model, "atom_heads"):
        raise AtomError("model already has atoms attached")
    parameters = inspect.signature(model.forward).parameters
    if "output_hidden_states" not in parameters and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        raise AtomError(f"{type(model).__name__} gives no hidden states (its forward takes no output_hidden_states)")
    if "forward" in vars(model) and not hasattr(model, "_old_forward"):
        raise AtomError(
            f"the forward of this {type(model).__name__} was replaced on the instance (model.forward = ...), and atoms "
            "would never be read; attach atoms first"
        )
    if config is not None and not isinstance(config, AtomConfig):
        raise AtomError(f"config must be an AtomConfig, got {type(config).__name__}")
    config = replace(
        config or AtomConfig(), explainer_classes=None, explainer_width=None
    )  # that of another model says nothing here

    check_layer(model, config.layer, config.side)
    check_width(model, config)
    width_given = config.hidden_size is not None
    config.hidden_size = config.hidden_size or hidden_size_of(model, config.layer, config.side)
    config.base_model_class = type(model).__name__
    if config.special_token_ids is None:
        config.special_token_ids = special_token_ids(model.config, processing_class)

    heads = _make_heads(model, config)
    before = {name: vars(model)[name] for name in ("_no_split_modules",) if name in vars(model)}
    become(model, with_atoms(type(model)))
    model.atom_config = config
    model.atom_heads = heads
    model.atom_balancer = GradientBalancer.of(config)
    model._atom_width_given = width_given
    model._atom_forward_state = ForwardState()
    model._atom_before = before
    model._atom_base = base_of_weights(model)  # what is a folder now may be none when the card is written
    # FSDP shards the heads as a unit of their own: they are float32 in a model that may be bfloat16.
    name_units(model)
    model._no_split_modules.append("AtomHeads")
    return model


def detach_atoms(model: PreTrainedModel) -> PreTrainedModel:
    """Takes the heads off again: the same object, exactly what it was before `attach_atoms` but for what it has learned.

    An optimizer made with the heads goes on to hold their parameters; make a new one. What Transformers itself leaves in a
    model that has given hidden states stays (hooks, with which the whole model cannot be pickled).

    Raises:
        AtomError: no atoms attached.
    """
    if is_adapter(model) or is_sentence_transformer(model):
        detach_atoms(inner_model(model))
        for key in [key for key, hook in model._forward_hooks.items() if hook is show_heads]:
            del model._forward_hooks[key]
        return getattr(model, "_atom_withdraw", lambda: model)()
    if not isinstance(model, AtomMixin):
        raise AtomError(f"this {type(model).__name__} has no atoms attached")
    before = model._atom_before
    del model.atom_heads
    for name in [name for name in vars(model) if name.startswith(("atom_", "_atom_"))]:
        delattr(model, name)
    del model._no_split_modules
    vars(model).update(before)
    if getattr(vars(model).get("forward"), "_reads_atoms", False):
        model.forward = model.forward.__wrapped__  # what another library's trainer had put there
    become(model, without_atoms(type(model)))
    return model


def refit_heads(model: Any, width: int) -> None:
    """Makes the heads of a model anew for hidden states of another width than its configuration says.

    Only before anything holds their parameters, an optimizer or a wrapper.
    """
    model.atom_config.hidden_size = width
    model.atom_heads = _make_heads(model, model.atom_config)


def add_explainer(model: Any, classes: int, width: int) -> ExplainerHead:
    """Gives the heads of a model an explainer for so many classes, and its configuration the sizes."""
    config = model.atom_config
    with torch.random.fork_rng([model.device] if model.device.type == "cuda" else []):
        torch.manual_seed(0)
        explainer = ExplainerHead(config.hidden_size, classes, width)
    model.atom_heads.explainer = explainer.to(model.atom_heads.importance.weight.device).requires_grad_(False)
    config.explainer_classes, config.explainer_width = classes, width
    return explainer


def remove_explainer(model: Any) -> None:
    """Removes the explainer, if there is one: it was fitted to weights that are about to change."""
    model.atom_heads.explainer = None
    model.atom_config.explainer_classes = model.atom_config.explainer_width = None


def _make_heads(model: Any, config: AtomConfig) -> AtomHeads:
    # The run's random numbers go on as if nothing had been attached: a paired plain run sees the same data order.
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        # A width that the configuration does not say is found by the first forward pass of a trainer.
        return AtomHeads(
            config.hidden_size or 1, importance_std=config.importance_std, position_init=config.position_init
        ).to(model.device)
