"""Forward pass and saving of a diffusers model with atoms: its own forward, then the heads on the output of one block."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import AtomError
from .blocks import cells, reading_block
from .collector import reading_once
from .forward import OUTPUT_KEYS, check_heads, output_class, read_atoms
from .heads_file import write_heads
from .mixin import AtomMixin
from .own_outputs import as_model_output, named, showing, with_more


class DenoiserAtoms(AtomMixin):
    """`AtomMixin` of a diffusers model: a denoiser saves as diffusers does, with its heads beside it."""

    def _atom_run(self, base_forward: Any, args: tuple, kwargs: dict[str, Any], asked: bool = False) -> Any:
        return forward_denoiser(self, base_forward, args, kwargs, asked)

    def save_pretrained(self, save_directory: str | Path, is_main_process: bool = True, **kwargs: Any) -> None:
        """Save the plain model as diffusers does, and the heads and their configuration beside it.

        `from_pretrained` and pipelines load the folder without this package; `load_atom_model` loads it with its heads.
        Arguments are those of `ModelMixin.save_pretrained`.
        """
        if Path(save_directory).is_file():
            raise AtomError(f"save_directory: {save_directory} is a file; give a folder")
        if is_main_process:
            Path(save_directory).mkdir(parents=True, exist_ok=True)
            # Before the model, which may be pushed with its folder.
            write_heads(self.atom_heads.state_dict(), save_directory, self.atom_config)
        with without_heads(self):
            super(AtomMixin, self).save_pretrained(str(save_directory), is_main_process=is_main_process, **kwargs)

    def push_to_hub(self, *args: Any, **kwargs: Any) -> Any:
        """`ModelMixin.push_to_hub`: the heads go with the model."""
        return super(AtomMixin, self).push_to_hub(*args, **kwargs)


@contextmanager
def without_heads(model: Any) -> Iterator[None]:
    """Context manager: the heads are no part of the model's parameters and state."""
    heads = model._modules.pop("atom_heads")
    try:
        yield
    finally:
        model.atom_heads = heads


@torch.compiler.disable
def forward_denoiser(model: Any, base_forward: Any, args: tuple, kwargs: dict[str, Any], asked: bool = False) -> Any:
    """Run the forward of a denoiser and add the atoms to its outputs.

    Args:
        model: the model with atoms.
        base_forward: its forward without them.
        asked: whether the caller asked for the atoms, and not only the training.
    """
    check_heads(model)
    name = model.atom_config.block
    with reading_once(model), reading_block(model, name) as calls:
        outputs = base_forward(model, *args, **kwargs)
    sample = next(iter(named(type(model).forward, args, kwargs).values()))
    atoms, importance = read_atoms(model, cells(model, name, calls, len(sample)), {}, {}, None, None)
    collector = model._atom_forward_state.collector
    more: dict[str, Tensor] = dict(zip(OUTPUT_KEYS, (atoms, importance), strict=True))
    if isinstance(outputs, dict):
        return output_class(type(outputs))(**outputs, **more)
    if asked:
        return as_model_output(outputs, **more)
    return with_more(outputs, more) if collector is None else showing(outputs, atoms)
