"""Fragments of information: what representations say, and which say the same (after arXiv 2405.21042).

A channel is a distribution of messages for each data point: a hidden unit, a layer, a head, a latent of a VAE, a classifier's
probabilities. `compare_channels` measures how much information each holds and shares with others, `find_hotspots` groups the
channels of an ensemble that say the same, `fuse` learns one representation from many weak ones, and `select_runs` picks runs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..generation.beta_vae import BetaVAEConfig, BetaVAEModel
    from .channel import Channel
    from .compare import compare_channels
    from .comparison import Comparison
    from .ensemble import by_regularization
    from .fingerprint import bhattacharyya_distance
    from .fusion import Fusion, fuse
    from .hotspots import Hotspots, find_hotspots
    from .read import read_channels
    from .selection import select_runs

# PyTorch and scikit-learn take seconds to import: what needs them is loaded when first asked for.
_HOMES = {
    "BetaVAEConfig": "..generation.beta_vae",
    "BetaVAEModel": "..generation.beta_vae",
    "Channel": "channel",
    "Comparison": "comparison",
    "Fusion": "fusion",
    "Hotspots": "hotspots",
    "bhattacharyya_distance": "fingerprint",
    "by_regularization": "ensemble",
    "compare_channels": "compare",
    "find_hotspots": "hotspots",
    "fuse": "fusion",
    "read_channels": "read",
    "select_runs": "selection",
}

__all__ = [
    "BetaVAEConfig",
    "BetaVAEModel",
    "Channel",
    "Comparison",
    "Fusion",
    "Hotspots",
    "bhattacharyya_distance",
    "by_regularization",
    "compare_channels",
    "find_hotspots",
    "fuse",
    "read_channels",
    "select_runs",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        home = _HOMES[name]
        return getattr(import_module(home if home.startswith("..") else f".{home}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
