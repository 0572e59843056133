"""A beta-VAE (Higgins et al., 2017) of images as a Transformers model: trained by Trainer, saved, loaded and pushed."""

import itertools
import math
from dataclasses import dataclass, field

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.activations import ACT2FN
from transformers.utils import ModelOutput

from ..errors import AtomError
from .small_models import check_images, check_sizes, choose, initialize

LIKELIHOODS = ("bernoulli", "gaussian")


@strict
class BetaVAEConfig(PreTrainedConfig):
    """Configuration of a `BetaVAEModel`.

    Args:
        image_size: pixels of a side; images are square.
        num_channels: 1 for grey, 3 for colour.
        latent_size: latent dimensions.
        hidden_sizes: widths of the encoder's layers, those of the decoder in reverse. In a convolutional model each layer
            halves the side of the image.
        architecture: "dense" or "convolutional".
        beta: weight of the KL divergence; 1 is the evidence lower bound.
        likelihood: of a pixel; "bernoulli" for values in [0, 1], or "gaussian" with the standard deviation `noise_std`.
        num_classes: classes that encoder and decoder are given as `labels`; 0 for none.
        hidden_act: the activation, by its name in Transformers.

    Raises:
        AtomError: a size that is not positive, an image that cannot be halved as often as there are layers.
    """

    model_type = "beta_vae"

    image_size: int = 28
    num_channels: int = 1
    latent_size: int = 10
    hidden_sizes: list[int] | tuple[int, ...] = field(default_factory=lambda: [256, 256])
    architecture: str = "dense"
    beta: float | int = 1.0
    likelihood: str = "bernoulli"
    noise_std: float | int = 0.1
    num_classes: int = 0
    hidden_act: str = "relu"

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        self.hidden_sizes = list(self.hidden_sizes)
        check_sizes(self)
        if self.likelihood not in LIKELIHOODS:
            raise AtomError(f"likelihood must be {' or '.join(map(repr, LIKELIHOODS))}, got {self.likelihood!r}")
        if not (math.isfinite(self.beta) and self.beta >= 0):
            raise AtomError(f"beta must be a finite number that is not negative, got {self.beta}")
        if not (math.isfinite(self.noise_std) and self.noise_std > 0):
            raise AtomError(f"noise_std must be a finite number above 0, got {self.noise_std}")
        if self.num_classes < 0:
            raise AtomError(f"num_classes must be 0 (no condition) or more, got {self.num_classes}")

    @property
    def num_hidden_layers(self) -> int:
        """The layers of the encoder."""
        return len(self.hidden_sizes)

    @property
    def embedding_size(self) -> int:
        """The width of hidden state 0: of a dense model the image as one token, else its channels."""
        return self.num_channels * (self.image_size**2 if self.architecture == "dense" else 1)


