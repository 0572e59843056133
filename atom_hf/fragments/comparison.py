"""What a comparison of channels found."""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

INFORMATIVE = 0.01  # bits

NO_ROOM = 1e-9  # of NMI, between chance and 1


@dataclass(frozen=True, eq=False)
class Comparison:
    """Measures of C channels, and of each with each of D others (the same channels if none were given).

    In bits where they have a unit, float64, on the CPU, never NaN. None of the measures of pairs is a bound. NMI may exceed 1
    and an exact VI may be negative; both are reported as they are. VI is no metric: neither it nor its root obeys the triangle
    inequality. With few points I and VI run low, NMI high.
    """

    information: Tensor
    """[C], I(X;U): a lower bound on the information about these N points, at most log2 N."""
    shared: Tensor
    """[C, D], S: an estimate of I(U;V). On the diagonal, S_uu: I(U;U') with a second message about the same point."""
    nmi: Tensor
    """[C, D], S_uv / sqrt(S_uu S_vv). A channel of less than 1e-6 bits has 1 with itself and 0 with all others."""
    vi: Tensor
    """[C, D], S_uu + S_vv - 2 S_uv."""
    other_information: Tensor
    """[D], I(X;V)."""
    points: int
    """N."""
    estimator: str
    """As it was asked for."""
    information_error: Tensor | None = None
    """[C], one standard error: jackknife over ten groups of points; of Monte Carlo, that of the draws. None if not wanted."""
    shared_error: Tensor | None = None
    """[C, D]."""
    nmi_error: Tensor | None = None
    """[C, D]; infinite where the draws of Monte Carlo cannot tell S_uu from 0."""
    vi_error: Tensor | None = None
    """[C, D]."""
    chance: Tensor | None = None
    """[C, D]: mean NMI with the points of each channel permuted independently; 1 for a channel with itself."""

    @property
    def informative(self) -> Tensor:
        """bool [C]: at least 0.01 bits."""
        return self.information >= INFORMATIVE

    @property
    def saturated(self) -> Tensor:
        """bool [C]: more than half of log2 N, where chance alone makes NMI large."""
        return self.information > torch.tensor(self.points).log2() / 2

    def take(self, channels: Tensor) -> "Comparison":
        """The part about some channels, in a comparison of channels with themselves. `channels`: int64 [c]."""
        parts = {
            field.name: value[channels] if value.dim() == 1 else value[channels][:, channels]
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return replace(self, **parts)

    @property
    def joint(self) -> Tensor:
        """[C, D], I(X;U,V) = I(X;U) + I(X;V) - S_uv, of messages that are independent given the point."""
        return self.information.unsqueeze(1) + self.other_information - self.shared

    @property
    def adjusted(self) -> Tensor | None:
        """[C, D], (NMI - chance) / (1 - chance): 0 at chance. None without `chance`.

        Where chance leaves no room below 1 it is 1 for a channel with itself, and 0 for others: nothing can be said.
        """
        if self.chance is None:
            return None
        room = 1 - self.chance
        full = room <= NO_ROOM
        adjusted = (self.nmi - self.chance) / room.masked_fill(full, 1.0)
        return torch.where(full, (self.nmi == 1).to(adjusted), adjusted)
