"""Closed-form computation of energy.py, with hand-written gradients.

Everything is computed in float32 or wider, with autocast off: sums of squares overflow in float16. (Where TF32 is enabled,
a GPU's matrix products use it.)
"""

# Gradients by hand rather than by autograd, which would save tensors many times as large, of size [B, B] and [B, N, h].

from collections.abc import Callable

import torch
from torch import Tensor

# Pair matrices with more entries than this are built in blocks of rows.
BLOCK_ENTRIES = 2**24

# On a CPU positions are processed in blocks of samples of about this many entries, which fit in its cache.
CACHED_ENTRIES = 2**20


class Describe(torch.autograd.Function):
    """(Z+ [B], Z- [B], mu [B, h], r [B]) of tokens. Eqs. 9 to 11.

    The gradient is explicit, because autograd would save three more tensors as large as the positions. With
    `w_i = (1 - m_i) / ||p_i - mu||`, `g` the incoming gradients and `G = g_mu - (g_r / N) sum_i w_i (p_i - mu)`, the total
    gradient of the centre:

        dL/dp_i       = (g_r / N) w_i (p_i - mu) + (m_i / N) G
        dL/d(1 - m_i) = (g_r / N) ||p_i - mu|| - (1 / N) <G, p_i>
    """

    @staticmethod
    def forward(ctx, importance: Tensor, position: Tensor, mask: Tensor, mean: bool):
        with torch.autocast(importance.device.type, enabled=False):
            dtype = torch.promote_types(torch.promote_types(importance.dtype, position.dtype), torch.float32)
            hole = ~mask
            q = importance.to(dtype).masked_fill(hole, 0)
            count = mask.sum(1, keepdim=True)
            n = count.clamp(min=1).to(dtype)
            electron = torch.relu(-q)  # 1 - m_i, and so m_i = 1 - electron: Eq. 11
            weight = ((1 - electron) / n).masked_fill(hole, 0)
            center, distance = position.new_empty(len(q), 1, position.shape[2], dtype=dtype), torch.empty_like(q)
            for rows in _sample_blocks(position):
                p = _without_holes(position[rows], hole[rows], dtype)
                torch.bmm(weight[rows].unsqueeze(1), p, out=center[rows])  # Eq. 9
                torch.linalg.vector_norm(p.sub_(center[rows]), dim=2, out=distance[rows])
            radius = torch.bmm(electron.unsqueeze(1), distance.unsqueeze(2)).view(-1) / n.view(-1)  # Eq. 10
            radius = radius.masked_fill(count.view(-1) == 0, -1)
            charges = torch.relu(q).sum(1), electron.sum(1)
            if mean:
                charges = tuple(charge / n.view(-1) for charge in charges)
        ctx.save_for_backward(position, hole, q, n, electron, weight, center, distance, radius)
        ctx.mean, ctx.dtype = mean, importance.dtype
        return *charges, center.squeeze(1), radius

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, positive: Tensor, negative: Tensor, center: Tensor, radius: Tensor):
        position, hole, q, n, electron, weight, mu, distance, size = ctx.saved_tensors
        with torch.autocast(q.device.type, enabled=False):
            charges = torch.stack([positive, negative], dim=1)
            positive, negative = (charges / n if ctx.mean else charges).split(1, dim=1)
            outer = (radius * (size >= 0)).unsqueeze(1) / n
            # A token exactly on the centre has offset 0, whatever this weight is.
            pull = outer * electron / distance.clamp(min=torch.finfo(q.dtype).tiny ** 0.5)
            center, along, gradient = center.unsqueeze(1), torch.empty_like(q), torch.empty_like(position)
            for rows in _sample_blocks(position):
                offset = _without_holes(position[rows], hole[rows], q.dtype).sub_(mu[rows])
                whole = torch.baddbmm(center[rows], pull[rows].unsqueeze(1), offset, alpha=-1)  # G
                shift = torch.bmm(whole, mu[rows].mT)
                along[rows] = torch.baddbmm(shift, offset, whole.mT).squeeze(2)  # <G, p_i>
                offset.mul_(pull[rows].unsqueeze(2)).baddbmm_(weight[rows].unsqueeze(2), whole)
                gradient[rows] = _narrow(offset, position.dtype)
            electron = torch.addcmul(negative - along / n, outer, distance)
            importance = torch.where(q >= 0, positive, -electron).masked_fill(hole, 0)
        return _narrow(importance, ctx.dtype), gradient, None, None


class WithGradient(torch.autograd.Function):
    """Autograd function of atoms whose gradient is computed along with the value.

    `compute(wanted, *atoms)` returns values, the first of which has a gradient, and, if `wanted`, that gradient with respect to
    the charges [B, 2], the centres and the radii. It costs little more than the value, and nothing of size [B, B] has to be
    saved for the backward pass.
    """

    @staticmethod
    def forward(ctx, compute: Callable[..., tuple], *atoms: Tensor):
        wanted = any(ctx.needs_input_grad)
        with torch.autocast(atoms[0].device.type, enabled=False):
            *values, gradient = compute(wanted, *atoms)
        if wanted:
            ctx.save_for_backward(*gradient)
        ctx.mark_non_differentiable(*values[1:])
        return tuple(values)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, scale: Tensor, *_rest: Tensor):
        charges, center, radius = (scale * gradient for gradient in ctx.saved_tensors)
        return None, charges[:, 0], charges[:, 1], center, radius


