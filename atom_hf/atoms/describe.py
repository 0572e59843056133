"""Atoms of tokens: Eqs. 9 to 11 in closed form, with a hand-written gradient.

Everything is computed in float32 or wider, with autocast off: sums of squares overflow in float16. (Where TF32 is enabled,
a GPU's matrix products use it.)
"""

# Gradients by hand rather than by autograd, which would save tensors several times as large as the positions, and launch more
# operations: of a small model these are what a step with atoms costs.

import functools

import torch
from torch import Tensor

# On a CPU positions are processed in blocks of samples of about this many entries, which fit in its cache.
CACHED_ENTRIES = 2**20


class Describe(torch.autograd.Function):
    """Packed atoms [B, 3 + h] of tokens: Z+, Z-, r and mu. Eqs. 9 to 11.

    With `w_i = (1 - m_i) / ||p_i - mu||`, `g` the incoming gradients and `G = g_mu - (g_r / N) sum_i w_i (p_i - mu)`, the total
    gradient of the centre:

        dL/dp_i       = (g_r / N) w_i (p_i - mu) + (m_i / N) G
        dL/d(1 - m_i) = (g_r / N) ||p_i - mu|| - (1 / N) <G, p_i>
    """

    @staticmethod
    def forward(ctx, importance: Tensor, position: Tensor, mask: Tensor, mean: bool):
        with torch.autocast(importance.device.type, enabled=False):
            dtype = torch.promote_types(torch.promote_types(importance.dtype, position.dtype), torch.float32)
            count = mask.sum(1, keepdim=True, dtype=dtype)
            n = count.clamp(min=1)
            share = mask / n  # 1 / N for each token of an atom
            q = torch.where(mask, importance, 0.0).to(dtype)
            # max(q, 0) / N and max(-q, 0) / N: the second is (1 - m) / N, by Eq. 11.
            charges = torch.relu_((q * share).unsqueeze(1) * _signs(q.device, dtype))
            electron = charges[:, 1]
            weight = share - electron  # m / N
            packed = position.new_empty(len(q), position.shape[2] + 3, dtype=dtype)
            offset, distance = torch.empty_like(position, dtype=dtype), torch.empty_like(q)
            center = packed[:, 3:].unsqueeze(1)
            for rows in _sample_blocks(position):
                p = torch.where(mask[rows].unsqueeze(2), position[rows], 0.0).to(dtype)
                torch.bmm(weight[rows].unsqueeze(1), p, out=center[rows])  # Eq. 9
                torch.sub(p, center[rows], out=offset[rows])
                torch.linalg.vector_norm(offset[rows], dim=2, out=distance[rows])
            radius = torch.linalg.vecdot(electron, distance).unsqueeze(1)  # Eq. 10
            torch.add(radius, count - n, out=packed[:, 2:3])  # -1 without a token
            torch.sum(charges, 2, out=packed[:, :2])
            if not mean:
                packed[:, :2] *= count
        ctx.save_for_backward(count, share, q, electron, weight, packed, offset, distance)
        ctx.mean, ctx.dtypes = mean, (importance.dtype, position.dtype)
        return packed

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, packed: Tensor):
        count, share, q, electron, weight, atoms, offset, distance = ctx.saved_tensors
        with torch.autocast(q.device.type, enabled=False):
            charges, outer, center = packed[:, :2], packed[:, 2:3], packed[:, None, 3:]
            if not ctx.mean:
                charges = charges * count
            mu = atoms[:, 3:].unsqueeze(2)
            # A token exactly on the centre has offset 0, whatever this weight is.
            pull = outer * electron / distance.clamp(min=torch.finfo(q.dtype).tiny ** 0.5)
            gradient = torch.empty_like(offset, dtype=ctx.dtypes[1])
            along = torch.empty_like(q).unsqueeze(2)
            for rows in _sample_blocks(offset):
                whole = torch.baddbmm(center[rows], pull[rows].unsqueeze(1), offset[rows], alpha=-1)  # G
                shift = torch.baddbmm(charges[rows, 1:].unsqueeze(2), whole, mu[rows], beta=-1)
                torch.baddbmm(shift, offset[rows], whole.mT, out=along[rows])  # <G, p_i> - dL/dZ-
                moved = (offset[rows] * pull[rows].unsqueeze(2)).baddbmm_(weight[rows].unsqueeze(2), whole)
                gradient[rows] = _narrow(moved, ctx.dtypes[1])
            slope = torch.addcmul(along.squeeze(2), outer, distance, value=-1)
            importance = torch.where(q >= 0, charges[:, :1], slope) * share
        return _narrow(importance, ctx.dtypes[0]), gradient, None, None


@functools.lru_cache(maxsize=8)
def _signs(device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor([[1.0], [-1.0]], device=device, dtype=dtype)


def _sample_blocks(position: Tensor) -> list[slice]:
    """Slices of the samples of [B, N, h] to process at once."""
    size = len(position)
    rows = size if position.device.type != "cpu" else CACHED_ENTRIES // max(1, position[:1].numel())
    return [slice(i, i + max(1, rows)) for i in range(0, size, max(1, rows))]


def _narrow(gradient: Tensor, dtype: torch.dtype) -> Tensor:
    """Cast a gradient to the dtype of its input, clamped to the largest finite number."""
    if gradient.dtype == dtype:
        return gradient
    largest = torch.finfo(dtype).max
    return gradient.clamp(-largest, largest).to(dtype)
