"""A small GAN (Goodfellow et al., 2014) as a Transformers model: trained by `GANTrainer`, saved, loaded and pushed."""

import itertools
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.activations import ACT2FN
from transformers.utils import ModelOutput

from ..errors import AtomError, DivergedError, first_line
from .small_models import check_images, check_sizes, choose, initialize

PLAYERS = ("generator", "discriminator")


@strict
class GANConfig(PreTrainedConfig):
    """Configuration of a `GANModel`.

    Args:
        image_size: pixels of a side; images are square. Points of the plane are images of one pixel and two channels.
        num_channels: 1 for grey, 3 for colour.
        latent_size: numbers of the noise that the generator is given.
        hidden_sizes: widths of the generator's layers, those of the discriminator in reverse. In a convolutional model each
            layer doubles the side of the image.
        architecture: "dense" or "convolutional".
        bounded: whether pixels are in [-1, 1], by a tanh.
        gradient_penalty: weight gamma of R1 (Mescheder et al., 2018), at real images; 0 for none.
        mode_seeking: weight of the mode seeking term (Mao et al., 2019), which keeps samples of different noise apart; 0 for
            none.
        discriminator: the configuration of an image classifier of Transformers, with its `model_type`, that takes the place of
            the small discriminator; None for that.
        hidden_act: the activation, by its name in Transformers.

    Raises:
        AtomError: a size that is not positive, an image that cannot be halved as often as there are layers.
    """

    model_type = "small_gan"

    image_size: int = 28
    num_channels: int = 1
    latent_size: int = 32
    hidden_sizes: list[int] | tuple[int, ...] = field(default_factory=lambda: [128, 64])
    architecture: str = "convolutional"
    bounded: bool = True
    gradient_penalty: float | int = 1.0
    mode_seeking: float | int = 0.0
    discriminator: dict[str, Any] | None = None
    hidden_act: str = "leaky_relu"

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        self.hidden_sizes = list(self.hidden_sizes)
        check_sizes(self)
        for name in ("gradient_penalty", "mode_seeking"):
            weight = getattr(self, name)
            if not (math.isfinite(weight) and weight >= 0):
                raise AtomError(f"{name} must be a finite number that is not negative, got {weight}")

    @property
    def num_hidden_layers(self) -> int:
        """The layers of the generator."""
        return len(self.hidden_sizes)

    @property
    def embedding_size(self) -> int:
        """The width of hidden state 0, the noise."""
        return self.latent_size


@dataclass
class GANOutput(ModelOutput):
    """Output of a `GANModel`; losses are means over images, in nats.

    Args:
        loss: the sum whose gradient is, for each player, that of its own loss.
        generator_loss: -log D(G(z)), non-saturating.
        discriminator_loss: -log D(x) - log(1 - D(G(z))).
        penalty: gamma/2 ||grad_x D(x)||^2, which joins the discriminator's loss.
        mode_seeking: `mode_seeking_loss`, whose weight is that of the configuration, and which joins the generator's loss; 0
            in evaluation, and where the weight is 0.
        samples: [B, C, H, W], G(z), without a gradient.
        hidden_states: of the generator: the noise, then each layer. [B, 1, h] of a dense model, else [B, h, H, W].
    """

    loss: Tensor | None = None
    generator_loss: Tensor | None = None
    discriminator_loss: Tensor | None = None
    penalty: Tensor | None = None
    mode_seeking: Tensor | None = None
    samples: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class Generator(nn.Module):
    """Noise [B, d] to images [B, C, H, W], and its hidden states."""

    def __init__(self, config: GANConfig):
        super().__init__()
        self.config, sizes, act = config, config.hidden_sizes, ACT2FN[config.hidden_act]
        self.layers = nn.ModuleList()
        if config.architecture == "dense":
            for before, width in itertools.pairwise([config.latent_size, *sizes]):
                self.layers.append(nn.Sequential(nn.Linear(before, width), act))
            self.last = nn.Linear(sizes[-1], config.num_channels * config.image_size**2)
        else:
            side = config.image_size // 2 ** len(sizes)
            first = [nn.Linear(config.latent_size, sizes[0] * side**2), nn.Unflatten(1, (sizes[0], side, side)), act]
            self.layers.append(nn.Sequential(*first))
            for before, width in itertools.pairwise(sizes):
                self.layers.append(nn.Sequential(nn.ConvTranspose2d(before, width, 4, stride=2, padding=1), act))
            self.last = nn.ConvTranspose2d(sizes[-1], config.num_channels, 4, stride=2, padding=1)

    def forward(self, noise: Tensor) -> tuple[Tensor, list[Tensor]]:
        value, states = noise, [noise]
        for layer in self.layers:
            value = layer(value)
            states.append(value)
        side = self.config.image_size
        images = self.last(value).view(len(noise), self.config.num_channels, side, side)
        images = images.tanh() if self.config.bounded else images
        return images, [state.unsqueeze(1) if state.dim() == 2 else state for state in states]


