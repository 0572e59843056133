"""Competitors of the atom loss: published regularizers for scarce data.

Each is the published loss in a few lines, so that a study can compare it with the atom loss in paired runs.
"""

import math
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import AtomError
from ..modeling.layers import is_image_model
from ..modeling.output_layer import OutputLayer, find_output_layer, watching
from ..training.arguments import AtomTrainingArguments
from ..training.loss_scale import loss_divisor
from ..training.trainer import AtomTrainer
from .features import features_of

REGULARIZERS = ("none", "mixup", "supcon", "uniformity", "dispersive", "rdrop")


@dataclass
class StudyTrainingArguments(AtomTrainingArguments):
    """`AtomTrainingArguments`, and a competitor of the atom loss."""

    regularizer: str = field(default="none", metadata={"help": "One of " + ", ".join(REGULARIZERS) + "."})
    regularizer_weight: float = field(
        default=0.0,
        metadata={
            "help": "Weight of the competitor's term in the loss; for mixup, the alpha of its Beta(alpha, alpha)."
        },
    )
    regularizer_temperature: float = field(default=0.1, metadata={"help": "Temperature of supcon and dispersive."})
    regularizer_centered: bool = field(
        default=False,
        metadata={
            "help": "For uniformity: the features are what the output layer reads before its dropout, centred over the batch, "
            "in place of its input as it is."
        },
    )


def supervised_contrastive_loss(latent: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """L_out of Khosla et al. (arXiv 2004.11362, Eq. 2) within a batch: latent [B, h], labels [B] -> scalar.

    0 where no two samples share a class.
    """
    # By hand: pytorch-metric-learning has it, but only studies need it; a test compares the two.
    z = F.normalize(latent.float(), dim=-1)
    self_pairs = torch.eye(len(z), dtype=torch.bool, device=z.device)
    logits = (z @ z.T / temperature).masked_fill(self_pairs, float("-inf"))
    log_prob = (logits - logits.logsumexp(1, keepdim=True)).masked_fill(self_pairs, 0)
    positives = (labels.unsqueeze(1) == labels) & ~self_pairs
    count = positives.sum(1)
    per_anchor = -(log_prob * positives).sum(1) / count.clamp(min=1)
    return per_anchor.sum() / (count > 0).sum().clamp(min=1)


def uniformity_loss(latent: Tensor, t: float = 2.0, centered: bool = False) -> Tensor:
    """Wang and Isola (arXiv 2005.10242, Eq. 2): log of the mean Gaussian potential between normalised latents [B, h].

    With `centered` the mean over the batch is subtracted first (ours), without which features that share a large mean cannot
    spread over the sphere.
    """
    latent = latent.float()
    z = F.normalize(latent - latent.mean(0) if centered else latent, dim=-1)
    if len(z) < 2:
        return z.sum() * 0
    i, j = torch.triu_indices(len(z), len(z), offset=1, device=z.device)
    return (z[i] - z[j]).square().sum(-1).mul(-t).exp().mean().log()


def dispersive_loss(latent: Tensor, temperature: float) -> Tensor:
    """Wang and He (arXiv 2506.09027, Algorithm 1): InfoNCE without positives, on squared distances: latent [B, h] -> scalar.

        log mean over i, j of exp(-||z_i - z_j||^2 / (h temperature))

    As in the authors' code the mean is over all ordered pairs, those of a sample with itself too, and the squared distance is
    divided by the width.
    """
    z = latent.float()
    pairs = F.pdist(z).square() / (-temperature * z.shape[1])
    own = z.new_zeros(len(z)) + 0 * z.sum()  # the gradient exists for one sample too
    return torch.cat([pairs, pairs, own]).logsumexp(0) - 2 * math.log(len(z))


def r_drop_divergence(a: Tensor, b: Tensor) -> Tensor:
    """Liang et al. (arXiv 2106.14448, Eq. 2): the symmetric KL divergence of two passes' logits [B, C], mean over B."""
    p, q = F.log_softmax(a.float(), -1), F.log_softmax(b.float(), -1)
    kl = F.kl_div(p, q, log_target=True, reduction="batchmean") + F.kl_div(q, p, log_target=True, reduction="batchmean")
    return kl / 2


def output_layer(model: nn.Module) -> nn.Linear:
    """The linear layer o of f = o(phi): the last that gives the model's logits. Raises `AtomError` if there is none."""
    model = model.module if hasattr(model, "module") and not hasattr(model, "config") else model
    embeddings = model.get_output_embeddings()
    if isinstance(embeddings, nn.Linear):
        return embeddings
    outside = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and module.out_features == model.config.num_labels
        and not name.startswith((model.base_model_prefix + ".", "atom_heads"))
    ]
    if not outside:
        raise AtomError(f"{type(model).__name__} has no linear output layer whose input could be its latent")
    return outside[-1]


