"""Tell a folder with a model from one with an adapter; with both, Transformers would apply the adapter to the model."""

from pathlib import Path
from typing import Any

from transformers.utils import ADAPTER_CONFIG_NAME, CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from ..atoms.config import MAX_BYTES
from ..errors import AtomError
from ..hub.files import find_file
from ..utils.files import read_json

_WEIGHTS = (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME)


def holds(source: str, **hub: Any) -> str:
    """ "model" or "adapter": what a folder or Hub repository holds. `hub` is revision, token and cache_dir.

    Raises:
        AtomError: a whole model and an adapter for another one, which may have been merged into it.
    """
    adapter = find_file(source, ADAPTER_CONFIG_NAME, optional=True, **hub)
    if adapter is None:
        return "model"
    # An adapter may have the configuration of its base beside it.
    config = find_file(source, CONFIG_NAME, optional=True, **hub)
    weights = next((name for name in _WEIGHTS if config and find_file(source, name, optional=True, **hub)), None)
    if weights is None:
        return "adapter"
    base = read_json(adapter, MAX_BYTES, "adapter configuration").get("base_model_name_or_path")
    if not _same_folder(base, source):
        raise AtomError(
            f"{source} holds a whole model ({weights}) and an adapter for {base!r}, and whether that is merged into the model "
            f"cannot be told; if it is, remove {ADAPTER_CONFIG_NAME} from there, else move the adapter to a folder of its own"
        )
    return "model"


def check_folder(folder: str | Path, bases: list[str | None], what: str) -> None:
    """Reject a folder to save into where what is there and what is saved would be taken for one model.

    Args:
        folder: the folder.
        bases: the bases of the adapters that are saved; empty for a whole model.
        what: the argument that gave the folder.

    Raises:
        AtomError: an adapter is there and a whole model is saved; or the other way round, unless that is the adapter's base.
    """
    if not bases and Path(folder, ADAPTER_CONFIG_NAME).is_file():
        raise AtomError(
            f"{what}: {folder} holds an adapter ({ADAPTER_CONFIG_NAME}), which would be put on the model that is saved there; "
            "give another folder, or remove the adapter from this one"
        )
    there = next((name for name in _WEIGHTS if Path(folder, name).is_file()), None)
    if bases and there and Path(folder, CONFIG_NAME).is_file() and not any(_same_folder(b, folder) for b in bases):
        raise AtomError(
            f"{what}: {folder} holds a whole model ({there}), and the adapter that is saved there would be put on it; give "
            "another folder"
        )


def _same_folder(name: Any, folder: str | Path) -> bool:
    known = isinstance(name, str) and Path(name).is_dir() and Path(folder).is_dir()
    return known and Path(name).resolve() == Path(folder).resolve()
