"""Atoms on any Transformers model: attach, read, save."""

import functools
import inspect
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import CommitInfo
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from .card import is_own, write_card
from .card_facts import facts_of_model
from .config import AtomConfig
from .energy import Atoms
from .errors import AtomError
from .gate import GradientGate
from .heads import AtomHeads
from .passes import AtomPasses, reading, to_be_read
from .repository import push_model
from .saving import HEADS_PREFIX, write_heads
from .sharding import name_units
from .tokens import check_layer, check_width, find_tokens, hidden_size_of, pick_layer, special_token_ids
from .wrapped import inside, is_adapter, is_sentence_transformer

OUTPUT_KEYS = ("atoms", "atom_importance")
HUB_OPTIONS = ("repo_id", "commit_message", "commit_description", "private", "revision", "create_pr")
STATE_KEYS = ("hidden_states", "encoder_hidden_states", "decoder_hidden_states", "reshaped_hidden_states")


class AtomMixin:
    """What `attach_atoms` adds to a model.

    `forward` keeps its signature and, in evaluation, its outputs. In training, and wherever `return_atoms=True` is passed,
    the output also holds `atoms` [B, h + 3] (`Atoms.pack`, with their gradient) and `atom_importance` [B, N] (detached;
    NaN where there is no token). Heads run inside `forward`, since DDP, FSDP and compiled models require it.
    """

    atom_config: AtomConfig
    atom_heads: AtomHeads
    atom_gate: GradientGate

    _atom_passes: AtomPasses | None = None  # where a trainer collects what forward passes give
    _atom_reading = False  # whether atoms are read around the forward pass that is running
    _atom_text: dict[str, Tensor] | None = None  # the ids and mask behind embeddings that a prompt's adapter gives

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
            inputs = {name: value for name, value in inputs.items() if name != "labels"}
            return self(**inputs, return_atoms=True).atom_importance

    def save_pretrained(
        self, save_directory: str | Path, is_main_process: bool = True, state_dict: dict | None = None, **kwargs: Any
    ) -> None:
        """Saves the base model as if nothing had been attached, and the heads and their configuration beside it.

        `AutoModelFor...from_pretrained` loads the folder without this package; `load_atom_model` loads it with its heads.
        A model card goes beside them, unless the folder has one that is the user's own.
        Arguments are those of `PreTrainedModel.save_pretrained`. With `push_to_hub` what was written is one commit on the Hub.
        """
        push_to_hub = kwargs.pop("push_to_hub", False)
        hub = {name: kwargs.pop(name) for name in HUB_OPTIONS if name in kwargs}
        before = _times(save_directory)
        state = state_dict or self.state_dict()
        writes = is_main_process and not Path(save_directory).is_file()
        if writes:
            Path(save_directory).mkdir(parents=True, exist_ok=True)
            self.atom_config.save(save_directory)
        # Of a model that Transformers has given an adapter (`add_adapter`) only that is saved: no file that heads could be in.
        if self._atom_heads_inside and not getattr(self, "_hf_peft_config_loaded", False):
            # Trainer resumes by the names that parameters have in memory, not by those of an original checkpoint.
            kwargs["save_original_format"] = False
        else:
            if writes:
                heads = {k.removeprefix(HEADS_PREFIX): v for k, v in state.items() if k.startswith(HEADS_PREFIX)}
                write_heads(heads, save_directory)
            state = {k: v for k, v in state.items() if not k.startswith(HEADS_PREFIX)}
        super().save_pretrained(save_directory, is_main_process=is_main_process, state_dict=state, **kwargs)
        if writes and not self._atom_heads_inside and not is_own(save_directory):
            write_card(facts_of_model(self), save_directory)
        if push_to_hub and writes:
            written = {name for name, time in _times(save_directory).items() if before.get(name) != time}
            repo_id = hub.pop("repo_id", Path(save_directory).resolve().name)
            push_model(save_directory, repo_id, only=written, token=kwargs.get("token"), tags=self.model_tags, **hub)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str | None = None,
        commit_description: str | None = None,
        private: bool | None = None,
        token: bool | str | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        max_shard_size: int | str | None = "50GB",
        tags: list[str] | str | None = None,
    ) -> CommitInfo:
        """Pushes the base, the heads and their configuration as one commit. Arguments are those of `PreTrainedModel`'s.

        Raises:
            AtomError: no token, no right to write, a name that is none, a connection that broke off; in one line.
        """
        options = {"commit_message": commit_message, "commit_description": commit_description, "create_pr": create_pr}
        tags = [*(self.model_tags or []), *([tags] if isinstance(tags, str) else tags or [])]
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, max_shard_size=max_shard_size)
            return push_model(
                folder,
                repo_id,
                private=private,
                token=token,
                revision=revision,
                tags=list(dict.fromkeys(tags)),
                **options,
            )

    def __reduce__(self) -> tuple:
        # The class is made at run time: `pickle` would look for it where the base stands.
        return _blank, (_base_of(type(self)),), vars(self)

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

        if config is not None or not isinstance(inside(model), AtomMixin):
            attach_atoms(inside(model), config, processing_class)
        return enroll(model)
    if is_sentence_transformer(model):
        attach_atoms(inside(model), config, processing_class or model.tokenizer)
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
    config = replace(config or AtomConfig())

    check_width(model, config)
    check_layer(model, config.layer)
    config.hidden_size = hidden_size_of(model, config.layer)
    config.base_model_class = type(model).__name__
    if config.special_token_ids is None:
        config.special_token_ids = special_token_ids(model.config, processing_class)

    # The run's random numbers go on as if nothing had been attached: a paired plain run sees the same data order.
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        heads = AtomHeads(
            config.hidden_size, importance_std=config.importance_std, position_init=config.position_init
        ).to(model.device)
    before = {name: vars(model)[name] for name in ("_no_split_modules",) if name in vars(model)}
    _become(model, _atom_class(type(model)))
    model.atom_config = config
    model.atom_heads = heads
    model.atom_gate = GradientGate.of(config)
    model._atom_heads_inside = False
    model._atom_before = before
    # FSDP shards the heads as a unit of their own: they are float32 in a model that may be bfloat16.
    name_units(model)
    model._no_split_modules.append("AtomHeads")
    return model


