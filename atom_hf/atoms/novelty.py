"""How far a sample lies off what an explainer was fitted on (ours, after Lee et al., arXiv 1807.03888)."""

import torch
from torch import Tensor, nn

DIRECTIONS = 32
"""The most directions in which samples are told apart; all others share one variance."""

QUANTILES = 101


class Novelty(nn.Module):
    """A calibrated score in [0, 1] of how unusual samples are.

        x     = mean over a sample's tokens of its layer-normalised hidden states
        d^2   = (x - mean_c)^T P (x - mean_c),   c the predicted class         (Lee et al., Eq. 2: a Gaussian for each class)
        score = the share of held-out samples of the fit with a smaller d

    P is the inverse of one covariance for all classes, by probabilistic PCA (Tipping and Bishop, 1999): the few largest
    variances within the classes, and one for all other directions. So the score is even on samples like those of the fit.

    Args:
        hidden_size: h, the width of the tokens.
        classes: C, the number of classes.
    """

    def __init__(self, hidden_size: int, classes: int):
        super().__init__()
        directions = min(DIRECTIONS, hidden_size)
        self.register_buffer("means", torch.zeros(classes, hidden_size))
        self.register_buffer("directions", torch.zeros(directions, hidden_size))
        self.register_buffer("variances", torch.ones(directions))
        self.register_buffer("rest", torch.ones(()))
        self.register_buffer("distances", torch.linspace(0, 1, QUANTILES))

    def forward(self, tokens: Tensor, real: Tensor, values: Tensor) -> Tensor:
        """Layer-normalised tokens [B, N, h], which are no padding, bool [B, N], the values of classes [B, C] -> score [B]."""
        distance = self.distance(pooled(tokens, real), values.argmax(-1))
        place = torch.searchsorted(self.distances.float(), distance.contiguous())
        return place / QUANTILES

    def distance(self, samples: Tensor, classes: Tensor) -> Tensor:
        """The squared distance [B] of samples [B, h] from the mean of their classes [B]."""
        off = samples - self.means.float()[classes]
        along = off @ self.directions.float().T
        rest = (off.square().sum(-1) - along.square().sum(-1)).clamp(min=0)
        return (along.square() / self.variances.float()).sum(-1) + rest / self.rest.float()

    @torch.no_grad()
    def fit(self, samples: Tensor, classes: Tensor, held_samples: Tensor, held_classes: Tensor) -> None:
        """Fit the Gaussians to samples [n, h] of classes [n], and calibrate the score on others.

        A class that no sample has gets the mean of all.
        """
        samples, classes, held_samples = samples.cpu().double(), classes.cpu(), held_samples.cpu()
        means = samples.mean(0).repeat(len(self.means), 1)
        for number in classes.unique().tolist():
            means[number] = samples[classes == number].mean(0)
        within = samples - means[classes]
        _, spread, directions = torch.linalg.svd(within, full_matrices=False)
        variances = spread.square() / max(1, len(samples) - len(classes.unique()))
        count = min(len(self.variances), max(1, len(variances) // 2))
        others = samples.shape[1] - count
        rest = variances[count:].sum() / others if others > 0 else variances.new_ones(())
        least = 1e-6 * variances.max().clamp(min=1e-12)
        self.means.copy_(means)
        self.directions.zero_()
        self.directions[:count] = directions[:count]
        self.variances.fill_(1)
        self.variances[:count] = variances[:count].clamp(min=float(least))
        self.rest.copy_(rest.clamp(min=float(least)))
        distance = self.distance(held_samples.to(self.means), held_classes.to(self.means.device)).double().cpu()
        self.distances.copy_(torch.quantile(distance, torch.linspace(0, 1, QUANTILES, dtype=torch.double)))


def pooled(tokens: Tensor, real: Tensor) -> Tensor:
    """The mean [B, h] of each sample's tokens [B, N, h] that are no padding, bool [B, N]."""
    weights = real.float() / real.float().sum(1, keepdim=True).clamp(min=1)
    return torch.einsum("bn,bnh->bh", weights, tokens.float())
