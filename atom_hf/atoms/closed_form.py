"""Closed-form computation of the pairs of energy.py, with hand-written gradients.

Everything is computed in float32 or wider, with autocast off: sums of squares overflow in float16. (Where TF32 is enabled,
a GPU's matrix products use it.)
"""

# Gradients by hand rather than by autograd, which would save tensors many times as large, of size [B, B].

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

# Pair matrices with more entries than this are built in blocks of rows.
BLOCK_ENTRIES = 2**24

# Differences of centres with more entries than this give way to matrix products: on a CPU when they leave its cache, which
# makes each pass over them several times as long.
MOST_DIFFERENCES = {"cpu": 2**20}


class WithGradient(torch.autograd.Function):
    """Autograd function of sets of packed atoms [K, B, h + 3] whose gradient is computed along with the value.

    `compute(wanted, packed)` returns values [K], the first of which have a gradient, and, if `wanted`, that gradient
    [K, B, h + 3], else None. It costs little more than the values, and nothing of size [B, B] has to be saved for the
    backward pass.
    """

    @staticmethod
    def forward(ctx, compute: Callable[..., tuple], packed: Tensor):
        with torch.autocast(packed.device.type, enabled=False):
            *values, gradient = compute(ctx.needs_input_grad[1], packed)
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(*values[1:])
        ctx.set_materialize_grads(False)  # autograd would make zeros for the other values
        return tuple(values)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, scale: Tensor | None, *_rest: None):
        (gradient,) = ctx.saved_tensors
        return None, None if scale is None else scale.view(-1, 1, 1) * gradient


class Existing(NamedTuple):
    """Which atoms exist: a sample without a token is none."""

    mask: Tensor | None
    """1 or 0 [K, B]; None if all exist."""
    number: Tensor | float
    """How many, [K] or the same in each set."""

    @classmethod
    def among(cls, packed: Tensor, complete: bool) -> "Existing":
        """Those of sets [K, B, h + 3], where `complete` says that there is no other."""
        if complete:
            return cls(None, float(packed.shape[1]))
        mask = (packed[..., 2] >= 0).to(packed.dtype)
        return cls(mask, mask.sum(1))

    def at_least_one(self, less: int = 0) -> Tensor | float:
        """The number, or `less` below it, but no less than 1; [K, 1, 1] or the same in each set."""
        if self.mask is None:
            return max(self.number - less, 1.0)
        return (self.number - less).clamp(min=1).view(-1, 1, 1)

    def centered(self, center: Tensor) -> Tensor:
        """Centres [K, B, h] about their mean, and 0 where there is no atom."""
        if self.mask is None:
            return center - center.mean(1, keepdim=True)
        mean = torch.bmm(self.mask.unsqueeze(1), center) / self.at_least_one()
        return (center - mean) * self.mask.unsqueeze(2)


