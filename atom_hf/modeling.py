"""Atoms on any Transformers model: attach, read, save."""

import functools
import inspect
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from .config import AtomConfig
from .energy import Atoms
from .errors import AtomError
from .gate import GradientGate
from .heads import AtomHeads
from .saving import HEADS_PREFIX, write_heads
from .sharding import name_units
from .tokens import check_layer, check_width, find_tokens, hidden_size_of, pick_layer, special_token_ids

OUTPUT_KEYS = ("atoms", "atom_importance")


class WidthError(AtomError):
    """Hidden states of another width than the heads were made for."""

    def __init__(self, message: str, width: int):
        super().__init__(message)
        self.width = width


class AtomMixin:
    """What `attach_atoms` adds to a model.

    `forward` keeps its signature and, in evaluation, its outputs. In training, and wherever `return_atoms=True` is passed,
    the output also holds `atoms` [B, h + 3] (`Atoms.pack`, with their gradient) and `atom_importance` [B, N] (detached;
    NaN where there is no token). Heads run inside `forward`, since DDP, FSDP and compiled models require it.
    """

    atom_config: AtomConfig
    atom_heads: AtomHeads
    atom_gate: GradientGate

    @torch.no_grad()
    def atom_importance(self, **inputs: Any) -> Tensor:
        """The importance of each token, in one forward pass.

        Args:
            **inputs: what the model's `forward` takes, as tensors with a batch dimension; labels are not needed.

        Returns:
            [B, N] in [-1, 1], float32, NaN where there is no token. N is the length of the hidden states: for text that of
            `input_ids`, for images prefix tokens and then patches in reading order.
        """
        with evaluating(self):
            return self(**_without_labels(self, inputs), return_atoms=True).atom_importance

    def save_pretrained(
        self, save_directory: str | Path, is_main_process: bool = True, state_dict: dict | None = None, **kwargs: Any
    ) -> None:
        """Saves the base model as if nothing had been attached, and the heads and their configuration beside it.

        `AutoModelFor...from_pretrained` loads the folder without this package; `load_atom_model` loads it with its heads.
        Arguments are those of `PreTrainedModel.save_pretrained`.
        """
        push_to_hub = kwargs.pop("push_to_hub", False)
        state = state_dict or self.state_dict()
        writes = is_main_process and not Path(save_directory).is_file()
        if writes:
            Path(save_directory).mkdir(parents=True, exist_ok=True)
            self.atom_config.save(save_directory)
        if self._atom_heads_inside:
            # Trainer resumes by the names that parameters have in memory, not by those of an original checkpoint.
            kwargs["save_original_format"] = False
        else:
            if writes:
                heads = {k.removeprefix(HEADS_PREFIX): v for k, v in state.items() if k.startswith(HEADS_PREFIX)}
                write_heads(heads, save_directory)
            state = {k: v for k, v in state.items() if not k.startswith(HEADS_PREFIX)}
        super().save_pretrained(save_directory, is_main_process=is_main_process, state_dict=state, **kwargs)
        if push_to_hub and writes:
            hub = ("repo_id", "commit_message", "private", "token", "create_pr", "revision")
            chosen = {name: kwargs[name] for name in hub if name in kwargs}
            self.push_to_hub(**{"repo_id": Path(save_directory).name, **chosen})

    @contextmanager
    def _atom_checkpoint(self):
        """Within it `save_pretrained` keeps the heads in the model's own file, as a checkpoint that resumes needs."""
        self._atom_heads_inside = True
        try:
            yield
        finally:
            self._atom_heads_inside = False


