"""What every estimator gives: the information of channels and of pairs of them."""

from typing import NamedTuple

from torch import Tensor


class Estimate(NamedTuple):
    """Information in nats, float64 on the CPU. The first axis has the estimate, then those without each group of points."""

    information: Tensor
    """[1 + G, C], I(X;U)."""
    other_information: Tensor
    """[1 + G, D], I(X;V)."""
    own: Tensor
    """[1 + G, C], S_uu."""
    other: Tensor
    """[1 + G, D], S_vv."""
    shared: Tensor
    """[1 + G, C, D], S_uv."""