@dataclass
class BetaVAEOutput(ModelOutput):
    """Output of a `BetaVAEModel`, in nats an image where it is of information.

    Args:
        loss: `reconstruction_loss + beta * kl`.
        reconstruction: [B, C, H, W], the expected pixels for `latents`.
        posterior_mean: [B, d], of q(z|x).
        posterior_log_variance: [B, d].
        latents: [B, d], drawn from q(z|x).
        reconstruction_loss: -log p(x|z), summed over pixels, mean over images.
        kl: KL(q(z|x) || N(0, 1)), mean over images.
        hidden_states: of the encoder: its input, then each layer. [B, 1, h] of a dense model, else [B, h, H, W].
    """

    loss: Tensor | None = None
    reconstruction: Tensor | None = None
    posterior_mean: Tensor | None = None
    posterior_log_variance: Tensor | None = None
    latents: Tensor | None = None
    reconstruction_loss: Tensor | None = None
    kl: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class BetaVAEModel(PreTrainedModel):
    """An encoder to a diagonal Gaussian q(z|x), and a decoder p(x|z); z ~ N(0, 1) beforehand.

    Source: Kingma and Welling (2014), Eq. 10; the weight beta: Higgins et al. (2017), Eq. 4.
    """

    config_class = BetaVAEConfig
    base_model_prefix = "beta_vae"
    main_input_name = "pixel_values"
    input_modalities = ("image",)

    def __init__(self, config: BetaVAEConfig):
        super().__init__(config)
        self.is_dense = config.architecture == "dense"
        sizes, classes, act = config.hidden_sizes, config.num_classes, ACT2FN[config.hidden_act]
        self.encoder = nn.ModuleList()
        self.decoder = nn.ModuleList()
        if self.is_dense:
            pixels = config.embedding_size
            for before, width in zip([pixels + classes, *sizes], sizes, strict=False):
                self.encoder.append(nn.Sequential(nn.Linear(before, width), act))
            widths = [config.latent_size + classes, *reversed(sizes)]
            for before, width in itertools.pairwise(widths):
                self.decoder.append(nn.Sequential(nn.Linear(before, width), act))
            self.decoder.append(nn.Linear(sizes[0], pixels))
            features = sizes[-1]
        else:
            for before, width in zip([config.num_channels + classes, *sizes], sizes, strict=False):
                self.encoder.append(nn.Sequential(nn.Conv2d(before, width, 4, stride=2, padding=1), act))
            self.side = config.image_size // 2 ** len(sizes)
            features = sizes[-1] * self.side**2
            self.decoder.append(nn.Sequential(nn.Linear(config.latent_size + classes, features), act))
            self.decoder.append(nn.Unflatten(1, (sizes[-1], self.side, self.side)))
            widths = [*reversed(sizes)]
            for before, width in itertools.pairwise(widths):
                self.decoder.append(nn.Sequential(nn.ConvTranspose2d(before, width, 4, stride=2, padding=1), act))
            self.decoder.append(nn.ConvTranspose2d(sizes[0], config.num_channels, 4, stride=2, padding=1))
        self.posterior = nn.Linear(features, 2 * config.latent_size)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        initialize(module)

    def encode(self, pixel_values: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log variance [B, d] of q(z|x), for images [B, C, H, W] and, with `num_classes`, labels [B]."""
        return self._encode(pixel_values, labels)[:2]

    def decode(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """The expected pixels [B, C, H, W] for latents [B, d] and, with `num_classes`, labels [B]."""
        output = self._decode(latents, labels)
        return output.sigmoid() if self.config.likelihood == "bernoulli" else output

    @torch.no_grad()
    def sample(self, count: int = 1, labels: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """The expected pixels [count, C, H, W] for latents drawn from N(0, 1); with `num_classes`, labels [count]."""
        shape = count, self.config.latent_size
        latents = torch.randn(shape, generator=generator, device=generator.device if generator else self.device)
        return self.decode(latents.to(self.device, self.dtype), labels)

    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        noise: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        return_loss: bool = True,
    ) -> BetaVAEOutput | tuple[Tensor, ...]:
        """Encode, draw once, decode, and the loss, in training and in evaluation alike.

        Args:
            pixel_values: [B, C, H, W]; in [0, 1] for the Bernoulli likelihood.
            labels: classes [B]; used with `num_classes` alone.
            noise: [B, d], standard normal numbers that the latents are made with; drawn if not given.
            output_hidden_states: whether to return the encoder's.
            return_dict: False for a tuple.
            return_loss: tells Trainer that there is a loss without labels; it is always returned.

        Raises:
            AtomError: images of another size, pixels outside of [0, 1] for a Bernoulli likelihood, no labels for a conditional
                model.
        """
        mean, log_variance, states = self._encode(pixel_values, labels)
        noise = torch.randn_like(mean) if noise is None else noise
        latents = mean + (log_variance / 2).exp() * noise
        output = self._decode(latents, labels)
        kl = (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean() / 2
        if self.config.likelihood == "bernoulli":
            lost = F.binary_cross_entropy_with_logits(output, pixel_values, reduction="none")
            reconstruction = output.sigmoid()
        else:
            std = self.config.noise_std
            lost = ((pixel_values - output) / std).square() / 2 + math.log(std * math.sqrt(2 * math.pi))
            reconstruction = output
        lost = lost.flatten(1).sum(1).mean()
        result = BetaVAEOutput(
            loss=lost + self.config.beta * kl,
            reconstruction=reconstruction,
            posterior_mean=mean,
            posterior_log_variance=log_variance,
            latents=latents,
            reconstruction_loss=lost,
            kl=kl,
            hidden_states=tuple(states) if choose(output_hidden_states, self.config.output_hidden_states) else None,
        )
        return result if choose(return_dict, self.config.return_dict) else result.to_tuple()

    def _encode(self, pixels: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor, list[Tensor]]:
        config = self.config
        check_images(pixels, config)
        if config.likelihood == "bernoulli" and not bool(((pixels >= 0) & (pixels <= 1)).all()):
            raise AtomError(
                "pixel_values must be in [0, 1] for the likelihood 'bernoulli' (an image processor with image_mean 0 and "
                f"image_std 1), got {pixels.min().item():.3g} to {pixels.max().item():.3g}; or use likelihood 'gaussian'"
            )
        given = self._given(labels, len(pixels))
        value = pixels.flatten(1) if self.is_dense else pixels
        states = [value]
        if given is not None:
            given = given if self.is_dense else given[:, :, None, None].expand(-1, -1, *pixels.shape[2:])
            value = torch.cat([value, given], 1)
        for layer in self.encoder:
            value = layer(value)
            states.append(value)
        mean, log_variance = self.posterior(value.flatten(1)).chunk(2, 1)
        return mean, log_variance, [state.unsqueeze(1) if self.is_dense else state for state in states]

    def _decode(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        given = self._given(labels, len(latents))
        value = latents if given is None else torch.cat([latents, given], 1)
        for layer in self.decoder:
            value = layer(value)
        return value.view(len(latents), self.config.num_channels, self.config.image_size, self.config.image_size)

    def _given(self, labels: Tensor | None, count: int) -> Tensor | None:
        """The condition [B, classes], one-hot; None of a model without."""
        classes = self.config.num_classes
        if not classes:
            return None
        if labels is None or labels.shape != (count,):
            got = "none" if labels is None else list(labels.shape)
            raise AtomError(f"labels must be one class [{count}] each: the model has num_classes {classes}; got {got}")
        return F.one_hot(labels.long(), classes).to(self.dtype)


AutoConfig.register(BetaVAEConfig.model_type, BetaVAEConfig)
AutoModel.register(BetaVAEConfig, BetaVAEModel)
