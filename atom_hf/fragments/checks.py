"""Checks of what a channel is made from. All raise `AtomError`."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import AtomError, first_line


def about(data: Tensor, name: str, run: str, ids: Iterable[Any] | None) -> dict[str, Any]:
    """The fields of every kind of channel, checked."""
    if len(data) < 2:
        raise AtomError(f"a channel needs at least 2 data points, got {len(data)}")
    ids = None if ids is None else tuple(map(str, ids))
    if ids is not None and len(ids) != len(data):
        raise AtomError(f"ids must name each of the {len(data)} data points, got {len(ids)}")
    return {"name": str(name), "run": str(run), "ids": ids}


def to_tensor(values: Any, name: str) -> Tensor:
    """A detached tensor from a tensor, an array or nested lists, whose numbers keep their 64 bits."""
    if isinstance(values, Tensor):
        return values.detach()
    try:
        return torch.as_tensor(np.asarray(values))
    except (TypeError, ValueError, RuntimeError) as error:
        raise AtomError(f"{name} must be a tensor, an array or nested lists of numbers: {first_line(error)}") from error


def _floats(values: Any, name: str) -> Tensor:
    values = to_tensor(values, name)
    if values.is_complex():
        raise AtomError(f"{name} must be real numbers, got {values.dtype}")
    values = values.to(torch.float64)
    if not values.isfinite().all():
        count = int((~values.isfinite()).sum())
        raise AtomError(f"{name} must be finite numbers, got {count} that are NaN or infinite")
    return values


def matrix(values: Any, name: str) -> Tensor:
    """[N, d] in float64; [N] becomes [N, 1]."""
    values = _floats(values, name)
    if values.dim() == 1:
        values = values.unsqueeze(1)
    if values.dim() != 2 or 0 in values.shape:
        raise AtomError(f"{name} must be [N, d], a row for each data point; got {tuple(values.shape)}")
    return values


def check_covariance(covariance: Any, mean: Tensor) -> Tensor:
    """A covariance [N, d, d] or [d, d] for `mean` [N, d], in float64. Raises `AtomError` for what is none."""
    covariance = _floats(covariance, "covariance")
    points, d = mean.shape
    if tuple(covariance.shape) not in ((d, d), (points, d, d)):
        raise AtomError(f"covariance must be [{points}, {d}, {d}] or [{d}, {d}], got {tuple(covariance.shape)}")
    if not torch.allclose(covariance, covariance.mT, rtol=1e-9, atol=0):
        raise AtomError("covariance must be symmetric")
    failed = torch.linalg.cholesky_ex(covariance).info.reshape(-1).nonzero().flatten()
    if len(failed):
        whose = f" of point {int(failed[0])}" if covariance.dim() == 3 else ""
        raise AtomError(f"covariance must be positive definite; the one{whose} is not")
    return covariance
