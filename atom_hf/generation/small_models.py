"""What the small models of images have in common: checks of their sizes and of the images they are given, initial weights."""

from typing import Any

from torch import Tensor, nn
from transformers import initialization
from transformers.activations import ACT2FN

from ..errors import AtomError

ARCHITECTURES = ("dense", "convolutional")


def check_sizes(config: Any) -> None:
    """Raise `AtomError` for sizes, an architecture or an activation in a configuration that no model can be made of."""
    for name in ("image_size", "num_channels", "latent_size"):
        if getattr(config, name) < 1:
            raise AtomError(f"{name} must be at least 1, got {getattr(config, name)}")
    if not config.hidden_sizes or min(config.hidden_sizes) < 1:
        raise AtomError(f"hidden_sizes must be one or more widths of at least 1, got {config.hidden_sizes}")
    if config.architecture not in ARCHITECTURES:
        raise AtomError(f"architecture must be {' or '.join(map(repr, ARCHITECTURES))}, got {config.architecture!r}")
    if config.hidden_act not in ACT2FN:
        raise AtomError(f"hidden_act {config.hidden_act!r} is no activation of Transformers, such as relu or gelu")
    halved = 2 ** len(config.hidden_sizes)
    if config.architecture == "convolutional" and config.image_size % halved:
        raise AtomError(
            f"image_size {config.image_size} cannot be halved {len(config.hidden_sizes)} times (hidden_sizes); give a "
            f"multiple of {halved}, or fewer layers"
        )


def check_images(pixel_values: Tensor, config: Any) -> None:
    """Raise `AtomError` for images [B, C, H, W] of another size than the model's."""
    shape = (config.num_channels, config.image_size, config.image_size)
    if pixel_values.shape[1:] != shape:
        raise AtomError(
            f"pixel_values must be [B, {', '.join(map(str, shape))}] (num_channels, image_size), got "
            f"{list(pixel_values.shape)}"
        )


def initialize(module: nn.Module) -> None:
    """Xavier's weights and no bias, for a layer that has weights of its own."""
    if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        initialization.xavier_uniform_(module.weight)
        if module.bias is not None:
            initialization.zeros_(module.bias)


def choose(given: bool | None, default: bool | None) -> bool:
    """What an argument of `forward` says, or the configuration where it says nothing."""
    return bool(default if given is None else given)
