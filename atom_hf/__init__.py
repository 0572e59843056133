"""Atom modeling for Hugging Face Transformers: token importance and dynamic latent separation (arXiv 2210.03728)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import AtomError
from .registration import register

if TYPE_CHECKING:
    from .arguments import AtomArguments, AtomTrainingArguments
    from .attaching import attach_atoms, detach_atoms
    from .config import AtomConfig
    from .energy import Atoms, atomic_energy
    from .heads import AtomHeads
    from .loading import load_atom_model
    from .modeling import AtomMixin
    from .trainer import AtomTrainer, AtomTrainerMixin

__version__ = "0.1.0"

# Torch and Transformers take seconds to import: what needs them is loaded when first asked for.
_HOMES = {
    "Atoms": "energy",
    "atomic_energy": "energy",
    "AtomConfig": "config",
    "AtomHeads": "heads",
    "AtomMixin": "modeling",
    "attach_atoms": "attaching",
    "detach_atoms": "attaching",
    "load_atom_model": "loading",
    "AtomTrainer": "trainer",
    "AtomTrainerMixin": "trainer",
    "AtomArguments": "arguments",
    "AtomTrainingArguments": "arguments",
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
