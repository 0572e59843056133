"""Channels of one kind and width, stacked: the formulas of their fingerprints, for a block of rows of several at a time.

With S = (S_i + S_j)/2 and d = mu_i - mu_j, the Bhattacharyya distance D in nats, and B = exp(-D):

    Gaussian       D = 1/8 d' S^-1 d + 1/2 [ln|S| - 1/2 ln|S_i| - 1/2 ln|S_j|]
    deterministic  D = ||d||^2 / 8 s^2
    soft           B = sum_k sqrt(p_ik p_jk),  so  B - 1 = -1/2 sum_k (sqrt p_ik - sqrt p_jk)^2
    hard           B = 1 or 0
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import AtomError
from .channel import Channel


class Family(ABC):
    """c stacked channels. `width`: the numbers in memory for each of a row's N entries while it is computed."""

    width = 1

    @abstractmethod
    def __len__(self) -> int:
        """c."""

    @abstractmethod
    def distance(self, out: Tensor, members: slice, rows: slice, sign: int = 1) -> None:
        """D of some members, or -D: writes [R, c, N]."""

    def difference(self, out: Tensor, members: slice, rows: slice) -> None:
        """B - 1 of some members: writes [R, c, N]."""
        self.distance(out, members, rows, -1)
        out.expm1_()


class _Points(Family):
    """Gaussians that share a covariance, whitened: D = ||y_i - y_j||^2 / 8."""

    def __init__(self, values: list[Tensor]):
        self.values = torch.stack(values)  # [c, N, d]
        self.width = self.values.shape[2]

    def __len__(self) -> int:
        return len(self.values)

    def distance(self, out: Tensor, members: slice, rows: slice, sign: int = 1) -> None:
        _squared_distances(out, self.values[members], rows)
        out.mul_(sign / 8)


class Deterministic(_Points):
    """Values in units of their noise."""

    def __init__(self, channels: Sequence[Channel], dtype: torch.dtype, device: torch.device):
        super().__init__(
            [_cast(_centered(channel.mean) / channel.noise, channel, dtype, device) for channel in channels]
        )


class SharedCovariance(_Points):
    """Means in units of the covariance: multiplied by the inverse of its Cholesky factor."""

    def __init__(self, channels: Sequence[Channel], dtype: torch.dtype, device: torch.device):
        super().__init__([_cast(_whitened(channel), channel, dtype, device) for channel in channels])


class Diagonal(Family):
    """Gaussians with independent dimensions; their terms add up over dimensions.

    1/2 ln S - 1/4 ln S_i S_j = 1/4 ln[1 + (S_i - S_j)^2 / 4 S_i S_j]: no difference of logarithms, so small ones stay exact.
    """

    def __init__(self, channels: Sequence[Channel], dtype: torch.dtype, device: torch.device):
        means, variances = [], []
        for channel in channels:
            # The unit of a dimension changes no fingerprint; with this one its variances are farthest from overflow.
            low, high = torch.aminmax(channel.log_variance, dim=0)
            unit = (low + high) / 2
            means.append(_cast(_centered(channel.mean) / (unit / 2).exp(), channel, dtype, device))
            variances.append(_cast((channel.log_variance - unit).exp(), channel, dtype, device))
        self.mean, self.variance = torch.stack(means), torch.stack(variances)
        self.root = (2 * self.variance).rsqrt_()
        self.width = 2 * self.mean.shape[2]

    def __len__(self) -> int:
        return len(self.mean)

    def distance(self, out: Tensor, members: slice, rows: slice, sign: int = 1) -> None:
        mean, variance, root = self.mean[members], self.variance[members], self.root[members]
        if mean.shape[2] == 1:
            mean, variance, root = mean[..., 0], variance[..., 0], root[..., 0]
            self._terms(out, mean, variance, root, rows)
        else:
            terms = out.new_empty(*out.shape, mean.shape[2])
            torch.sum(self._terms(terms, mean, variance, root, rows), 3, out=out)
        out.mul_(sign / 4)

    @staticmethod
    def _terms(out: Tensor, mean: Tensor, variance: Tensor, root: Tensor, rows: slice) -> Tensor:
        """4 D of each dimension."""
        mean_i, variance_i, root_i = (tensor[:, rows].transpose(0, 1).unsqueeze(2) for tensor in (mean, variance, root))
        torch.sub(mean, mean_i, out=out)
        other = torch.add(variance, variance_i)
        out.mul_(out).div_(other)
        torch.sub(variance, variance_i, out=other)
        other.mul_(root).mul_(root_i)
        return out.add_(other.mul_(other).log1p_())


