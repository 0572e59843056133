"""Atom modeling for Hugging Face Transformers: token importance and dynamic latent separation (arXiv 2210.03728)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import AtomError
from .registration import register
from .version import __version__ as __version__

if TYPE_CHECKING:
    from .atoms.config import AtomConfig
    from .atoms.energy import Atoms, atomic_energy
    from .atoms.heads import AtomHeads
    from .modeling.attach import attach_atoms, detach_atoms
    from .modeling.load import load_atom_model
    from .modeling.mixin import AtomMixin
    from .training.arguments import AtomArguments, AtomTrainingArguments
    from .training.trainer import AtomTrainer, AtomTrainerMixin

# Torch and Transformers take seconds to import: what needs them is loaded when first asked for.
_HOMES = {
    "AtomConfig": "atoms.config",
    "Atoms": "atoms.energy",
    "atomic_energy": "atoms.energy",
    "AtomHeads": "atoms.heads",
    "attach_atoms": "modeling.attach",
    "detach_atoms": "modeling.attach",
    "load_atom_model": "modeling.load",
    "AtomMixin": "modeling.mixin",
    "AtomArguments": "training.arguments",
    "AtomTrainingArguments": "training.arguments",
    "AtomTrainer": "training.trainer",
    "AtomTrainerMixin": "training.trainer",
}

__all__ = [
    "AtomArguments",
    "AtomConfig",
    "AtomError",
    "AtomHeads",
    "AtomMixin",
    "AtomTrainer",
    "AtomTrainerMixin",
    "AtomTrainingArguments",
    "Atoms",
    "atomic_energy",
    "attach_atoms",
    "detach_atoms",
    "load_atom_model",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register()
