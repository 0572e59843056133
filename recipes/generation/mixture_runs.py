"""One run on a mixture of Gaussians: a GAN, or a small flow, with one arm."""

import tempfile
import time
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from dispersive import Dispersive
from rows import Rows, collate
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel, TrainerCallback, set_seed
from transformers.utils import ModelOutput

from atom_hf import AtomTrainer, AtomTrainingArguments
from atom_hf.generation.gan import GANConfig, GANModel
from atom_hf.generation.gan_trainer import GANArguments, GANTrainer
from atom_hf.generation.mixtures import Mixture, count_modes, grid, ring

MIXTURES = {"ring": ring(), "grid": grid()}
ROWS, SAMPLES, SHOWN = 2**15, 5000, 400
ON_THE_WAY = 1000  # samples of a point of a curve
STEPS = {"grid, gan": 3000, "ring, gan": 2000, "grid, flow": 3000, "ring, flow": 1500}
BATCH = {"gan": 128, "flow": 256}
POINTS = 10  # of a curve
EULER = 50  # steps of sampling by flow
TIMES = 16  # numbers that a time is given as


def draw_points(mixture: Mixture, seed: int) -> Rows:
    """Points of a mixture as images of one pixel, divided by its `scale`."""
    rows = mixture.draw(ROWS, np.random.default_rng(seed)) / scale(mixture)
    return Rows(torch.from_numpy(rows).float()[:, :, None, None])


def scale(mixture: Mixture) -> float:
    """What coordinates are divided by: their standard deviation is 3, so that networks tell neighbouring modes apart sooner."""
    return float(np.sqrt((mixture.centres**2).mean() + mixture.std**2)) / 3


class FlowConfig(PreTrainedConfig):
    """`hidden_size` is the width of `num_hidden_layers` layers."""

    model_type = "point_flow"

    def __init__(self, hidden_size: int = 128, num_hidden_layers: int = 4, **kwargs: Any):
        super().__init__(**kwargs)
        self.hidden_size, self.num_hidden_layers = hidden_size, num_hidden_layers


@dataclass
class FlowOutput(ModelOutput):
    """`hidden_states`: of each layer [B, 1, h], the first after the input's."""

    loss: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class Residual(nn.Module):
    """x + W silu(x)."""

    def __init__(self, width: int):
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, states: Tensor) -> Tensor:
        return states + self.linear(F.silu(states))