class Full(Family):
    """Gaussians with a covariance of each point, by Cholesky factors: [N, d, d] at a time."""

    def __init__(self, channels: Sequence[Channel], dtype: torch.dtype, device: torch.device):
        self.mean = [_cast(_centered(channel.mean), channel, dtype, device) for channel in channels]
        self.covariance = [_cast(channel.covariance, channel, dtype, device) for channel in channels]
        self.log_root = [_half_log_determinant(torch.linalg.cholesky(covariance)) for covariance in self.covariance]
        self.width = 3 * self.mean[0].shape[1] ** 2

    def __len__(self) -> int:
        return len(self.mean)

    def distance(self, out: Tensor, members: slice, rows: slice, sign: int = 1) -> None:
        for place, member in enumerate(range(*members.indices(len(self)))):
            mean, covariance, log_root = self.mean[member], self.covariance[member], self.log_root[member]
            for line, point in enumerate(range(*rows.indices(len(mean)))):
                factor = torch.linalg.cholesky((covariance + covariance[point]) / 2)
                whitened = torch.linalg.solve_triangular(factor, (mean - mean[point]).unsqueeze(2), upper=False)
                determinants = _half_log_determinant(factor) - (log_root + log_root[point]) / 2
                out[line, place] = sign * (whitened.squeeze(2).square().sum(1) / 8 + determinants)
                out[line, place, point] = 0


class Soft(Family):
    """Probabilities [N, K]."""

    def __init__(self, channels: Sequence[Channel], dtype: torch.dtype, device: torch.device):
        roots = [channel.probabilities.sqrt() for channel in channels]
        self.roots = torch.stack([root.to(device, dtype) for root in roots])
        self.width = self.roots.shape[2]

    def __len__(self) -> int:
        return len(self.roots)

    def difference(self, out: Tensor, members: slice, rows: slice) -> None:
        _squared_distances(out, self.roots[members], rows)
        out.mul_(-1 / 2).clamp_(min=-1)

    def distance(self, out: Tensor, members: slice, rows: slice, sign: int = 1) -> None:
        self.difference(out, members, rows)
        roots = self.roots[members]
        # What two points share is a sum of positive terms, exact where it is small, and 1 - B where it is close to 1.
        shared = torch.einsum("crk,cnk->rcn", roots[:, rows], roots)
        torch.where(shared < 1 / 2, shared.log(), out.log1p(), out=out)
        out.mul_(-sign)


class Hard(Family):
    """Labels [N]."""

    def __init__(self, channels: Sequence[Channel], dtype: torch.dtype, device: torch.device):
        self.labels = torch.stack([channel.labels.to(device) for channel in channels])

    def __len__(self) -> int:
        return len(self.labels)

    def difference(self, out: Tensor, members: slice, rows: slice) -> None:
        labels = self.labels[members]
        out.copy_(labels != labels[:, rows].T.unsqueeze(2)).neg_()

    def distance(self, out: Tensor, members: slice, rows: slice, sign: int = 1) -> None:
        self.difference(out, members, rows)
        out.masked_fill_(out < 0, sign * math.inf)


class Given(Family):
    """Fingerprints that are kept whole: B - 1 [N, N]."""

    def __init__(self, channels: Sequence[Channel], dtype: torch.dtype, device: torch.device):
        self.fingerprints = [channel.fingerprint.to(device, dtype) for channel in channels]

    def __len__(self) -> int:
        return len(self.fingerprints)

    def difference(self, out: Tensor, members: slice, rows: slice) -> None:
        for place, fingerprint in enumerate(self.fingerprints[members]):
            out[:, place] = fingerprint[rows]

    def distance(self, out: Tensor, members: slice, rows: slice, sign: int = 1) -> None:
        self.difference(out, members, rows)
        out.log1p_().mul_(-sign)


def family_of(channel: Channel) -> tuple[type[Family], int]:
    """The class that computes a channel's fingerprint, and the width of its data: those with the same can be stacked."""
    if channel.kind == "gaussian" and channel.covariance is not None:
        return (SharedCovariance if channel.covariance.dim() == 2 else Full), channel.mean.shape[1]
    kinds = {"gaussian": Diagonal, "deterministic": Deterministic, "soft": Soft, "hard": Hard, "fingerprint": Given}
    return kinds[channel.kind], channel.data.shape[1] if channel.data.dim() == 2 else 1


def _squared_distances(out: Tensor, values: Tensor, rows: slice) -> None:
    """||v_i - v_j||^2 of values [c, N, d]: writes [R, c, N]. By differences: products would lose those of near points."""
    if values.shape[2] == 1:
        values = values[..., 0]
        torch.sub(values, values[:, rows].T.unsqueeze(2), out=out)
        out.mul_(out)
        return
    differences = values - values[:, rows].transpose(0, 1).unsqueeze(2)
    torch.sum(differences.square_(), 3, out=out)


def _whitened(channel: Channel) -> Tensor:
    factor = torch.linalg.cholesky(channel.covariance)
    return torch.linalg.solve_triangular(factor, _centered(channel.mean).T, upper=False).T


def _centered(values: Tensor) -> Tensor:
    return values - values.mean(0)


def _half_log_determinant(factor: Tensor) -> Tensor:
    """1/2 ln|S| from a Cholesky factor [..., d, d]."""
    return factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def _cast(tensor: Tensor, channel: Channel, dtype: torch.dtype, device: torch.device) -> Tensor:
    """In another precision. Raises `AtomError` where that cannot hold a number or its square."""
    cast = tensor.to(device, dtype)
    limit = torch.finfo(dtype).max ** 0.5
    if not (cast.abs() < limit).all():
        raise AtomError(f"{channel!r} spans more than {dtype} can hold, in units of its own noise")
    return cast