def attach_atoms(
    model: PreTrainedModel, config: AtomConfig | None = None, processing_class: Any = None
) -> PreTrainedModel:
    """Gives `model` its atom heads: the same object, now also an `AtomMixin`.

    Attach before a Trainer, DDP, FSDP or `torch.compile` sees the model. The class keeps its name and its
    module, so that configuration, pipelines and `generate` go on as before.

    Args:
        model: any Transformers model that gives hidden states.
        config: an `AtomConfig`; its defaults if None. It is copied.
        processing_class: the tokenizer, to know which tokens are special. Without one the ids in the model's own
            configuration count, and BERT's, for one, does not name [CLS] and [SEP].

    Raises:
        AtomError: not a Transformers model, no hidden states, a layer that the model does not have, atoms already attached.
    """
    if not isinstance(model, PreTrainedModel):
        raise AtomError(
            f"model must be a transformers.PreTrainedModel, got {type(model).__name__}; "
            "attach atoms before the model is wrapped; models with adapters (PEFT) are not supported yet"
        )
    if hasattr(model, "atom_heads"):
        raise AtomError("model already has atoms attached")
    parameters = inspect.signature(model.forward).parameters
    if "output_hidden_states" not in parameters and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        raise AtomError(f"{type(model).__name__} gives no hidden states (its forward takes no output_hidden_states)")
    if config is not None and not isinstance(config, AtomConfig):
        raise AtomError(f"config must be an AtomConfig, got {type(config).__name__}")
    config = replace(config or AtomConfig())

    check_layer(model, config.layer, config.side)
    check_width(model, config)
    width_given = config.hidden_size is not None
    config.hidden_size = config.hidden_size or hidden_size_of(model, config.layer, config.side)
    config.base_model_class = type(model).__name__
    if config.special_token_ids is None:
        config.special_token_ids = special_token_ids(model.config, processing_class)

    heads = _make_heads(model, config)
    model.__class__ = _atom_class(type(model))
    model.atom_config = config
    model.atom_heads = heads
    model._atom_width_given = width_given
    model._atom_keeps_all_states = False
    model.atom_gate = GradientGate.of(config)
    model._atom_heads_inside = False
    # FSDP shards the heads as a unit of their own: they are float32 in a model that may be bfloat16.
    name_units(model)
    model._no_split_modules.append("AtomHeads")
    return model