class Discriminator(nn.Module):
    """Images [B, C, H, W] to the logit [B] of being real."""

    def __init__(self, config: GANConfig):
        super().__init__()
        sizes, act = [*reversed(config.hidden_sizes)], ACT2FN[config.hidden_act]
        layers: list[nn.Module] = []
        if config.architecture == "dense":
            layers.append(nn.Flatten())
            for before, width in itertools.pairwise([config.num_channels * config.image_size**2, *sizes]):
                layers += [nn.Linear(before, width), act]
            features = sizes[-1]
        else:
            for before, width in itertools.pairwise([config.num_channels, *sizes]):
                layers += [nn.Conv2d(before, width, 4, stride=2, padding=1), act]
            layers.append(nn.Flatten())
            features = sizes[-1] * (config.image_size // 2 ** len(sizes)) ** 2
        self.layers = nn.Sequential(*layers, nn.Linear(features, 1))

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.layers(pixel_values).squeeze(1)


class ClassifierDiscriminator(nn.Module):
    """An image classifier of Transformers with one class, as a discriminator."""

    def __init__(self, config: dict[str, Any]):
        super().__init__()
        given = dict(config)
        kind = given.pop("model_type", None)
        try:
            made = AutoConfig.for_model(kind, **{**given, "num_labels": 1})
            # Fused attention has no second derivative, which the gradient penalty needs.
            self.classifier = AutoModelForImageClassification.from_config(made, attn_implementation="eager")
        except Exception as error:  # an unknown type or sizes that do not go together raise errors of many types
            raise AtomError(
                f"discriminator: {kind!r:.60} with {given!r:.200} is no image classifier of Transformers: {first_line(error)}"
            ) from error

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.classifier(pixel_values=pixel_values).logits.squeeze(1)


def mode_seeking_loss(noise: Tensor, samples: Tensor) -> Tensor:
    """How little samples [B, C, H, W] move with their noise [B, d]: a scalar, of the pairs (i, i + B // 2).

        1 / (r + 1e-5), r = (mean |G(z_i) - G(z_j)|) / (mean |z_i - z_j|), means over pairs and coordinates

    Source: Mao et al. (2019, arXiv 1903.05628), Eq. 2, in the form of the authors' code. 0 for fewer than two samples.
    """
    half = len(noise) // 2
    if not half:
        return samples.sum() * 0
    moved = (samples[:half] - samples[half : 2 * half]).abs().mean()
    return 1 / (moved / (noise[:half] - noise[half : 2 * half]).abs().mean() + 1e-5)


class GANModel(PreTrainedModel):
    """A generator and a discriminator, each with its own part in one loss.

    Source: the non-saturating loss, Goodfellow et al. (2014), Section 3; the penalty R1, Mescheder et al. (2018); mode seeking,
    Mao et al. (2019).
    """

    config_class = GANConfig
    base_model_prefix = "gan"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    accepts_loss_kwargs = False

    def __init__(self, config: GANConfig):
        super().__init__(config)
        self.generator = Generator(config)
        own = config.discriminator is None
        self.discriminator = Discriminator(config) if own else ClassifierDiscriminator(config.discriminator)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        initialize(module)

    def draw_noise(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Standard normal numbers [count, latent_size] for the generator."""
        shape = count, self.config.latent_size
        noise = torch.randn(shape, generator=generator, device=generator.device if generator else self.device)
        return noise.to(self.device, self.dtype)

    @torch.no_grad()
    def sample(self, count: int = 1, generator: torch.Generator | None = None) -> Tensor:
        """Images [count, C, H, W]."""
        return self.generator(self.draw_noise(count, generator))[0]

    def forward(
        self,
        pixel_values: Tensor,
        noise: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        return_loss: bool = True,
    ) -> GANOutput | tuple[Tensor, ...]:
        """The losses of both players for as many samples as there are images.

        Args:
            pixel_values: [B, C, H, W], real images, in [-1, 1] for a generator that is bounded.
            noise: [B, latent_size]; drawn if not given.
            output_hidden_states: whether to return the generator's.
            return_dict: False for a tuple.
            return_loss: tells Trainer that there is a loss without labels; it is always returned.

        Raises:
            AtomError: images of another size.
            DivergedError: a loss that is not a finite number.
        """
        config = self.config
        check_images(pixel_values, config)
        noise = self.draw_noise(len(pixel_values)) if noise is None else noise
        samples, states = self.generator(noise)
        # Each player's loss reaches its own parameters alone: the generator's passes through a discriminator that stands still.
        frozen = {name: value.detach() for name, value in self.discriminator.named_parameters()}
        generator_loss = F.softplus(-functional_call(self.discriminator, frozen, (samples,))).mean()
        penalised = config.gradient_penalty > 0 and torch.is_grad_enabled()
        real = pixel_values.detach().requires_grad_(penalised)
        judged, fooled = self.discriminator(real), self.discriminator(samples.detach())
        discriminator_loss = F.softplus(-judged).mean() + F.softplus(fooled).mean()
        penalty = torch.zeros_like(discriminator_loss)
        if penalised:
            (slope,) = torch.autograd.grad(judged.sum(), real, create_graph=True)
            penalty = config.gradient_penalty / 2 * slope.square().flatten(1).sum(1).mean()
        seeking = torch.zeros_like(generator_loss)
        if config.mode_seeking > 0 and torch.is_grad_enabled():
            seeking = mode_seeking_loss(noise, samples)
        loss = generator_loss + config.mode_seeking * seeking + discriminator_loss + penalty
        if not bool(loss.isfinite()):
            raise DivergedError(
                f"the losses of generator and discriminator are {generator_loss.item():g} and "
                f"{(discriminator_loss + penalty).item():g}: the GAN has diverged; lower the learning rate, or raise "
                "gradient_penalty"
            )
        output = GANOutput(
            loss=loss,
            generator_loss=generator_loss.detach(),
            discriminator_loss=discriminator_loss.detach(),
            penalty=penalty.detach(),
            mode_seeking=seeking.detach(),
            samples=samples.detach(),
            hidden_states=tuple(states) if choose(output_hidden_states, config.output_hidden_states) else None,
        )
        return output if choose(return_dict, config.return_dict) else output.to_tuple()


AutoConfig.register(GANConfig.model_type, GANConfig)
AutoModel.register(GANConfig, GANModel)
