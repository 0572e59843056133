"""Load a saved diffusers model with its heads."""

from typing import Any

import torch

from ..atoms.config import AtomConfig
from ..atoms.heads import AtomHeads
from ..errors import AtomError
from ..hub.messages import reason
from .attach import attach_atoms
from .blocks import find_block
from .heads_file import read_heads

DIFFUSERS_EXTRA = "diffusers is not installed: pip install 'atom-hf[generation]'"


def import_diffusers() -> Any:
    """The library. Raises `AtomError`, which says what to install."""
    try:
        import diffusers
    except ImportError as error:
        if error.name is not None and error.name.partition(".")[0] != "diffusers":
            raise
        raise AtomError(DIFFUSERS_EXTRA) from None
    return diffusers


def load_denoiser(source: str, name: str, config: AtomConfig, hub: dict[str, Any], **kwargs: Any) -> Any:
    """`load_atom_model` for a model of diffusers.

    Args:
        source: a folder or Hub id.
        name: the class that its configuration names.
        config: of its heads.
        hub: revision, token and cache_dir.
        **kwargs: passed on to `from_pretrained`.

    Raises:
        AtomError: no such class in diffusers, weights that cannot be read, heads that do not fit.
    """
    diffusers = import_diffusers()
    make = getattr(diffusers, name, None)
    if not (isinstance(make, type) and issubclass(make, diffusers.ModelMixin)):
        raise AtomError(f"the configuration of {source} names {name!r:.100}, which is no model of diffusers")
    options = {"use_safetensors": True, **kwargs, "revision": hub["revision"]}
    try:
        model = make.from_pretrained(source, **options)
    except Exception as error:  # an invalid configuration or file raises errors of many types
        raise AtomError(
            f"{source!r} cannot be loaded: {reason(error, source, hub['revision'], hub['cache_dir'])}"
        ) from None
    find_block(model, config.block)
    width = config.hidden_size or 0
    if width**2 > sum(parameter.numel() for parameter in model.parameters()):
        raise AtomError(f"the heads in {source} are {width} wide, more than its model could be: they do not fit it")
    with torch.device("meta"):
        expected = {name: tuple(tensor.shape) for name, tensor in AtomHeads(width or 1).state_dict().items()}
    heads, _ = read_heads(source, expected, name, **hub)
    attach_atoms(model, config)
    model.atom_heads.load_state_dict(heads)
    return model
