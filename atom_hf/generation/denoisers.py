"""The denoiser and the scheduler of a run: made for the images, or loaded."""

import json
from inspect import signature
from pathlib import Path
from typing import Any

from ..errors import AtomError, first_line
from ..hub.messages import reason
from ..modeling.heads_file import find_heads
from ..modeling.load import load_atom_model
from ..modeling.load_denoiser import import_diffusers
from ..utils.files import read_json

INDEX_NAME, UNET, SCHEDULER = "model_index.json", "unet", "scheduler"

MAX_BYTES = 2**20

# The least side of an image -> widths of the levels: each but the last halves the sides.
_WIDTHS = {0: (32, 64), 24: (64, 128, 128), 48: (64, 128, 256, 256)}


def make_denoiser(size: int, channels: int, classes: int | None, overrides: str | None) -> Any:
    """A new UNet2DModel for square images.

    Args:
        size: pixels of a side.
        channels: 1 or 3.
        classes: of a conditional denoiser; None for one without.
        overrides: JSON of its arguments that differ from what is chosen here, such as '{"block_out_channels": [64, 64]}'.

    Raises:
        AtomError: sizes that do not go together.
    """
    diffusers = import_diffusers()
    widths = next(value for least, value in reversed(_WIDTHS.items()) if size >= least)
    given = _parsed(overrides)
    widths = given.get("block_out_channels", widths)
    levels = len(widths) if isinstance(widths, list | tuple) else 1
    config = {
        "sample_size": size,
        "in_channels": channels,
        "out_channels": channels,
        "block_out_channels": widths,
        "down_block_types": ["DownBlock2D"] * (levels - 1) + ["AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D"] + ["UpBlock2D"] * (levels - 1),
        "num_class_embeds": classes,
        **given,
    }
    halved = 2 ** (levels - 1)
    if size % halved:
        raise AtomError(
            f"--image_size {size}: the denoiser halves it {levels - 1} times, so it must be a multiple of {halved}; give "
            f"--image_size {max(halved, round(size / halved) * halved)}, or fewer block_out_channels in --config_overrides"
        )
    try:
        return diffusers.UNet2DModel(**config)
    except Exception as error:  # a constructor raises what it likes for sizes that do not go together
        raise AtomError(f"--config_overrides {overrides!r} does not fit a UNet2DModel: {first_line(error)}") from error


def _parsed(overrides: str | None) -> dict[str, Any]:
    if not overrides:
        return {}
    try:
        found = json.loads(overrides)
    except (ValueError, RecursionError) as error:
        raise AtomError(f"--config_overrides {overrides!r:.200} is no JSON: {first_line(error)}") from error
    if not isinstance(found, dict):
        raise AtomError(f'--config_overrides {overrides!r:.200} must be an object, such as {{"layers_per_block": 1}}')
    known = set(signature(import_diffusers().UNet2DModel.__init__).parameters) - {"self"}
    if unknown := sorted(set(found) - known):
        raise AtomError(f"--config_overrides {overrides!r:.200}: a UNet2DModel has no {', '.join(unknown)}")
    return found


def make_scheduler(objective: str) -> Any:
    """A new scheduler: of 1,000 steps of noise for "ddpm", of flow matching for "flow"."""
    diffusers = import_diffusers()
    return diffusers.FlowMatchEulerDiscreteScheduler() if objective == "flow" else diffusers.DDPMScheduler()


def load_pipeline(source: str, flag: str = "--model") -> tuple[Any, Any]:
    """(denoiser, scheduler) of a folder that a run has saved, or of another `DDPMPipeline` in a folder; with its heads, if any.

    Raises:
        AtomError: no such folder, or one of something else.
    """
    diffusers = import_diffusers()
    folder = Path(source).expanduser()
    if not (folder / INDEX_NAME).is_file():
        raise AtomError(f"{flag} {source!r} is no folder of a pipeline of diffusers (it has no {INDEX_NAME})")
    index = read_json(folder / INDEX_NAME, MAX_BYTES, "pipeline index")
    kinds = {name: value[1] for name, value in index.items() if isinstance(value, list) and len(value) == 2}
    scheduler = getattr(diffusers, str(kinds.get(SCHEDULER)), None)
    if kinds.get(UNET) != "UNet2DModel" or not (
        isinstance(scheduler, type) and issubclass(scheduler, diffusers.SchedulerMixin)
    ):
        raise AtomError(
            f"{flag} {source!r} holds a {index.get('_class_name')!r:.60}; give one with a UNet2DModel and a scheduler, such as "
            "a DDPMPipeline"
        )
    unet = str(folder / UNET)
    if (folder / UNET / "atom_config.json").is_file() and find_heads(unet) is not None:
        denoiser = load_atom_model(unet)
    else:
        try:
            denoiser = diffusers.UNet2DModel.from_pretrained(unet, use_safetensors=True)
        except Exception as error:  # a damaged file or configuration raises errors of many types
            raise AtomError(f"{flag} {source!r} cannot be loaded: {reason(error, unet, None, None)}") from None
    try:
        return denoiser, scheduler.from_pretrained(str(folder / SCHEDULER))
    except Exception as error:
        raise AtomError(f"{flag} {source!r}: its scheduler cannot be loaded: {first_line(error)}") from None