@contextmanager
def collecting_latents(model: nn.Module):
    """Context manager: yields a list that collects phi, the output layer's input, of each forward pass: [B, ..., h]."""
    found: list[Tensor] = []
    hook = output_layer(model).register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
    try:
        yield found
    finally:
        hook.remove()


class StudyTrainer(AtomTrainer):
    """`AtomTrainer` with a competitor of the atom loss, if `args.regularizer` names one. Classification only."""

    def __init__(self, *positional: Any, **named: Any):
        super().__init__(*positional, **named)
        name, weight = self.args.regularizer, self.args.regularizer_weight
        if name not in REGULARIZERS:
            raise AtomError(f"regularizer must be one of {', '.join(REGULARIZERS)}; got {name!r}")
        if name == "none":
            return
        if isinstance(self.model.get_output_embeddings(), nn.Linear):
            raise AtomError(f"regularizer {name!r} is for classification; {type(self.model).__name__} generates text")
        if not 0 <= weight < math.inf or (name == "mixup" and weight == 0):
            raise AtomError(f"regularizer_weight must be a finite number, for mixup above 0; got {weight!r}")
        if name == "mixup" and not is_image_model(self.model):
            raise AtomError(f"regularizer 'mixup' mixes images; {type(self.model).__name__} takes none")
        if name == "mixup" and self.args.atom:
            raise AtomError("regularizer 'mixup' is not for a run with --atom")
        if name in ("supcon", "uniformity", "dispersive"):
            output_layer(self.model)  # raises for a model that has none
        if self.args.regularizer_centered and name != "uniformity":
            raise AtomError(f"regularizer_centered is for uniformity, not for {name!r}")
        self._read_layer: OutputLayer | None = None
        if name in ("supcon", "dispersive") and not 0 < self.args.regularizer_temperature < math.inf:
            raise AtomError(
                f"regularizer_temperature must be a finite number above 0; got {self.args.regularizer_temperature!r}"
            )

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        name, weight = self.args.regularizer, self.args.regularizer_weight
        if name == "none" or not model.training:
            return super().compute_loss(
                model, inputs, return_outputs=return_outputs, num_items_in_batch=num_items_in_batch
            )
        if name == "mixup":
            loss, outputs = self._mixed(model, inputs, weight)
            loss = loss / loss_divisor(self, num_items_in_batch)
            return (loss, outputs) if return_outputs else loss
        inner = self.accelerator.unwrap_model(model)
        if name == "dispersive" or self.args.regularizer_centered:
            with watching(inner, self._read_layer) as read:
                loss, outputs = super().compute_loss(
                    model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch
                )
            self._read_layer = self._read_layer or find_output_layer(inner, read, outputs["logits"])
            features = features_of(read, self._read_layer, outputs["logits"])
            if name == "dispersive":
                term = dispersive_loss(features, self.args.regularizer_temperature)
            else:
                term = uniformity_loss(features, centered=True)
            loss = loss + weight * term / loss_divisor(self, num_items_in_batch)
            return (loss, outputs) if return_outputs else loss
        with collecting_latents(inner) as latents:
            loss, outputs = super().compute_loss(
                model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch
            )
        if name == "supcon":
            latent = self._latent_of_samples(latents[0])
            term = supervised_contrastive_loss(latent, inputs["labels"], self.args.regularizer_temperature)
        elif name == "uniformity":
            term = uniformity_loss(self._latent_of_samples(latents[0]))
        else:
            again = super().compute_loss(model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch)
            loss = (loss + again[0]) / 2
            term = r_drop_divergence(outputs["logits"], again[1]["logits"])
        loss = loss + weight * term / loss_divisor(self, num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def _latent_of_samples(self, latent: Tensor) -> Tensor:
        if latent.dim() == 3:
            raise AtomError(
                f"regularizer {self.args.regularizer!r} compares samples, and {type(self._atom_model).__name__} has a latent "
                "for each token: it takes its logits first and one of them after that"
            )
        return latent.flatten(1)

    def _mixed(self, model: nn.Module, inputs: dict[str, Any], alpha: float) -> tuple[Tensor, Any]:
        """Zhang et al. (arXiv 1710.09412, Eq. 1)."""
        share = torch.distributions.Beta(alpha, alpha).sample().item()
        pixels, labels = inputs["pixel_values"], inputs["labels"]
        order = torch.randperm(len(pixels), device=pixels.device)
        outputs = model(pixel_values=share * pixels + (1 - share) * pixels[order])
        logits = outputs["logits"].float()
        loss = share * F.cross_entropy(logits, labels) + (1 - share) * F.cross_entropy(logits, labels[order])
        return loss, outputs
