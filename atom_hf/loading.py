"""Loading: a saved or pushed model with its heads."""

from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, PreTrainedModel

from .config import CONFIG_NAME, AtomConfig
from .errors import AtomError, first_line
from .heads import AtomHeads
from .modeling import attach_atoms
from .saving import HEADS_NAME, HEADS_PREFIX, find_file, read_heads
from .tokens import check_width, hidden_size_of


def load_atom_model(
    name_or_folder: str | Path, auto_class: Any = None, *, revision: str | None = None, **kwargs: Any
) -> PreTrainedModel:
    """The base model of the right class, with its heads.

    Args:
        name_or_folder: a Hub id, or a folder that an AtomTrainer or `save_pretrained` wrote; a `checkpoint-*` will do.
        auto_class: the class to load the base with, such as `AutoModelForSequenceClassification`; by default the one that
            its configuration names.
        revision: a branch, tag or commit on the Hub.
        **kwargs: passed on to `from_pretrained` (dtype, device_map, token, ...). Remote code is never run.

    Raises:
        AtomError: no heads there, heads that do not fit the base, a truncated or foreign heads file.
    """
    source = str(name_or_folder)
    if source.startswith(("/", ".", "~")) and not Path(source).expanduser().is_dir():
        raise AtomError(f"{source!r}: no such folder")
    if kwargs.pop("trust_remote_code", False):
        raise AtomError("trust_remote_code is not taken: atom models need no remote code")
    hub = {"revision": revision, "token": kwargs.get("token"), "cache_dir": kwargs.get("cache_dir")}
    try:
        names = AutoConfig.from_pretrained(source, **hub).architectures or []
    except (OSError, ValueError) as error:
        raise AtomError(f"{source!r} cannot be loaded: {first_line(error)}") from error
    if find_file(source, CONFIG_NAME, **hub) is None:
        raise AtomError(f"{source} has no {CONFIG_NAME}: it is not an atom model; load it with from_pretrained")
    if auto_class is None:
        auto_class = getattr(transformers, names[0], None) if names else None
        if auto_class is None:
            raise AtomError(f"the configuration of {source} names no model class of Transformers; give auto_class")
    if find_file(source, HEADS_NAME, **hub) is not None:
        model = auto_class.from_pretrained(source, revision=revision, **kwargs)
    else:
        # A checkpoint of a run in progress keeps the heads in the model's own file.
        model = _load_base_beside_heads(auto_class, source, revision=revision, **kwargs)
    restore_heads(model, source, **hub)
    return model


def restore_heads(model: PreTrainedModel, name_or_folder: str | Path, **hub: Any) -> bool:
    """Attaches the heads that were saved with a model, if any, to `model`. Returns whether there were.

    Args:
        model: a base of the class and width that the heads were trained on.
        name_or_folder: a Hub id or a folder.
        **hub: revision, token, cache_dir.

    Raises:
        AtomError: heads that do not fit the base, a truncated or foreign heads file.
    """
    source = str(name_or_folder)
    config_file = find_file(source, CONFIG_NAME, **hub)
    if config_file is None:
        return False
    heads, file = read_heads(source, **hub)
    config = AtomConfig.load(config_file)
    check_width(model, config)
    with torch.device("meta"):
        width = config.hidden_size or hidden_size_of(model, config.layer, config.side)
        expected = AtomHeads(width or 1).state_dict()
    shapes = [{name: tuple(tensor.shape) for name, tensor in state.items()} for state in (expected, heads)]
    if shapes[0] != shapes[1]:
        fit = f"do not fit {type(model).__name__}: expected {shapes[0]}, found {shapes[1]}"
        raise AtomError(f"the heads in {file} {fit}")
    attach_atoms(model, config)
    model.atom_heads.load_state_dict(heads)
    return True


def _load_base_beside_heads(auto_class: Any, source: str, **kwargs: Any) -> PreTrainedModel:
    """`from_pretrained`, without its report that the heads were not expected; anything else amiss is an error."""
    logger = transformers.utils.logging.get_logger("transformers.modeling_utils")

    def drop(record: Any) -> bool:
        return False

    logger.addFilter(drop)
    try:
        model, found = auto_class.from_pretrained(source, output_loading_info=True, **kwargs)
    finally:
        logger.removeFilter(drop)
    foreign = [key for key in found["unexpected_keys"] if not key.startswith(HEADS_PREFIX)]
    if foreign or found["missing_keys"] or found["mismatched_keys"]:
        raise AtomError(f"{source} does not hold a whole {type(model).__name__}: {found}")
    return model
