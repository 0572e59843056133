"""Sample from a denoiser, and lay samples out as a grid."""

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from ..errors import AtomError
from ..modeling.inference import evaluating
from ..utils.files import write_atomically

LEAST_SIDE = 64  # pixels of a sample in a grid: smaller ones are enlarged by whole factors

GAP, BACKGROUND = 2, 128  # grey: it shows beside white samples and black ones


@torch.no_grad()
def sample_images(
    denoiser: Any,
    scheduler: Any,
    count: int,
    *,
    steps: int = 50,
    seed: int = 0,
    labels: Sequence[int] | None = None,
    batch_size: int = 64,
) -> Tensor:
    """Images [count, C, H, W] in [0, 1], on the CPU.

    It is the loop of diffusers' `DDPMPipeline`, for conditional denoisers too. Each sample has a generator of its own, from
    `seed` and its number: it does not depend on the batch size.

    Args:
        denoiser: a UNet2DModel, or another denoiser that takes a sample, its time and `class_labels`.
        scheduler: of diffusers.
        steps: of denoising.
        labels: the class of each sample, for a conditional denoiser.

    Raises:
        AtomError: samples that are not finite numbers.
    """
    from diffusers.utils.torch_utils import randn_tensor

    scheduler, size = copy.deepcopy(scheduler), denoiser.config.sample_size  # its steps are those of training else
    shape = (denoiser.config.in_channels, *((size, size) if isinstance(size, int) else size))
    found = []
    with evaluating(denoiser), tqdm(total=count, desc="sampling", unit="image", disable=None) as bar:
        for start in range(0, count, batch_size):
            numbers = range(start, min(count, start + batch_size))
            generators = [torch.Generator().manual_seed(seed + number) for number in numbers]
            images = randn_tensor((len(numbers), *shape), generator=generators).to(denoiser.device, denoiser.dtype)
            more = {}
            if labels is not None:
                more["class_labels"] = torch.tensor([labels[number] for number in numbers], device=denoiser.device)
            scheduler.set_timesteps(steps)
            for time in scheduler.timesteps:
                predicted = denoiser(images, time.expand(len(images)), **more).sample  # a DiT takes no single time
                images = scheduler.step(predicted, time, images, generator=generators).prev_sample
            found.append(images.float().cpu())
            bar.update(len(numbers))
    images = torch.cat(found)
    broken = (~images.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
    if broken:
        raise AtomError(
            f"{len(broken)} of {count} samples are not finite numbers (NaN), the first is number {broken[0]}: the model has "
            "diverged; load a checkpoint from before, or train it with a lower learning rate"
        )
    return (images / 2 + 0.5).clamp(0, 1)


def image_grid(images: Tensor, columns: int | None = None) -> Image.Image:
    """The images [N, C, H, W] in [0, 1] in rows, by default as many as columns; small ones are enlarged."""
    count, channels, height, width = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    factor = max(1, -(-LEAST_SIDE // max(height, width)))
    high, wide = height * factor + GAP, width * factor + GAP
    sheet = np.full((rows * high + GAP, columns * wide + GAP, 3), BACKGROUND, dtype=np.uint8)
    pixels = (images.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    pixels = pixels.repeat(factor, 1).repeat(factor, 2)
    for number, picture in enumerate(pixels if channels == 3 else pixels[..., :1].repeat(3, -1)):
        top, left = GAP + number // columns * high, GAP + number % columns * wide
        sheet[top : top + height * factor, left : left + width * factor] = picture
    return Image.fromarray(sheet)


def write_grid(images: Tensor, path: str | Path, columns: int | None = None) -> Path:
    """Write `image_grid` to a PNG file, whole or not at all."""
    return write_atomically(path, lambda part: image_grid(images, columns).save(part, format="PNG"))
