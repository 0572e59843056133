"""Load a saved or pushed model with its heads."""

import copy
import math
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from transformers import AutoConfig, PreTrainedModel
from transformers.utils import ADAPTER_CONFIG_NAME, ADAPTER_SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_NAME, is_peft_available
from transformers.utils import CONFIG_NAME as BASE_CONFIG_NAME

from ..atoms.config import CONFIG_NAME, AtomConfig
from ..atoms.explainer_sizes import explainer_sizes, make_explainer
from ..atoms.heads import AtomHeads
from ..errors import AtomError
from ..hub.files import NotInCache, find_file, pin
from ..hub.messages import reason
from ..utils.files import complete
from ..utils.terminal import get_logger
from .attach import add_explainer, attach_atoms
from .bounds import check_config_file, described_bytes
from .heads_file import HEADS_PREFIX, check_index, find_heads, read_heads, read_heads_config
from .layers import check_layer, check_width, hidden_size_of
from .load_denoiser import load_denoiser
from .model_folder import holds

logger = get_logger(__name__)

_MADE_FROM_BASE = ("pissa", "olora", "corda", "loftq")  # initializations of LoRA that leave the base with a residual


def load_atom_model(
    name_or_folder: str | Path, auto_class: Any = None, *, revision: str | None = None, **kwargs: Any
) -> PreTrainedModel:
    """Load a saved or pushed model, in its own class, with its heads.

    Args:
        name_or_folder: a Hub id, or a folder written by an AtomTrainer (a `checkpoint-*` too) or `save_pretrained`. For an
            adapter (PEFT) the base is loaded too, under the name in the adapter's configuration.
        auto_class: the class to load the base with, such as `AutoModelForSequenceClassification`; by default the one that
            its configuration names.
        revision: a branch, tag or commit on the Hub.
        **kwargs: passed on to `from_pretrained` (dtype, device_map, token, ...). Remote code is never run, and weights are
            read from safetensors only. For an adapter also `is_trainable`.

    Raises:
        AtomError: no heads, heads that do not fit the base, a truncated or invalid heads file, a repository that cannot be
            read or accessed.
    """
    if not (isinstance(name_or_folder, str | Path) and str(name_or_folder).strip()):
        raise AtomError(f"name_or_folder must be an id on the Hub or a folder; got {name_or_folder!r}")
    source = str(name_or_folder)
    if source.startswith(("/", ".", "~")):
        source = str(Path(source).expanduser())
        if not Path(source).is_dir():
            raise AtomError(f"{str(name_or_folder)!r}: no such folder")
    if kwargs.pop("trust_remote_code", False):
        raise AtomError("trust_remote_code is not supported: atom models need no remote code; leave it out")
    if kwargs.pop("subfolder", None):
        raise AtomError(
            "subfolder is not supported: fetch the repository (huggingface_hub.snapshot_download) and give the folder in it"
        )
    complete(source)
    hub = {"token": kwargs.get("token"), "cache_dir": kwargs.get("cache_dir")}
    # Base and heads come from one commit, even if something is pushed between the requests.
    hub["revision"] = revision = pin(source, revision, **hub)
    if holds(source, **hub) == "adapter":
        if not is_peft_available():
            raise AtomError(f"{source} is an adapter, and peft is not installed: pip install 'atom-hf[peft]'")
        return _load_adapter_model(source, auto_class, hub, **kwargs)
    atoms = read_heads_config(source, **hub)
    if atoms is None:  # an invalid one is rejected before weights are fetched
        raise AtomError(f"{source} has no {CONFIG_NAME}: it is not an atom model; load it with from_pretrained")
    base_config = find_file(source, BASE_CONFIG_NAME, **hub)
    described = {} if base_config is None else check_config_file(base_config)
    if "_class_name" in described and "model_type" not in described:
        return load_denoiser(source, str(described["_class_name"]), atoms, hub, **kwargs)
    check_index(source, **hub)
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False, **hub)
    except Exception as error:  # an invalid configuration raises errors of many types
        raise AtomError(f"{source!r} cannot be loaded: {reason(error, source, revision, hub['cache_dir'])}") from None
    names = config.architectures or []
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise AtomError(f"the configuration of {source}: architectures must be a list of names; got {str(names)[:200]}")
    own_class = auto_class is None
    if own_class:
        auto_class = getattr(transformers, names[0], None) if names else None
        if not (isinstance(auto_class, type) and issubclass(auto_class, PreTrainedModel)):
            raise AtomError(f"the configuration of {source} names no model class of Transformers; give auto_class")
    # A checkpoint of a run in progress keeps the heads among the model's own weights.
    inside = find_heads(source, **hub) is None
    options = {"ignore_mismatched_sizes": own_class, **kwargs}
    options |= {"revision": revision, "trust_remote_code": False, "use_safetensors": True}
    try:
        check_size(auto_class, config, source, **hub)
        model, found = _load_base(auto_class, source, inside, options)
    except Exception as error:  # and so do invalid weights
        raise AtomError(f"{source!r} cannot be loaded: {reason(error, source, revision, hub['cache_dir'])}") from None
    # Another class may have new, randomly initialized parameters; in the saved class none may be missing.
    amiss = [*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])]
    if own_class and amiss:
        shown = f"{', '.join(sorted(amiss)[:5])}{', ...' if len(amiss) > 5 else ''}"
        raise AtomError(
            f"{source} does not hold a complete {type(model).__name__}: {shown} is missing or of another shape"
        )
    restore_heads(model, source, config=atoms, **hub)
    return model


