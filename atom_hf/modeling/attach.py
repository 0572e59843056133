"""Attach atom heads to a model and detach them; add and remove its explainer."""

from dataclasses import replace
from typing import Any

import torch
from transformers import PreTrainedModel

from ..atoms.config import AtomConfig
from ..atoms.explainer_head import ExplainerHead
from ..atoms.explainer_sizes import NO_EXPLAINER, explainer_sizes, make_explainer
from ..atoms.heads import AtomHeads
from ..errors import AtomError
from ..hub.card_facts import base_of_weights
from .blocks import find_block, is_diffusers_model, width_of_block
from .collector import ForwardState
from .denoiser import DenoiserAtoms
from .form import default_form
from .gradient_balancer import GradientBalancer
from .layers import check_layer, check_width, hidden_size_of
from .mixin import AtomMixin, become, with_atoms, without_atoms
from .own_outputs import backbone_of, takes
from .sharding import name_units
from .tokens import special_token_ids
from .unwrap import inner_model, is_adapter, is_sentence_transformer, show_heads


def attach_atoms(model: Any, config: AtomConfig | None = None, processing_class: Any = None) -> Any:
    """Attach atom heads to `model` in place, and return it: the same object, now also an `AtomMixin`.

    Attach before a Trainer, DDP, FSDP or `torch.compile` wraps the model. The class keeps its name and module, so that
    configuration, pipelines and `generate` work as before.

    A `PeftModel` gets the heads on its base, and saves them beside its adapter. If `get_peft_model` was called on a model
    with heads, which freezes them, call `attach_atoms(peft_model)` to train and save them with the adapter.

    Args:
        model: any Transformers model that returns hidden states, one with adapters (PEFT), or a SentenceTransformer; or a
            model of diffusers, such as a UNet or a diffusion transformer, whose tokens are the cells that a block gives.
        config: an `AtomConfig`, which is copied; None for the defaults.
        processing_class: the tokenizer, which knows the special tokens. Without one the ids in the model's configuration
            are used, and BERT's, for one, does not name [CLS] and [SEP].

    Raises:
        AtomError: no such model, no hidden states, a layer or block that the model does not have, atoms already attached.
    """
    if is_adapter(model):
        from .adapters import enroll  # imports PEFT

        if config is not None or not isinstance(inner_model(model), AtomMixin):
            attach_atoms(inner_model(model), config, processing_class)
        return enroll(model)
    if is_sentence_transformer(model):
        attach_atoms(inner_model(model), config, processing_class or model.tokenizer)
        return model
    if inner_model(model) is not model:  # an objective around a denoiser
        attach_atoms(inner_model(model), config, processing_class)
        return model
    of_diffusers = is_diffusers_model(model)
    if not (of_diffusers or isinstance(model, PreTrainedModel)):
        raise AtomError(
            "model must be a transformers.PreTrainedModel, a peft.PeftModel, a SentenceTransformer or a model of diffusers, "
            f"got {type(model).__name__}; attach atoms before the model is wrapped"
        )
    if hasattr(model, "atom_heads"):
        raise AtomError("model already has atoms attached")
    if config is not None and not isinstance(config, AtomConfig):
        raise AtomError(f"config must be an AtomConfig, got {type(config).__name__}")
    # An explainer belongs to the model that it was fitted on.
    config = config or AtomConfig()
    config = replace(config, form=config.form or default_form(model), **NO_EXPLAINER)
    if of_diffusers:
        return _attach_to_block(model, config)

    if not takes(type(model).forward, "output_hidden_states") and backbone_of(model) is None:
        raise AtomError(f"{type(model).__name__} returns no hidden states (its forward takes no output_hidden_states)")
    if "forward" in vars(model) and not hasattr(model, "_old_forward"):
        raise AtomError(
            f"the forward of this {type(model).__name__} was replaced on the instance (model.forward = ...), and atoms "
            "would never be read; attach atoms first"
        )
    if config.block is not None:
        raise AtomError(
            f"block {config.block!r}: blocks are named in models of diffusers; of a {type(model).__name__} give layer"
        )
    check_layer(model, config.layer, config.side)
    check_width(model, config)
    width_given = config.hidden_size is not None
    config.hidden_size = config.hidden_size or hidden_size_of(model, config.layer, config.side)
    config.base_model_class = type(model).__name__
    if config.special_token_ids is None:
        config.special_token_ids = special_token_ids(model.config, processing_class)
    model = _install(model, config, AtomMixin, width_given)
    model._atom_base = base_of_weights(model)  # found now: the folder may be gone when the card is written
    return model