def detach_atoms(model: PreTrainedModel) -> PreTrainedModel:
    """Takes the heads off again: the same object, exactly what it was before `attach_atoms` but for what it has learned.

    An optimizer made with the heads goes on to hold their parameters; make a new one.

    Raises:
        AtomError: no atoms attached.
    """
    if is_adapter(model) or is_sentence_transformer(model):
        detach_atoms(inside(model))
        return getattr(model, "_atom_withdraw", lambda: model)()
    if not isinstance(model, AtomMixin):
        raise AtomError(f"this {type(model).__name__} has no atoms attached")
    before = model._atom_before
    del model.atom_heads
    for name in ("atom_config", "atom_gate", "_atom_heads_inside", "_atom_before", "_no_split_modules"):
        delattr(model, name)
    vars(model).update(before)
    _become(model, _base_of(type(model)))
    return model


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


def _become(model: Any, cls: type) -> None:
    """Makes `model` an instance of `cls`."""
    model.__class__ = cls
    if hasattr(model, "_old_forward"):
        # Accelerate's hooks (device_map over several devices) keep the forward that they found on the instance.
        model._old_forward = cls.forward.__get__(model)


def _base_of(cls: type) -> type:
    return cls.__mro__[cls.__mro__.index(AtomMixin) + 1]


def _blank(base: type) -> Any:
    """An empty instance, to be filled by `pickle` or `copy`."""
    cls = _atom_class(base)
    return cls.__new__(cls)


@functools.cache
def _atom_class(base: type) -> type:
    """A subclass of `base` and `AtomMixin` under the base's own name."""

    @functools.wraps(base.forward)
    def forward(self, *args, return_atoms: bool | None = None, **kwargs):
        if not isinstance(self, AtomMixin):  # detached, and called by what wrapped this forward before
            return base.forward(self, *args, **kwargs)
        if not to_be_read(self, return_atoms):
            return base.forward(self, *args, **kwargs)
        return forward_with_atoms(self, base.forward, args, kwargs)

    namespace = {
        "forward": forward,
        "from_pretrained": base.from_pretrained,  # of the class gives the plain model, as it always did
        "__module__": base.__module__,
        "__qualname__": base.__qualname__,
        "__doc__": base.__doc__,
    }
    return type(base.__name__, (AtomMixin, base), namespace)