def _load_adapter_model(
    source: str, auto_class: Any, hub: dict[str, Any], is_trainable: bool = False, **kwargs: Any
) -> Any:
    """`load_atom_model` for the folder or Hub repository of an adapter: loads base, adapter and heads.

    Args:
        source: folder or Hub id of the adapter, whose configuration names the base.
        auto_class: the class to load the base with; by default the one that the heads were attached to.
        hub: revision, token and cache_dir of the adapter.
        is_trainable: whether to train the adapter further.
        **kwargs: passed on to the base's `from_pretrained`.

    Raises:
        AtomError: no heads beside the adapter, or a base that is not named, cannot be loaded or does not fit.
    """
    from peft import PeftConfig

    config = read_heads_config(source, **hub)
    if config is None:
        raise AtomError(f"{source} has no {CONFIG_NAME}: no heads beside this adapter; load it with PeftModel")
    check_config_file(find_file(source, ADAPTER_CONFIG_NAME, **hub))
    try:
        adapter = PeftConfig.from_pretrained(source, **hub)
    except Exception as error:  # an invalid configuration raises errors of many types
        raise AtomError(
            f"{source!r} cannot be loaded: {reason(error, source, hub['revision'], hub['cache_dir'])}"
        ) from None
    name = adapter.base_model_name_or_path
    if not name:
        raise AtomError(f"the adapter {source} does not say which base it is for (base_model_name_or_path)")
    if auto_class is None:
        auto_class = getattr(transformers, config.base_model_class or "", None)
        if not (isinstance(auto_class, type) and issubclass(auto_class, PreTrainedModel)):
            raise AtomError(f"the heads in {source} name no model class of Transformers; give auto_class")
    if find_file(source, ADAPTER_SAFE_WEIGHTS_NAME, **hub) is None:
        # Checked here: PEFT would look for a folder's missing file on the Hub, under the folder's name.
        raise AtomError(f"{source} has no {ADAPTER_SAFE_WEIGHTS_NAME}: the adapter is incomplete, or pickled")
    options = {"use_safetensors": True, **kwargs, "revision": adapter.revision, "trust_remote_code": False}
    try:
        base = auto_class.from_pretrained(name, **options)
    except Exception as error:  # and so do invalid weights
        why = reason(error, name, adapter.revision, kwargs.get("cache_dir"))
        raise AtomError(f"{name!r}, the base of the adapter {source}, cannot be loaded: {why}") from None
    restore_heads(base, source, config=config, **hub)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "Found missing adapter keys")
            model = _put_on(base, source, adapter, is_trainable=is_trainable, **hub)
    except Exception as error:
        why = reason(error, source, hub["revision"], hub["cache_dir"])
        raise AtomError(f"the adapter {source!r} cannot be loaded on {name!r}: {why}") from None
    return attach_atoms(model)


def _put_on(base: Any, source: str, adapter: Any, **options: Any) -> Any:
    """`PeftModel.from_pretrained`, which allocates nothing that an untrusted configuration asks for until the file turns out to
    hold as many weights."""
    from peft import PeftModel

    made_from_base = str(getattr(adapter, "init_lora_weights", "")).lower().startswith(_MADE_FROM_BASE)
    if not made_from_base:
        empty = not adapter.is_prompt_learning
        return PeftModel.from_pretrained(base, source, low_cpu_mem_usage=empty, **options)
    # Making it takes the base's weights, and changes them. So first one of the same shapes that takes none.
    like = copy.copy(adapter)
    like.init_lora_weights = True
    PeftModel.from_pretrained(base, source, config=like, low_cpu_mem_usage=True, **options).unload()
    return PeftModel.from_pretrained(base, source, **options)


