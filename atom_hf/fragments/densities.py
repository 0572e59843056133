"""The distributions p(u|x) of channels: draw messages, and the logarithm of their density for every point."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from .channel import Channel


class Density(ABC):
    """p(u|x_j) of N points."""

    @abstractmethod
    def draw(self, points: Tensor, generator: torch.Generator) -> Tensor:
        """A message of each of the points, int64 [s]: [s, ...]."""

    @abstractmethod
    def log_density(self, messages: Tensor) -> Tensor:
        """ln p(u|x_j) of each message for each point, up to a constant: [s, N]."""


def density_of(channel: Channel, device: torch.device | str) -> Density:
    """The distribution of any channel but one that is known by its fingerprint alone."""
    if channel.is_discrete:
        return _Clusters(channel, device)
    if channel.kind == "deterministic":
        return _Diagonal(channel.mean / channel.noise, torch.zeros_like(channel.mean), device)
    if channel.covariance is None:
        return _Diagonal(channel.mean, channel.log_variance, device)
    return _Full(channel, device)


class _Diagonal(Density):
    """Gaussians with independent dimensions."""

    def __init__(self, mean: Tensor, log_variance: Tensor, device: torch.device | str):
        self.mean, self.log_variance = mean.to(device), log_variance.to(device)

    def draw(self, points: Tensor, generator: torch.Generator) -> Tensor:
        mean = self.mean[points]
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
        return mean + (self.log_variance[points] / 2).exp() * noise

    def log_density(self, messages: Tensor) -> Tensor:
        total = -self.log_variance.sum(1) / 2
        for u, mean, log_variance in zip(messages.T, self.mean.T, self.log_variance.T, strict=True):
            total = total - ((u.unsqueeze(1) - mean) * (-log_variance / 2).exp()).square() / 2
        return total


class _Full(Density):
    """Gaussians with a covariance of each point, or of all."""

    def __init__(self, channel: Channel, device: torch.device | str):
        self.mean = channel.mean.to(device)
        factor = torch.linalg.cholesky(channel.covariance.to(device))
        self.factor = factor.expand(len(self.mean), *factor.shape[-2:])

    def draw(self, points: Tensor, generator: torch.Generator) -> Tensor:
        mean = self.mean[points]
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
        return mean + (self.factor[points] @ noise.unsqueeze(2)).squeeze(2)

    def log_density(self, messages: Tensor) -> Tensor:
        difference = messages.T - self.mean.unsqueeze(2)  # [N, d, s]
        whitened = torch.linalg.solve_triangular(self.factor, difference, upper=False)
        log_determinant = self.factor.diagonal(dim1=1, dim2=2).log().sum(1)
        return (-whitened.square().sum(1) / 2 - log_determinant.unsqueeze(1)).T


class _Clusters(Density):
    """Soft clusters [N, K], or labels."""

    def __init__(self, channel: Channel, device: torch.device | str):
        self.labels = None if channel.labels is None else channel.labels.to(device)
        self.probabilities = None if channel.probabilities is None else channel.probabilities.to(device)

    def draw(self, points: Tensor, generator: torch.Generator) -> Tensor:
        if self.labels is not None:
            return self.labels[points]
        return torch.multinomial(self.probabilities[points], 1, generator=generator).squeeze(1)

    def log_density(self, messages: Tensor) -> Tensor:
        if self.labels is not None:
            return (messages.unsqueeze(1) == self.labels).double().log()
        return self.probabilities.T[messages].log()