def _attach_to_block(model: Any, config: AtomConfig) -> Any:
    """`attach_atoms` for a model of diffusers: the heads read the cells that a block gives."""
    config.block = find_block(model, config.block)
    width_given = config.hidden_size is not None
    config.hidden_size = config.hidden_size or width_of_block(model, config.block)
    config.base_model_class = type(model).__name__
    config.tokens = "all"  # a block's cells have no special ones among them, and are what is read
    config.special_token_ids = []
    return _install(model, config, DenoiserAtoms, width_given)


def _install(model: Any, config: AtomConfig, mixin: type, width_given: bool) -> Any:
    """Give a model its heads, and the class that reads them."""
    heads = _make_heads(model, config)
    before = {name: vars(model)[name] for name in ("_no_split_modules",) if name in vars(model)}
    become(model, with_atoms(type(model), mixin))
    model.atom_config = config
    model.atom_heads = heads
    model.atom_balancer = GradientBalancer.of(config)
    model._atom_width_given = width_given
    model._atom_forward_state = ForwardState()
    model._atom_before = before
    # FSDP shards the heads as a separate unit: they are float32 in a model that may be bfloat16.
    name_units(model)
    model._no_split_modules.append("AtomHeads")
    return model


def detach_atoms(model: PreTrainedModel) -> PreTrainedModel:
    """Remove the heads in place, and return the model: the same object as before `attach_atoms`, except for trained weights.

    An optimizer made with the heads still holds their parameters; make a new one. The hooks that Transformers itself installs
    on a model that returns hidden states stay (with them the whole model cannot be pickled).

    Raises:
        AtomError: no atoms are attached.
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
        model.forward = model.forward.__wrapped__  # the forward that another library's trainer had set
    become(model, without_atoms(type(model)))
    return model


def refit_heads(model: Any, width: int) -> None:
    """Replace the heads of a model by new ones for hidden states of width `width`.

    Call it before an optimizer or a wrapper holds their parameters.
    """
    model.atom_config.hidden_size = width
    model.atom_heads = _make_heads(model, model.atom_config)


def add_explainer(model: Any, **sizes: Any) -> ExplainerHead:
    """Add an untrained explainer to the heads of a model, and its sizes to the configuration.

    Args:
        model: the model with atoms.
        **sizes: the fields of `AtomConfig` that describe an explainer, such as `explainer_classes`.
    """
    config = replace(model.atom_config, **NO_EXPLAINER | sizes)
    with torch.random.fork_rng([model.device] if model.device.type == "cuda" else []):
        torch.manual_seed(0)
        explainer = make_explainer(config, config.hidden_size)
    model.atom_heads.explainer = explainer.to(model.atom_heads.importance.weight.device).requires_grad_(False)
    set_explainer_sizes(model, config)
    return explainer


def remove_explainer(model: Any) -> None:
    """Remove the explainer, if any: it was fitted to weights that are about to change."""
    model.atom_heads.explainer = None
    set_explainer_sizes(model, AtomConfig())


def set_explainer_sizes(model: Any, config: AtomConfig) -> None:
    """Describe in a model's own configuration the explainer that another one describes."""
    # In place: others hold the same object.
    for name, value in explainer_sizes(config).items():
        setattr(model.atom_config, name, value)


def _make_heads(model: Any, config: AtomConfig) -> AtomHeads:
    # Attaching draws no random numbers of the run: a paired plain run sees the same data order.
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        # If the configuration does not give a width, a trainer's first forward pass finds it.
        return AtomHeads(
            config.hidden_size or 1, importance_std=config.importance_std, position_init=config.position_init
        ).to(model.device)