def _without_labels(model: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """`inputs` without labels, where these are not what the decoder's input is made of.

    A decoder that writes needs something to start from even where only the encoder is read: then its first token.
    """
    if not (getattr(model.config, "is_encoder_decoder", False) and model.can_generate()):
        return {name: value for name, value in inputs.items() if name != "labels"}
    if model.atom_config.side == "decoder" or not {"labels", "decoder_input_ids", "decoder_inputs_embeds"}.isdisjoint(
        inputs
    ):
        return inputs
    start = getattr(model.config, "decoder_start_token_id", None) or getattr(model.config, "bos_token_id", None) or 0
    samples = len(next(value for value in inputs.values() if torch.is_tensor(value)))
    return {**inputs, "decoder_input_ids": torch.full((samples, 1), start, device=model.device)}


def refit_heads(model: Any, width: int) -> None:
    """Makes the heads of a model anew for hidden states of another width than its configuration says.

    Only before anything holds their parameters, an optimizer or a wrapper.
    """
    model.atom_config.hidden_size = width
    model.atom_heads = _make_heads(model, model.atom_config)


def _make_heads(model: Any, config: AtomConfig) -> AtomHeads:
    # The run's random numbers go on as if nothing had been attached: a paired plain run sees the same data order.
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        # A width that the configuration does not say is found by the first forward pass of a trainer.
        return AtomHeads(
            config.hidden_size or 1, importance_std=config.importance_std, position_init=config.position_init
        ).to(model.device)


@contextmanager
def evaluating(model: Any):
    """Puts a model into evaluation within it, and each of its modules back into its own mode after."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@functools.cache
def _atom_class(base: type) -> type:
    """A subclass of `base` and `AtomMixin` under the base's own name."""

    @functools.wraps(base.forward)
    def forward(self, *args, return_atoms: bool | None = None, **kwargs):
        if return_atoms is None:
            return_atoms = self.training and torch.is_grad_enabled()
        if not return_atoms:
            return base.forward(self, *args, **kwargs)
        return _forward_with_atoms(self, base.forward, args, kwargs)

    namespace = {
        "forward": forward,
        "from_pretrained": base.from_pretrained,  # of the class gives the plain model, as it always did
        "__module__": base.__module__,
        "__qualname__": base.__qualname__,
        "__doc__": base.__doc__,
    }
    return type(base.__name__, (AtomMixin, base), namespace)


def _forward_with_atoms(model: Any, base_forward: Any, args: tuple, kwargs: dict[str, Any]) -> ModelOutput:
    wants_states = kwargs.get("output_hidden_states", getattr(model.config, "output_hidden_states", False))
    return_dict = kwargs.get("return_dict")
    if return_dict is None:
        return_dict = getattr(model.config, "return_dict", True)
    kwargs = {**kwargs, "output_hidden_states": True if wants_states else _states_to_keep(model), "return_dict": True}
    result = None
    while result is None:
        outputs = base_forward(model, *args, **kwargs)
        result = _add_atoms(model, outputs, _named(base_forward, model, args, kwargs), keep_states=bool(wants_states))
        kwargs["output_hidden_states"] = True
    return result if return_dict else result.to_tuple()


# The gate's hooks act on the running model, which a compiled graph cannot see.
@torch.compiler.disable
def _add_atoms(model: Any, outputs: ModelOutput, inputs: dict[str, Any], keep_states: bool) -> ModelOutput | None:
    """`outputs` with the atoms, and without the hidden states if nobody else wants them.

    None if the model was asked for one layer's and gave others': some count their layers otherwise than their configuration, or
    do not know the choice. It is asked for all of them from then on.
    """
    layer, asked_for_all = model.atom_config.layer, inputs["output_hidden_states"] is True
    try:
        hidden = pick_layer(outputs, layer, model)
    except AtomError:
        if asked_for_all:
            raise
        hidden = None
    if hidden is None:
        model._atom_keeps_all_states = True
        return None
    atoms, importance = _read_atoms(model, hidden, inputs)
    # A tensor of that name, such as the features of an image, is an output of its own, whoever asks for hidden states.
    values = {
        name: value
        for name, value in outputs.items()
        if keep_states or not (name.endswith("hidden_states") and isinstance(value, tuple | list))
    }
    return _output_class(type(outputs))(**values, atoms=atoms, atom_importance=importance)


@torch.compiler.disable
def _named(forward: Any, model: Any, args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name."""
    inputs = _signature(forward).bind_partial(model, *args, **kwargs).arguments
    return {**inputs, **inputs.get("kwargs", {})}


def _read_atoms(model: Any, hidden: Tensor, inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """The packed atoms [B, h + 3] and the importance [B, N] of one layer's hidden states."""
    config = model.atom_config
    if torch.is_grad_enabled():
        _refuse_without_gradient(model, hidden)
        hidden = model.atom_gate(hidden)
    tokens, mask = find_tokens(hidden, inputs, config, model.config, model)
    width = tokens.shape[-1]
    if width != config.hidden_size:
        made = (
            f", the heads were made for {config.hidden_size}; choose another layer, or" if config.hidden_size else ":"
        )
        raise WidthError(
            f"layer {config.layer} of {type(model).__name__} is {width} wide{made} attach with AtomConfig(hidden_size={width})",
            width,
        )
    importance, position = model.atom_heads(tokens)
    atoms = Atoms.from_tokens(importance, position, mask, token_reduction=config.token_reduction)
    return atoms.pack(), importance.detach().masked_fill(~mask, float("nan"))


def _refuse_without_gradient(model: Any, hidden: Tensor) -> None:
    """Raises `AtomError` for hidden states that are cut off from a model in training: the flag would do nothing to it."""
    if hidden.requires_grad or not model.training:
        return
    try:
        embedding = model.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return
    if embedding is not None and any(parameter.requires_grad for parameter in embedding.parameters()):
        raise AtomError(
            f"layer {model.atom_config.layer} of {type(model).__name__} comes without gradients, as reversible layers give it, "
            "and the energy would not reach the model; choose layer 0, or another model"
        )


def _states_to_keep(model: Any) -> bool | list[int]:
    """What to ask for as `output_hidden_states`, so that of all hidden states only the one that is read is kept.

    A model that knows no such choice takes the list for True, and gives them all. One that does not say how many layers
    it has cannot count from the end. One made of several would hand the choice on to all of them, and a vision tower whose
    own layer is read by the rest needs to keep that.
    """
    layer = model.atom_config.layer
    if model._atom_keeps_all_states or getattr(model.config, "sub_configs", None):
        return True
    if layer < 0 and not isinstance(getattr(model.config, "num_hidden_layers", None), int):
        return True
    return [layer]


_signature = functools.cache(inspect.signature)


@functools.cache
def _output_class(base: type) -> type:
    """`base` with the atom fields declared: DDP rebuilds outputs from their fields and fails on undeclared ones."""
    annotations = {name: Tensor | None for name in OUTPUT_KEYS}
    namespace = {"__annotations__": annotations, "__module__": __name__, **dict.fromkeys(OUTPUT_KEYS)}
    return dataclass(type("Atom" + base.__name__, (base,), namespace))
