"""Load a model to read channels of, in the class that its configuration names, with its atom heads if it has any."""

from pathlib import Path
from typing import Any

import transformers
from transformers import AutoModel, PreTrainedModel

from ..errors import AtomError
from ..finetune.pretrained import find_model, load_processor, read_config
from ..generation import beta_vae  # noqa: F401 (AutoModel knows it then)
from ..hub.messages import reason
from ..modeling.heads_file import read_heads_config
from ..modeling.inference import default_device
from ..modeling.layers import is_image_model
from ..modeling.load import check_size, load_atom_model
from ..modeling.model_folder import holds


def load_model(name: str, revision: str | None = None) -> PreTrainedModel:
    """The model of a folder, a Hub id or a built-in name, in its own class, on the default device, in evaluation.

    Raises:
        AtomError: there is none, it cannot be loaded, or it is an adapter without atom heads.
    """
    try:
        return _load(name, revision).to(default_device()).eval()
    except AtomError as error:
        known = str(error).startswith("--models")
        raise error if known else AtomError(f"--models {name!r}: {error}") from error


def _load(name: str, revision: str | None) -> PreTrainedModel:
    source = find_model(name)
    hub = {"revision": revision}
    if read_heads_config(source, **hub) is not None:
        return load_atom_model(source, revision=revision)
    if holds(source, **hub) == "adapter":
        raise AtomError(
            f"--models {name!r} is an adapter: merge it into its base, or give the live model to read_channels"
        )
    config = config_of(name, revision)
    names = config.architectures if isinstance(config.architectures, list) else []
    own = getattr(transformers, str(names[0]), None) if names else None
    auto_class = own if isinstance(own, type) and issubclass(own, PreTrainedModel) else AutoModel
    try:
        check_size(auto_class, config, source, **hub)
        model = auto_class.from_pretrained(source, trust_remote_code=False, use_safetensors=True, **hub)
    except Exception as error:  # damaged weights and foreign configurations raise many kinds of errors
        raise AtomError(f"--models {name!r} cannot be loaded: {reason(error, source, revision)}") from error
    return model


def config_of(name: str, revision: str | None = None) -> Any:
    """The configuration of a model. Raises `AtomError` if there is none."""
    try:
        return read_config(find_model(name), {"revision": revision})
    except AtomError as error:
        raise AtomError(str(error).replace("--model ", "--models ", 1)) from error


def processor_of(name: str, model: Any, revision: str | None = None) -> Any:
    """The tokenizer or image processor beside a model. Raises `AtomError` if there is none."""
    return load_processor(find_model(name), is_image_model(model), "--models", revision=revision)


def run_name(name: str) -> str:
    """What a model is called in tables: the last part of its folder or id."""
    return Path(name).name or name