def forward_with_atoms(
    model: Any, base_forward: Any, args: tuple, kwargs: dict[str, Any], backbone: Any = None
) -> ModelOutput:
    """Runs a forward and adds the atoms to its outputs. `backbone` is the module whose outputs hold the hidden states, where
    the forward's own do not."""
    learns = model.training and torch.is_grad_enabled()
    if learns and not any(parameter.requires_grad for parameter in model.atom_heads.parameters()):
        raise AtomError(
            "the atom heads are frozen and would learn nothing; where PEFT froze them, call attach_atoms(model) on what "
            "get_peft_model gives, else model.atom_heads.requires_grad_(True)"
        )
    wants_states = kwargs.get("output_hidden_states")
    if wants_states is None:
        wants_states = getattr(model.config, "output_hidden_states", False)
    return_dict = kwargs.get("return_dict")
    if return_dict is None:
        return_dict = getattr(model.config, "return_dict", True)
    kwargs = {**kwargs, "output_hidden_states": True if wants_states else _states_to_keep(model), "return_dict": True}
    with reading(model, backbone) as given:
        outputs = base_forward(model, *args, **kwargs)
    has_states = any(outputs.get(name) is not None for name in STATE_KEYS)
    states = outputs if has_states or not given else given[-1]
    result = _add_atoms(model, outputs, states, _named(model, args, kwargs), keep_states=bool(wants_states))
    return result if return_dict else result.to_tuple()


# The gate's hooks act on the running model, which a compiled graph cannot see.
@torch.compiler.disable
def _add_atoms(
    model: Any, outputs: ModelOutput, states: ModelOutput, inputs: dict[str, Any], keep_states: bool
) -> ModelOutput:
    """`outputs` with the atoms of `states`, and without the hidden states if nobody else wants them."""
    atoms, importance = _read_atoms(model, pick_layer(states, model.atom_config.layer, model), inputs)
    if model._atom_passes is not None:
        model._atom_passes.add(atoms, importance)
    values = {name: value for name, value in outputs.items() if keep_states or name not in STATE_KEYS}
    return _output_class(type(outputs))(**values, atoms=atoms, atom_importance=importance)


@torch.compiler.disable
def _named(model: Any, args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name."""
    _, *names = _signature(type(model).forward).parameters
    return {**dict(zip(names, args, strict=False)), **kwargs, **(model._atom_text or {})}


def _read_atoms(model: Any, hidden: Tensor, inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """The packed atoms [B, h + 3] and the importance [B, N] of one layer's hidden states."""
    config = model.atom_config
    if torch.is_grad_enabled():
        hidden = model.atom_gate(hidden)
    tokens, mask = find_tokens(hidden, inputs, config, model.config)
    if tokens.shape[-1] != config.hidden_size:
        raise AtomError(
            f"layer {config.layer} of {type(model).__name__} is {tokens.shape[-1]} wide, "
            f"the heads were made for {config.hidden_size}; choose another layer"
        )
    importance, position = model.atom_heads(tokens)
    atoms = Atoms.from_tokens(importance, position, mask, token_reduction=config.token_reduction)
    return atoms.pack(), importance.detach().masked_fill(~mask, float("nan"))


def _states_to_keep(model: Any) -> bool | list[int]:
    """What to ask for as `output_hidden_states`, so that of all hidden states only the one that is read is kept.

    A model that knows no such choice takes the list for True, and gives them all. One that does not say how many layers
    it has cannot count from the end.
    """
    layer = model.atom_config.layer
    if layer < 0 and not isinstance(getattr(model.config, "num_hidden_layers", None), int):
        return True
    return [layer]


def _times(folder: str | Path) -> dict[str, int]:
    """When each file of a folder was written."""
    return {path.name: path.stat().st_mtime_ns for path in Path(folder).glob("*") if path.is_file()}


_signature = functools.cache(inspect.signature)


@functools.cache
def _output_class(base: type) -> type:
    """`base` with the atom fields declared: DDP rebuilds outputs from their fields and fails on undeclared ones."""
    annotations = {name: Tensor | None for name in OUTPUT_KEYS}
    namespace = {"__annotations__": annotations, "__module__": __name__, **dict.fromkeys(OUTPUT_KEYS)}
    return dataclass(type("Atom" + base.__name__, (base,), namespace))
