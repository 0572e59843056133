"""What a manipulator is compared with: a conditional VAE of equal size and budget, and a mean-difference vector."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import Trainer, TrainingArguments

from ...errors import AtomError
from ...finetune.log_lines import print_lines
from ...generation.beta_vae import BetaVAEConfig, BetaVAEModel
from ...utils.terminal import get_logger
from ..arguments import TaskArguments
from .evaluation import Editor
from .manipulator import Manipulator
from .rows import LabelledRows

logger = get_logger(__name__)

BETAS = (0.01, 0.03, 0.1, 0.3)
"""Of the loss: the sum of squared errors plus so many times the KL divergence, per 64 pixels."""

LATENTS = 32


def same_size_vae(parameters: int, sizes: Sequence[int], classes: int, beta: float) -> BetaVAEConfig:
    """The conditional VAE of square images [c, s, s] whose number of parameters is nearest to one that is given."""
    channels, height, width = sizes
    if height != width:
        raise AtomError("a conditional VAE takes square images; leave out --compare")

    def config(size: int) -> BetaVAEConfig:
        convolutional = height % 4 == 0
        return BetaVAEConfig(
            image_size=height,
            num_channels=channels,
            num_classes=classes,
            latent_size=LATENTS,
            architecture="convolutional" if convolutional else "dense",
            hidden_sizes=[size, 2 * size] if convolutional else [2 * size, size],
            likelihood="gaussian",
            noise_std=0.5**0.5,  # half a squared error over the variance: the squared error
            beta=beta,
        )

    def count(size: int) -> int:
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in BetaVAEModel(config(size)).parameters())

    low, high = 1, 2
    while count(high) < parameters and high < 2**14:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) < parameters else (low, middle)
    return config(min(low, high, key=lambda size: abs(count(size) - parameters)))


def train_vae(config: BetaVAEConfig, rows: LabelledRows, args: TaskArguments) -> BetaVAEModel:
    """A conditional VAE, trained as long and in the same batches as the manipulator of these arguments."""
    torch.manual_seed(args.seed)
    model = BetaVAEModel(config)
    copied = (
        *("max_steps", "num_train_epochs", "per_device_train_batch_size", "learning_rate", "lr_scheduler_type"),
        *("warmup_steps", "weight_decay", "seed", "use_cpu", "dataloader_pin_memory", "disable_tqdm"),
    )
    own = TrainingArguments(
        args.output_dir,
        **{name: getattr(args, name) for name in copied},
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        remove_unused_columns=False,
    )
    values = rows.floats
    data = [{"pixel_values": values[row], "labels": rows.labels[row]} for row in range(len(rows))]
    trainer = Trainer(model, own, train_dataset=data)
    print_lines(trainer)
    trainer.train()
    return model.eval()


def vae_editor(model: BetaVAEModel) -> Editor:
    """Encodes a row with its class, and decodes its mean with another."""

    @torch.no_grad()
    def edit(values: Tensor, own: Tensor, to: Tensor, strength: float = 1.0) -> Tensor:
        if strength != 1:
            raise AtomError("a conditional VAE has no strength between two classes")
        device, parts = model.device, []
        for some, mine, wanted in zip(values.split(512), own.split(512), to.split(512), strict=True):
            mean, _ = model.encode(some.to(device), mine.to(device))
            parts.append(model.decode(mean, wanted.to(device)).cpu())
        return torch.cat(parts)

    return edit


def vae_editors(manipulator: Manipulator, rows: LabelledRows, args: TaskArguments) -> dict[float, tuple[Editor, int]]:
    """The editor of a conditional VAE by each beta, and its number of parameters; of the manipulator's size and budget."""
    config, found = manipulator.config, {}
    parameters = sum(parameter.numel() for parameter in manipulator.put.parameters())
    for beta in BETAS:
        scaled = beta * np.prod(config.data_sizes) / 64
        wanted = same_size_vae(parameters, config.data_sizes, config.num_labels, float(scaled))
        logger.info("a conditional VAE of beta %.3g", scaled)
        model = train_vae(wanted, rows, args)
        found[float(scaled)] = vae_editor(model), sum(parameter.numel() for parameter in model.parameters())
    return found


def mean_difference_editor(rows: LabelledRows, classes: int) -> Editor:
    """Adds the difference of the means of two classes."""
    means = torch.stack([rows.of_class(label).mean(0) for label in range(classes)])

    def edit(values: Tensor, own: Tensor, to: Tensor, strength: float = 1.0) -> Tensor:
        return values + strength * (means[to] - means[own])

    return edit


def at_equal_judge(measured: dict[float, dict[str, Any]], judge: float) -> dict[str, float] | None:
    """What a conditional VAE keeps at a share of edits that the judge reads as their class: between the betas around it, by
    linear interpolation; None where no two betas are around it."""
    ranked = sorted(measured.values(), key=lambda found: found["judge"])
    for low, high in itertools.pairwise(ranked):
        if low["judge"] <= judge <= high["judge"]:
            span = high["judge"] - low["judge"]
            part = (judge - low["judge"]) / span if span else 0.0
            return {
                key: low[key] + part * (high[key] - low[key]) for key in ("judge", "identity", "undo", "move", "energy")
            }
    return None
