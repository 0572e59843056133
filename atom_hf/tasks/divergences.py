"""Divergences D(system, specification) of two wires: scalars, means over rows."""

import torch
from torch import Tensor
from torch.nn import functional as F

from .kinds import Divergence, Kind, default_divergence
from .wires import Filled, Gaussian, Simplex, Tokens, Value


def divergence(kind: Kind, system: Value, specification: Value, by: Divergence | None) -> Tensor:
    """How far a wire is from what it should be: 0 for equal ones. By default as its kind is compared.

    A class is compared with probabilities that a box made by their divergence, by whatever name.
    """
    by = by or default_divergence(kind)
    options = dict(by.options)
    match kind.name:
        case "class":
            if specification.ids is not None and by.name == "cross_entropy":
                return F.cross_entropy(system.scores, specification.ids)
            return class_kl(system, specification, options.get("temperature", 1.0))
        case "tokens":
            return token_cross_entropy(system, specification)
        case "gaussian":
            return gaussian_kl(system, specification)
        case "logit":
            target = specification.target if isinstance(specification, Probability) else specification.sigmoid()
            return F.binary_cross_entropy_with_logits(system, target.expand_as(system))
    if by.name == "l1":
        return F.l1_loss(system, specification)
    if by.name == "sse":
        return (system - specification).square().flatten(1).sum(1).mean()
    if by.name == "cosine":
        return (1 - F.cosine_similarity(system.flatten(1), specification.flatten(1))).mean()
    return F.mse_loss(system, specification)


class Probability:
    """The constant of a logit: the probability that it should give."""

    def __init__(self, target: Tensor):
        self.target = target


def class_kl(system: Simplex, specification: Simplex, temperature: float = 1.0) -> Tensor:
    """KL(specification || system), the mean over rows; both at a temperature T, and times T^2, as Hinton et al. (2015)."""
    logs = (system.scores / temperature).log_softmax(-1)
    softened = specification.logits is not None
    target = (specification.logits / temperature).softmax(-1) if softened else specification.point
    return F.kl_div(logs, target, reduction="batchmean") * temperature**2


def gaussian_kl(system: Gaussian, specification: Gaussian) -> Tensor:
    """KL(system || specification) of diagonal normal distributions: the sum over dimensions, the mean over rows."""
    ratio = system.log_variance - specification.log_variance
    distance = (system.mean - specification.mean).square() / specification.log_variance.exp()
    return 0.5 * (ratio.exp() + distance - 1 - ratio).sum(-1).mean()


def token_cross_entropy(system: Tokens, specification: Tokens) -> Tensor:
    """The mean over the real tokens of the specification. Of a text that was filled in, copied tokens cost nothing."""
    real = specification.mask.bool()
    if isinstance(system, Filled):
        return _written_cross_entropy(system, specification) / real.sum().clamp(min=1)
    logs = system.logits.log_softmax(-1)
    if specification.ids is not None:
        losses = -logs.gather(-1, specification.ids.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    else:
        losses = -(specification.logits.softmax(-1) * logs).sum(-1)
    return torch.where(real, losses, 0.0).sum() / real.sum().clamp(min=1)


def _written_cross_entropy(system: Filled, specification: Tokens) -> Tensor:
    """The sum over written tokens, but for those that should be what cannot be written: another token, or several."""
    ids, left_out = specification.ids, specification.mask.bool() & ~system.mask.bool()
    ids = ids.masked_fill(F.pad(left_out[:, 1:], (0, 1)), -1)  # of several
    index = torch.full((int(max(ids.max(), system.vocabulary.max())) + 1,), -100, device=ids.device)
    index[system.vocabulary] = torch.arange(len(system.vocabulary), device=ids.device)
    ids = ids[system.places]
    targets = torch.where(ids < 0, -100, index[ids.clamp(min=0)])
    return F.cross_entropy(system.scores, targets, reduction="sum")
