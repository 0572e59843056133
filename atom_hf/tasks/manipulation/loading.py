"""Load a manipulator, of whatever it edits."""

from typing import Any

from transformers import PreTrainedConfig

from ...errors import AtomError
from ...hub.messages import reason
from .config import ManipulatorConfig
from .manipulator import Manipulator
from .texts.config import TextManipulatorConfig
from .texts.manipulator import TextManipulator

CLASSES = {ManipulatorConfig.model_type: Manipulator, TextManipulatorConfig.model_type: TextManipulator}


def from_pretrained(source: str, **options: Any) -> Manipulator | TextManipulator:
    """A manipulator from its folder or Hub id, of the class that its configuration names."""
    hub = {name: options[name] for name in ("revision", "token", "cache_dir") if name in options}
    config, _ = PreTrainedConfig.get_config_dict(source, **hub)
    return CLASSES.get(config.get("model_type"), Manipulator).from_pretrained(source, **options)


def load_manipulator(source: str) -> Manipulator | TextManipulator:
    """A manipulator from its folder or Hub id. Raises `AtomError`."""
    where = f"--model {source!r} is no manipulator that can be read"
    try:
        config, _ = PreTrainedConfig.get_config_dict(source)
        if config.get("model_type") not in CLASSES:
            raise AtomError(f"{where}: it has no config.json of one; make one by atom-hf manipulate --classifier")
        model = CLASSES[config["model_type"]].from_pretrained(source)
    except AtomError:
        raise
    except Exception as error:  # a damaged or foreign folder raises many kinds of errors
        raise AtomError(f"{where}: {reason(error, source, None)}") from error
    return model.eval()
