"""A channel: a distribution p(u|x) of messages u for each of N data points x, which are taken as equally likely.

The constructors check what they are given and keep it in float64 on its device. Nothing here knows where the numbers come from.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..errors import AtomError
from .calibration import calibrate_noise, check_bits, normal_scores, score_noise
from .checks import about, check_covariance, matrix, to_tensor

MOST_LOG_VARIANCE = 300.0  # nats; beyond it the square of a ratio of variances leaves float64

NOT_ONE = 1e-4  # by which a row of probabilities may miss 1

BITS = 1.0  # of deterministic values without a noise


@dataclass(frozen=True, eq=False, repr=False)
class Channel:
    """A soft clustering of N data points. Made by `gaussian`, `deterministic`, `soft`, `hard` or `from_fingerprint`.

    All tensors are float64 (labels int64) and detached; those that a kind does not have are None.
    """

    kind: str
    """"gaussian", "deterministic", "soft", "hard" or "fingerprint"."""
    mean: Tensor | None = None
    """[N, d]: of a gaussian channel; the values of a deterministic one."""
    log_variance: Tensor | None = None
    """[N, d], in nats: of a gaussian channel with independent dimensions."""
    covariance: Tensor | None = None
    """[N, d, d], or [d, d] for one that all points share."""
    noise: float | None = None
    """Standard deviation, in the units of the values: of a deterministic channel."""
    probabilities: Tensor | None = None
    """[N, K]: of a soft channel; each row sums to 1."""
    labels: Tensor | None = None
    """int64 [N], from 0 to K - 1: of a hard channel."""
    fingerprint: Tensor | None = None
    """[N, N]: B - 1, of a channel known by its fingerprint alone."""
    name: str = ""
    run: str = ""
    """The model that it was read from: channels of an ensemble are grouped by it."""
    ids: tuple[str, ...] | None = None
    """[N], of the data points: channels with different ids are not compared."""

    @classmethod
    def gaussian(
        cls,
        mean: Any,
        log_variance: Any = None,
        *,
        covariance: Any = None,
        name: str = "",
        run: str = "",
        ids: Iterable[Any] | None = None,
    ) -> "Channel":
        """Messages u ~ N(mean, variance), as the latents of a VAE.

        Args:
            mean: [N, d]; [N] is taken as [N, 1].
            log_variance: [N, d], natural logarithm of the variance of each dimension, from -300 to 300.
            covariance: in its place, [N, d, d], or [d, d] for all points.
            name: shown in tables.
            run: the model that it was read from.
            ids: [N], by which channels are checked to be of the same points in the same order.

        Raises:
            AtomError: shapes that do not fit, numbers that are not finite, fewer than 2 points, a covariance that is not
                positive definite.
        """
        mean = matrix(mean, "mean")
        if (log_variance is None) == (covariance is None):
            given = "neither" if log_variance is None else "both"
            raise AtomError(f"a gaussian channel takes either log_variance or covariance, got {given}")
        if covariance is not None:
            return cls("gaussian", mean, covariance=check_covariance(covariance, mean), **about(mean, name, run, ids))
        log_variance = matrix(log_variance, "log_variance")
        if log_variance.shape != mean.shape:
            raise AtomError(
                f"log_variance must have the shape of mean, {tuple(mean.shape)}; got {tuple(log_variance.shape)}"
            )
        largest = float(log_variance.abs().max())
        if largest > MOST_LOG_VARIANCE:
            raise AtomError(
                f"log_variance must be from -{MOST_LOG_VARIANCE:.0f} to {MOST_LOG_VARIANCE:.0f} (the natural logarithm of the "
                f"variance); got one of magnitude {largest:.4g}"
            )
        return cls("gaussian", mean, log_variance, **about(mean, name, run, ids))

    @classmethod
    def deterministic(
        cls,
        values: Any,
        *,
        noise: float | None = None,
        bits: float | None = None,
        quantile: bool = False,
        name: str = "",
        run: str = "",
        ids: Iterable[Any] | None = None,
    ) -> "Channel":
        """Values made a channel by Gaussian noise: u ~ N(values, noise^2), as the hidden units of a network.

        The information of such a channel is set by its noise: only which points are told apart is the model's.

        Args:
            values: [N, d]; [N] is taken as [N, 1].
            noise: standard deviation, in the units of the values (of the normal scores with `quantile`).
            bits: in its place, the information to set, below log2 N; if neither is given, 1 or
                half of log2 N where that is less. Values with ties may hold less.
            quantile: replace each dimension by the normal scores of its ranks: no increasing map of a dimension then changes
                anything, and `bits` is what one dimension without ties holds, at the same noise for all channels of N points.
            name, run, ids: as of `gaussian`.

        Raises:
            AtomError: numbers that are not finite, noise that is not positive, noise and bits, bits of log2 N or more.
        """
        values = matrix(values, "values")
        if noise is not None and bits is not None:
            raise AtomError(f"a deterministic channel takes either noise or bits, got noise={noise} and bits={bits}")
        if noise is not None and not 0 < noise < math.inf:
            raise AtomError(f"noise must be a finite number above 0, got {noise}")
        fields = about(values, name, run, ids)
        if noise is None:
            bits = min(BITS, math.log2(len(values)) / 2) if bits is None else bits
            check_bits(bits, len(values))
        if quantile:
            values = normal_scores(values)
        if noise is None:
            noise = score_noise(len(values), bits) if quantile else calibrate_noise(values, bits)
        return cls("deterministic", values, noise=float(noise), **fields)

    @classmethod
    def soft(cls, probabilities: Any, *, name: str = "", run: str = "", ids: Iterable[Any] | None = None) -> "Channel":
        """Messages that are one of K clusters with given probabilities, as of a classifier.

        Args:
            probabilities: [N, K]; rows are divided by their sum, which may miss 1 by 1e-4.
            name, run, ids: as of `gaussian`.

        Raises:
            AtomError: a row that does not sum to 1, a negative probability, numbers that are not finite, fewer than 2 points.
        """
        probabilities = matrix(probabilities, "probabilities")
        if probabilities.min() < 0:
            raise AtomError(f"probabilities must not be negative, got {float(probabilities.min()):.4g}")
        total = probabilities.sum(1, keepdim=True)
        missed = (total - 1).abs().flatten()
        if missed.max() > NOT_ONE:
            row = int(missed.argmax())
            raise AtomError(
                f"probabilities of each point must sum to 1 (to {NOT_ONE}); those of point {row} sum to {float(total[row]):.6g}"
            )
        return cls("soft", probabilities=probabilities / total, **about(probabilities, name, run, ids))

    @classmethod
    def hard(cls, labels: Any, *, name: str = "", run: str = "", ids: Iterable[Any] | None = None) -> "Channel":
        """Messages that are a label: the points of a class are one, and those of different classes share nothing.

        Args:
            labels: whole numbers [N].
            name, run, ids: as of `gaussian`.

        Raises:
            AtomError: labels that are not whole numbers [N], or fewer than 2.
        """
        labels = to_tensor(labels, "labels")
        if labels.dim() != 1 or labels.is_floating_point() or labels.is_complex():
            raise AtomError(f"labels must be whole numbers [N], got {labels.dtype} {tuple(labels.shape)}")
        labels = torch.unique(labels, return_inverse=True)[1]
        return cls("hard", labels=labels, **about(labels, name, run, ids))

    @classmethod
    def from_fingerprint(
        cls, difference: Any, *, name: str = "", run: str = "", ids: Iterable[Any] | None = None
    ) -> "Channel":
        """A channel known by its fingerprint alone, as a mixture or a product of others. It has no exact measures.

        Args:
            difference: B - 1 [N, N], from -1 to 0, symmetric, with a diagonal of 0: B itself would lose small
                differences from 1.
            name, run, ids: as of `gaussian`.

        Raises:
            AtomError: a matrix that is not such a difference.
        """
        difference = matrix(difference, "difference")
        if difference.shape[0] != difference.shape[1]:
            raise AtomError(f"difference must be [N, N], got {tuple(difference.shape)}")
        rounding = 1e-9
        if (
            difference.min() < -1 - rounding
            or difference.max() > rounding
            or difference.diagonal().abs().max() > rounding
        ):
            raise AtomError("difference must be B - 1: from -1 to 0, and 0 on the diagonal")
        if (difference - difference.T).abs().max() > rounding:
            raise AtomError("difference must be symmetric")
        return cls("fingerprint", fingerprint=difference.clamp(-1, 0), **about(difference, name, run, ids))

    @property
    def data(self) -> Tensor:
        """What stands in a row for each data point: mean, probabilities, labels or fingerprint."""
        (data,) = (d for d in (self.mean, self.probabilities, self.labels, self.fingerprint) if d is not None)
        return data

    @property
    def points(self) -> int:
        """N, the number of data points."""
        return len(self.data)

    @property
    def is_discrete(self) -> bool:
        """Whether its messages are clusters, so that its measures can be computed exactly."""
        return self.kind in ("soft", "hard")

    def take(self, points: Tensor) -> "Channel":
        """The channel of some of its data points, or of all in another order. `points`: indices, int64 [n]."""

        def rows(tensor: Tensor | None, axes: int = 1) -> Tensor | None:
            if tensor is None:
                return None
            return tensor[points] if axes == 1 else tensor[points][:, points]

        covariance = self.covariance
        return replace(
            self,
            mean=rows(self.mean),
            log_variance=rows(self.log_variance),
            covariance=rows(covariance) if covariance is not None and covariance.dim() == 3 else covariance,
            probabilities=rows(self.probabilities),
            labels=rows(self.labels),
            fingerprint=rows(self.fingerprint, 2),
            ids=None if self.ids is None else tuple(self.ids[point] for point in points.tolist()),
        )

    def __repr__(self) -> str:
        named = "".join(f", {key}={value!r}" for key, value in (("name", self.name), ("run", self.run)) if value)
        return f"Channel({self.kind}, {list(self.data.shape)}{named})"