def mean_over_pairs(
    positive: Tensor, negative: Tensor, center: Tensor, radius: Tensor, softening: float, with_gradient: bool
) -> tuple:
    """The mean energy and distance over ordered pairs A != B, and the gradient of the first. Eqs. 5, 7 and 8.

    The sum is symmetric in A and B, so the gradient of an atom is twice that of its row.
    """
    exists = (radius >= 0).to(center.dtype)
    count = exists.sum()
    pairs = (count * (count - 1)).clamp(min=1)
    charge = torch.stack([positive, negative], dim=1)
    parts = (charge, center, radius.clamp(min=0) / 2, exists)
    size = len(center)
    rows = max(1, BLOCK_ENTRIES // max(1, size))
    if min(rows, size) * center.numel() > BLOCK_ENTRIES:
        # Distances by a matrix product lose precision under a large common offset, on which no distance depends.
        parts = (charge, center - exists @ center / count.clamp(min=1), *parts[2:])
    blocks = [
        _row_sums(tuple(part[i : i + rows] for part in parts), parts, i, softening, with_gradient)
        for i in range(0, max(1, size), rows)
    ]
    energies, distances, *gradient = zip(*blocks, strict=True)
    gradient = [torch.cat(part) * (2 / pairs) for part in gradient]
    return sum(energies) / pairs, sum(distances) / pairs, gradient


def relative_to_scale(center: Tensor, radius: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(mu / s, r / s, s): atoms in units of the scale of their own distances (ours).

        s = sqrt(mean over A != B of ||mu_A - mu_B||^2)

    which is twice the variance of the n centres times n / (n - 1), so O(B h). Where all centres coincide, s is next to 0 and
    mu / s is 0: what coincides then stays where it is.
    """
    exists = (radius >= 0).to(center.dtype)
    count = exists.sum()
    center = (center - exists @ center / count.clamp(min=1)) * exists.unsqueeze(1)
    scale = (center.square().sum() * (2 / (count - 1).clamp(min=1))).clamp(min=torch.finfo(center.dtype).tiny).sqrt()
    return center / scale, torch.where(radius >= 0, radius / scale, radius), scale


def through_scale(pull: Tensor, push: Tensor, center: Tensor, radius: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients with respect to mu and r, of those with respect to mu / s and r / s. The scale has its own part in them:

        dL/dmu = (pull - 2 / (n - 1) * (sum_A <pull_A, mu_A / s> + push_A r_A / s) * mu / s) / s

    Args:
        pull, push: [B, h] and [B], the gradients with respect to mu / s and r / s.
        center, radius, scale: what `relative_to_scale` gave.
    """
    exists = (radius >= 0).to(center.dtype)
    push = push * exists
    along = (pull * center).sum() + (push * radius).sum()
    spread = 2 / (exists.sum() - 1).clamp(min=1) * along
    return torch.addcmul(pull, center, -spread) / scale, push / scale


def _row_sums(rows: tuple, columns: tuple, offset: int, softening: float, with_gradient: bool) -> tuple:
    """The sums of U_AB and D_AB over A in `rows`, B in `columns`, A != B, and the first's gradient for each row.

    Atoms are (charges [., 2], centre [., h], half the radius [.], 1 or 0 [.] for whether they exist). Row 0 is column `offset`.
    """
    (charge, center, radius, exists), (charges, centers, radii, exist) = rows, columns
    swapped = charges.flip(1)
    pairs = torch.outer(exists, exist)
    pairs.diagonal(offset).zero_()  # A != B

    differences = None
    if len(center) * centers.numel() <= BLOCK_ENTRIES:
        differences = center.unsqueeze(1) - centers.unsqueeze(0)
        squared = torch.linalg.vector_norm(differences, dim=-1).square()
    else:
        squares = center.square().sum(1, keepdim=True) + centers.square().sum(1)
        squared = torch.addmm(squares, center, centers.T, alpha=-2).clamp_(min=0)
    squared = squared + softening**2
    smallest = torch.finfo(center.dtype).eps ** 2
    distance = squared.clamp(min=smallest).sqrt()  # Eq. 7
    near = pairs / distance
    far = pairs / (distance + (radius.unsqueeze(1) + radii))  # Eq. 8
    like, opposite = charge @ charges.T * near, charge @ swapped.T * far
    sums = (like - opposite).sum(), (distance * pairs).sum()  # Eq. 5
    if not with_gradient:
        return sums

    outer = opposite * far  # dU/d(token distance) of opposite charges
    slope = (outer - like * near) / distance * (squared > smallest)  # dU/dD, over D
    if differences is None:
        pull = slope.sum(1, keepdim=True) * center - slope @ centers
    else:
        pull = torch.bmm(slope.unsqueeze(1), differences).squeeze(1)
    return *sums, torch.addmm(near @ charges, far, swapped, alpha=-1), pull, outer.sum(1) / 2


def _sample_blocks(position: Tensor) -> list[slice]:
    """Slices of the samples of [B, N, h] to process at once."""
    size = len(position)
    rows = size if position.device.type != "cpu" else CACHED_ENTRIES // max(1, position[:1].numel())
    return [slice(i, i + max(1, rows)) for i in range(0, size, max(1, rows))]


def _without_holes(position: Tensor, hole: Tensor, dtype: torch.dtype) -> Tensor:
    """A copy in `dtype` that is 0 where there is no token."""
    if position.device.type != "cpu":  # indexing would synchronize an accelerator
        return position.to(dtype).masked_fill(hole.unsqueeze(2), 0)
    copy = position.to(dtype, copy=True)
    copy[hole.nonzero(as_tuple=True)] = 0
    return copy


def _narrow(gradient: Tensor, dtype: torch.dtype) -> Tensor:
    """Cast a gradient to the dtype of its input, clamped to the largest finite number."""
    if gradient.dtype == dtype:
        return gradient
    largest = torch.finfo(dtype).max
    return gradient.clamp(-largest, largest).to(dtype)