class FlowModel(PreTrainedModel):
    """The velocity of points, by layers with residual connections. Source: flow matching, Lipman et al. (2023)."""

    config_class: ClassVar[type] = FlowConfig
    main_input_name = "pixel_values"
    accepts_loss_kwargs = False

    def __init__(self, config: FlowConfig):
        super().__init__(config)
        width = config.hidden_size
        self.first = nn.Linear(2 + TIMES, width)
        self.layers = nn.ModuleList(Residual(width) for _ in range(config.num_hidden_layers))
        self.last = nn.Sequential(nn.SiLU(), nn.Linear(width, 2))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        pass  # torch's own

    def velocity(self, points: Tensor, times: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The velocity [B, 2] at points [B, 2] and times [B, 1], and the hidden states."""
        angles = times * torch.pi * 2.0 ** torch.arange(TIMES // 2) / 8
        states = [self.first(torch.cat([points, angles.sin(), angles.cos()], 1))]
        for layer in self.layers:
            states.append(layer(states[-1]))
        return self.last(states[-1]), [state.unsqueeze(1) for state in states]

    def forward(self, pixel_values: Tensor, output_hidden_states: bool | None = None, return_loss: bool = True):
        points = pixel_values.flatten(1)
        noise, times = torch.randn_like(points), torch.rand(len(points), 1)
        velocity, states = self.velocity((1 - times) * noise + times * points, times)
        return FlowOutput(F.mse_loss(velocity, points - noise), tuple(states))

    @torch.no_grad()
    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        points = torch.randn(count, 2, generator=generator)
        for step in range(EULER):
            points = points + self.velocity(points, torch.full((count, 1), step / EULER))[0] / EULER
        return points


class DispersiveGANTrainer(Dispersive, GANTrainer):
    """Dispersive Loss on the generator's last hidden state, of which the energy makes its atoms too."""


class DispersiveTrainer(Dispersive, AtomTrainer):
    """Dispersive Loss on the velocity's state at a quarter of the depth."""


def draw(model: Any, mixture: Mixture, count: int, seed: int) -> np.ndarray:
    """Samples [count, 2]; those of two models come from the same noise."""
    generator = torch.Generator().manual_seed(seed)
    return model.sample(count, generator).flatten(1).double().numpy() * scale(mixture)


def counted(model: Any, mixture: Mixture, seed: int, count: int) -> dict[str, float]:
    found = count_modes(draw(model, mixture, count, seed), mixture)
    divergence = min(found.divergence, float(np.log(len(mixture.centres))))  # at most that of a single mode
    return {"covered": found.covered, "high_quality": found.high_quality, "divergence": divergence}


class Curve(TrainerCallback):
    """Measures along the training; its own time is left out."""

    def __init__(self, mixture: Mixture, steps: int, seed: int):
        self.mixture, self.every, self.seed = mixture, steps // POINTS, seed
        self.found: list[dict[str, float]] = []
        self.spent = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if state.global_step % self.every == 0:
            start = time.process_time()
            self.found.append({"step": state.global_step, **counted(model, self.mixture, self.seed + 1, ON_THE_WAY)})
            self.spent += time.process_time() - start


def train(name: str, kind: str, arm: str, weight: float, seed: int, **over: Any) -> dict[str, Any]:
    """What one run reaches. `name` is a mixture, `kind` "gan" or "flow"; `over` are sizes that are tried."""
    mixture, steps = MIXTURES[name], over.pop("steps", STEPS[f"{name}, {kind}"])
    more: dict[str, Any] = {}
    if arm in ("separation", "paper"):
        layer = -1 if kind == "gan" else 1
        more = {"atom": True, "atom_form": arm, "atom_weight": weight, "atom_tokens": "all", "atom_layer": layer}
    set_seed(seed)
    with tempfile.TemporaryDirectory() as folder:
        common = dict(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=over.pop("batch", BATCH[kind]),
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            seed=seed,
            use_cpu=True,
            **more,
        )
        rows, curve = draw_points(mixture, seed), Curve(mixture, steps, seed)
        given = {"train_dataset": rows, "data_collator": collate, "callbacks": [curve]}
        if kind == "gan":
            sizes = {"latent_size": 2, "hidden_sizes": [64, 64, 64], "gradient_penalty": 0, **over}
            args = GANArguments(
                **common, learning_rate=1e-3, adam_beta1=0.0, lr_scheduler_type="cosine",
                players={"discriminator": {"lr": 5e-3}},
            )  # fmt: skip
            config = GANConfig(
                image_size=1, num_channels=2, architecture="dense", bounded=False,
                mode_seeking=weight if arm == "mode seeking" else 0.0, **sizes,
            )  # fmt: skip
            trainer, place = DispersiveGANTrainer(GANModel(config), args, **given), "generator.layers.2"
        else:
            args = AtomTrainingArguments(**common, learning_rate=over.pop("lr", 5e-3), lr_scheduler_type="cosine")
            trainer, place = DispersiveTrainer(FlowModel(FlowConfig(**over)), args, **given), "layers.0"
        if arm == "dispersive":
            trainer.weight, trainer.place = weight, place
        start = time.process_time()
        trainer.train()
        seconds = time.process_time() - start - curve.spent
    model = trainer.model.eval()
    shown = draw(model, mixture, SHOWN, seed)
    return {
        **counted(model, mixture, seed, SAMPLES),
        "seconds": seconds,
        "curve": curve.found,
        "shown": shown.round(2).tolist(),
    }