def mean_over_pairs(
    packed: Tensor, existing: Existing, softening: tuple[float, ...], with_gradient: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The mean energy and distance [K] over ordered pairs A != B of K sets, and the gradient of the first. Eqs. 5, 7 and 8.

    The sum is symmetric in A and B, so the gradient of an atom is twice that of its row.

    Args:
        packed: [K, B, h + 3], sets of atoms as `Describe` makes them; pairs are those within a set.
        existing: those that exist.
        softening: of each set.
        with_gradient: False leaves the gradient [K, B, h + 3] out, which is None then.
    """
    charge, radius, center = packed.split([2, 1, packed.shape[2] - 3], dim=2)
    size = len(packed) * packed.shape[1]
    rows = max(1, BLOCK_ENTRIES // max(1, size))
    if min(rows, packed.shape[1]) * center.numel() > _most_differences(center.device):
        # Distances by a matrix product lose precision under a large common offset, on which no distance depends.
        center = existing.centered(center)
    radius = radius.squeeze(2) if existing.mask is None else radius.squeeze(2).clamp(min=0)
    parts = (charge, center, radius, existing.mask)
    blocks = [
        _row_sums(
            tuple(part if part is None else part[:, i : i + rows] for part in parts), parts, i, softening, with_gradient
        )
        for i in range(0, max(1, packed.shape[1]), rows)
    ]
    energies, distances, gradients = zip(*blocks, strict=True)
    pairs = existing.at_least_one() * existing.at_least_one(less=1)
    gradient = None
    if with_gradient:
        gradient = (gradients[0] if len(blocks) == 1 else torch.cat(gradients, dim=1)).mul_(2 / pairs)
    pairs = pairs.view(-1) if torch.is_tensor(pairs) else pairs
    return _sum(energies) / pairs, _sum(distances) / pairs, gradient


def relative_mean_over_pairs(
    packed: Tensor, existing: Existing, softening: tuple[float, ...], relative: tuple[bool, ...], with_gradient: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """`mean_over_pairs` of atoms in units of the scale of their own distances (ours), in the sets that are `relative`.

        s = sqrt(mean over A != B of ||mu_A - mu_B||^2)

    which is twice the variance of the n centres times n / (n - 1), so O(B h). Where all centres coincide, s is next to 0 and
    mu / s is 0: what coincides then stays where it is. The scale has its own part in the gradient. With `g` that of the energy
    with respect to mu / s and r / s:

        dL/dmu = (g_mu - 2 / (n - 1) * (sum_A <g_mu_A, mu_A / s> + g_r_A r_A / s) * mu / s) / s

    The distance that is returned is not divided by s.
    """
    half = existing.at_least_one(less=1) / 2
    center = existing.centered(packed[..., 3:])
    scale = torch.linalg.vector_norm(center, dim=(1, 2), keepdim=True) / half**0.5
    scale = scale.clamp(min=torch.finfo(center.dtype).tiny ** 0.5)
    absolute = None
    if not all(relative):
        absolute = constant(tuple(not each for each in relative), torch.bool, packed.device)
        scale = scale.masked_fill_(absolute, 1)
    scaled = torch.cat([packed[..., 2:3], center], dim=2) / scale
    energy, distance, gradient = mean_over_pairs(
        torch.cat([packed[..., :2], scaled], dim=2), existing, softening, with_gradient
    )
    if with_gradient:
        along = (gradient[..., 2:] * scaled).sum((1, 2), keepdim=True) / half
        if absolute is not None:
            along.masked_fill_(absolute, 0)
        gradient[..., 3:].addcmul_(scaled[..., 1:], along, value=-1)
        gradient[..., 2:] /= scale
    return energy, distance * scale.view(-1), gradient


def _row_sums(
    rows: tuple, columns: tuple, offset: int, softening: tuple[float, ...], with_gradient: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The sums of U_AB and D_AB over A in `rows`, B in `columns`, A != B, and the first's gradient for each row.

    Atoms are (charges [K, ., 2], centre [K, ., h], radius [K, .], 1 or 0 [K, .] for whether they exist, or None for all of
    them). Row 0 is column `offset`.
    """
    (charge, center, radius, exists), (charges, centers, radii, exist) = rows, columns
    everyone = exists is None
    pairs = center.new_ones(charge.shape[1], charges.shape[1]) if everyone else exists.unsqueeze(2) * exist.unsqueeze(1)
    pairs.diagonal(offset, -2, -1).zero_()  # A != B

    differences = None
    if center.shape[1] * centers.numel() <= _most_differences(center.device):
        differences = center.unsqueeze(2) - centers.unsqueeze(1)
        squared = torch.linalg.vector_norm(differences, dim=-1).square_()
    else:
        squares = center.square().sum(2, keepdim=True) + centers.square().sum(2).unsqueeze(1)
        squared = torch.baddbmm(squares, center, centers.mT, alpha=-2).clamp_(min=0)
    softened = len(set(softening)) == 1 or constant(tuple(each**2 for each in softening), center.dtype, center.device)
    squared += softening[0] ** 2 if softened is True else softened
    smallest = torch.finfo(center.dtype).eps ** 2
    apart = None if min(softening) ** 2 > smallest else squared > smallest
    distance = (squared if apart is None else squared.clamp(min=smallest)).sqrt()  # Eq. 7
    near = pairs / distance
    far = pairs / distance.add(radius.unsqueeze(2) + radii.unsqueeze(1), alpha=0.5)  # Eq. 8
    swapped = charges.flip(2)
    like, opposite = torch.bmm(charge, charges.mT) * near, torch.bmm(charge, swapped.mT) * far
    energy = (like - opposite).sum((1, 2))  # Eq. 5
    apart_by = (distance * pairs).sum((1, 2))
    if not with_gradient:
        return energy, apart_by, None

    outer = opposite * far  # dU/d(token distance) of opposite charges
    slope = torch.addcmul(outer, like, near, value=-1).div_(distance)  # dU/dD, over D
    if apart is not None:
        slope *= apart
    if differences is None:
        pull = slope.sum(2, keepdim=True) * center - slope @ centers
    else:
        pull = (slope.unsqueeze(2) @ differences).squeeze(2)
    field = torch.baddbmm(torch.bmm(near, charges), far, swapped, alpha=-1)
    return energy, apart_by, torch.cat([field, outer.sum(2, keepdim=True) / 2, pull], dim=2)


def _most_differences(device: torch.device) -> int:
    return min(BLOCK_ENTRIES, MOST_DIFFERENCES.get(device.type, BLOCK_ENTRIES))


@functools.lru_cache(maxsize=64)
def constant(values: tuple, dtype: torch.dtype, device: torch.device) -> Tensor:
    """One value for each set, [K, 1, 1], or a tuple for each, [K, 1, n]. Copied once: each copy synchronizes an accelerator."""
    return torch.tensor(values, dtype=dtype, device=device).view(len(values), 1, -1)


def _sum(parts: tuple[Tensor, ...]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)