def restore_heads(
    model: PreTrainedModel,
    name_or_folder: str | Path,
    *,
    explainer: bool = True,
    config: AtomConfig | None = None,
    **hub: Any,
) -> bool:
    """Attach the heads that were saved with a model, if any, to `model`. Returns whether there were any.

    Offline, the cache of a model that was fetched by other means does not show whether the model has heads. It is then loaded
    as a model without heads, with a warning.

    Args:
        model: a base of the class and width that the heads were trained on.
        name_or_folder: a Hub id or a folder.
        explainer: whether to restore the explainer too. It was fitted to the classes of the saved model; leave it out for a
            model of another class.
        config: the configuration of the heads, if it has been read.
        **hub: revision, token, cache_dir.

    Raises:
        AtomError: heads that do not fit the base, a truncated or foreign heads file, a folder of a model and an adapter that is
            not for it, a Hub that cannot be asked.
    """
    source = str(name_or_folder)
    try:
        config = config or read_heads_config(source, **hub)
    except NotInCache:
        logger.warning("%s is taken for a model without atom heads: offline, none are in the cache", source)
        return False
    if config is None:
        return False
    holds(source, **hub)
    check_width(model, config)
    for layer in (config.layer, *(config.explainer_layers or [])):
        check_layer(model, layer, config.side)
    if config.has_explainer and explainer and config.base_model_class != type(model).__name__:
        logger.warning(
            "the importance in %s was fitted to the prediction of a %s; of this %s it is the charge",
            *(source, config.base_model_class, type(model).__name__),
        )
        explainer = False
    explainer = explainer and config.has_explainer
    with torch.device("meta"):
        width = config.hidden_size or hidden_size_of(model, config.layer, config.side)
        heads = AtomHeads(width or 1)
        if config.has_explainer:
            if explainer and config.explainer_classes != model.config.num_labels:
                raise AtomError(
                    f"the heads in {source} are for {config.explainer_classes} classes, and this {type(model).__name__} has "
                    f"{model.config.num_labels}"
                )
            heads.explainer = make_explainer(config, width)
        state = heads.state_dict()
    expected = {name: tuple(tensor.shape) for name, tensor in state.items()}
    heads, _ = read_heads(source, expected, type(model).__name__, **hub)
    attach_atoms(model, config)
    if explainer:
        add_explainer(model, **explainer_sizes(config))
    if model.device.type != "meta":  # a model without weights, made to check that everything fits
        model.atom_heads.load_state_dict({name: heads[name] for name in model.atom_heads.state_dict()})
    return True


def check_size(auto_class: Any, config: Any, source: str, *, pickled: bool = False, **hub: Any) -> None:
    """Reject a configuration with far more parameters than the files hold: `from_pretrained` would initialize the rest.

    Args:
        auto_class: the class to load with.
        config: the configuration.
        source: a folder or Hub id.
        pickled: whether weights may be in another form than safetensors; then they are not looked at.
        **hub: revision, token, cache_dir.

    Raises:
        AtomError: that, or weights that are not in safetensors.
    """
    if getattr(config, "quantization_config", None):  # several weights packed in one number
        return
    held = 0
    for name in set(check_index(source, **hub).values()) or {SAFE_WEIGHTS_NAME}:
        file = find_file(source, name, **hub)
        if file is None and pickled:
            return
        if file is None:
            raise AtomError(f"it has no {name}; weights are loaded from safetensors only, not from pickles")
        with safe_open(file, framework="pt") as tensors:
            held += sum(math.prod(tensors.get_slice(key).get_shape()) for key in tensors.keys())  # noqa: SIM118
    make = getattr(auto_class, "from_config", None) or auto_class._from_config
    described, _ = described_bytes(lambda: make(copy.deepcopy(config)))
    # A class may have parameters that are never saved, or another task's; these are small beside the rest.
    if described > 4 * held + 2**24:
        raise AtomError(f"its configuration describes {described} parameters, and its files hold {held}")


def _load_base(auto_class: Any, source: str, heads_inside: bool, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """(model, loading info) of `from_pretrained`, without its warnings about heads in the same file."""
    logger = transformers.utils.logging.get_logger("transformers.modeling_utils")

    def drop(record: Any) -> bool:
        return False

    if heads_inside:
        logger.addFilter(drop)
    try:
        model, found = auto_class.from_pretrained(source, output_loading_info=True, **options)
    finally:
        logger.removeFilter(drop)
    foreign = [key for key in found["unexpected_keys"] if not key.startswith(HEADS_PREFIX)]
    if heads_inside and foreign:
        raise AtomError(f"it holds weights that {type(model).__name__} does not have: {', '.join(sorted(foreign)[:5])}")
    return model, found
