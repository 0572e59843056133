"""Load a trained model to predict with: with its heads, if it has any, or as it is."""

from typing import Any

import transformers
from transformers import PreTrainedModel

from ..errors import AtomError
from ..hub.messages import reason
from ..modeling.heads_file import read_heads_config
from ..modeling.inference import default_device
from ..modeling.load import check_size, load_atom_model
from ..modeling.model_folder import holds
from .pretrained import find_model, read_config


def load_trained(name: str, revision: str | None = None) -> PreTrainedModel:
    """The model of a folder, a Hub id or a built-in name, in the class that its configuration names, on the default device.

    Raises:
        AtomError: there is none, it cannot be loaded, it lacks weights, or it is an adapter without heads.
    """
    source = find_model(name)
    hub = {"revision": revision}
    if read_heads_config(source, **hub) is not None:
        return load_atom_model(source, revision=revision).to(default_device()).eval()
    if holds(source, **hub) == "adapter":
        raise AtomError(f"--model {name!r} is an adapter without heads: merge it into its base, and give that")
    config = read_config(source, hub)
    names = config.architectures if isinstance(config.architectures, list) else []
    own = getattr(transformers, str(names[0]), None) if names else None
    if not (isinstance(own, type) and issubclass(own, PreTrainedModel)):
        raise AtomError(f"--model {name!r}: its configuration names no model class of Transformers")
    try:
        check_size(own, config, source, **hub)
        options: dict[str, Any] = {"trust_remote_code": False, "use_safetensors": True, "output_loading_info": True}
        model, found = own.from_pretrained(source, **options, **hub)
    except Exception as error:  # damaged weights and foreign configurations raise many kinds of errors
        raise AtomError(f"--model {name!r} cannot be loaded: {reason(error, source, revision)}") from error
    if missing := sorted(found["missing_keys"]):
        raise AtomError(f"--model {name!r} holds no trained {own.__name__}: it lacks {', '.join(missing[:3])}")
    return model.to(default_device()).eval()
