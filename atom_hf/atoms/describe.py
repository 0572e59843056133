"""Tokens to atoms: Eqs. 9 to 11 of energy.py, with a hand-written gradient.

Everything is computed in float32 or wider, with autocast off, as in closed_form.py.
"""

import torch
from torch import Tensor

# On a CPU positions are processed in blocks of samples of about this many entries, which fit in its cache.
CACHED_ENTRIES = 2**20


class Describe(torch.autograd.Function):
    """Packed atoms [B, h + 3], with columns Z+, Z-, r and mu, of tokens. Eqs. 9 to 11.

    The gradient is explicit, because autograd would save three more tensors as large as the positions. With
    `w_i = (1 - m_i) / ||p_i - mu||`, `g` the incoming gradients and `G = g_mu - (g_r / N) sum_i w_i (p_i - mu)`, the total
    gradient of the centre:

        dL/dp_i       = (g_r / N) w_i (p_i - mu) + (m_i / N) G
        dL/d(1 - m_i) = (g_r / N) ||p_i - mu|| - (1 / N) <G, p_i>
    """

    @staticmethod
    def forward(ctx, importance: Tensor, position: Tensor, mask: Tensor | None, mean: bool):
        with torch.autocast(importance.device.type, enabled=False):
            dtype = torch.promote_types(torch.promote_types(importance.dtype, position.dtype), torch.float32)
            q, n, hole = importance.to(dtype), importance.shape[1], None
            if mask is not None:
                hole = ~mask
                q = q.masked_fill(hole, 0)
                count = mask.sum(1, keepdim=True)
                n = count.clamp(min=1).to(dtype)
            proton = torch.relu(q)
            electron = proton - q  # 1 - m_i, and so m_i = 1 - electron: Eq. 11
            weight = (1 - electron) / n
            if hole is not None:
                weight = weight.masked_fill(hole, 0)
            center, distance = position.new_empty(len(q), 1, position.shape[2], dtype=dtype), torch.empty_like(q)
            for rows in _sample_blocks(position):
                p = _tokens_of(position, hole, rows, dtype)
                torch.bmm(weight[rows].unsqueeze(1), p, out=center[rows])  # Eq. 9
                torch.linalg.vector_norm(_minus(p, center[rows], hole), dim=2, out=distance[rows])
            scalars = torch.stack([proton, electron, electron * distance], dim=1).sum(2)
            if mean:
                scalars = scalars / n
            else:
                scalars[:, 2:] /= n  # Eq. 10
            if mask is not None:
                scalars[:, 2:].masked_fill_(count == 0, -1)
        ctx.save_for_backward(position, hole, electron, weight, center, distance, n if torch.is_tensor(n) else None)
        ctx.mean, ctx.dtype = mean, importance.dtype
        return torch.cat([scalars, center.squeeze(1)], dim=1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor):
        position, hole, electron, weight, mu, distance, n = ctx.saved_tensors
        n = electron.shape[1] if n is None else n
        with torch.autocast(mu.device.type, enabled=False):
            scalars, center = gradient[:, :3], gradient[:, 3:].unsqueeze(1)
            over_n = scalars / n
            positive, negative = (over_n if ctx.mean else scalars)[:, :2].split(1, dim=1)
            outer = over_n[:, 2:]
            # A token exactly on the centre has offset 0, whatever this weight is.
            pull = electron / distance.clamp(min=torch.finfo(mu.dtype).tiny ** 0.5) * outer
            along, gradient = torch.empty_like(electron), torch.empty_like(position)
            for rows in _sample_blocks(position):
                offset = _minus(_tokens_of(position, hole, rows, mu.dtype), mu[rows], hole)
                whole = torch.baddbmm(center[rows], pull[rows].unsqueeze(1), offset, alpha=-1)  # G
                shift = torch.bmm(whole, mu[rows].mT)
                torch.baddbmm(shift, offset, whole.mT, out=along[rows].unsqueeze(2))  # <G, p_i>
                offset.mul_(pull[rows].unsqueeze(2))
                if gradient.dtype == mu.dtype:
                    torch.baddbmm(offset, weight[rows].unsqueeze(2), whole, out=gradient[rows])
                else:
                    gradient[rows] = _narrow(offset.baddbmm_(weight[rows].unsqueeze(2), whole), position.dtype)
            gain = torch.addcmul(along / n - negative, outer, distance, value=-1)  # dL/dq of a negative charge
            importance = torch.where(electron > 0, gain, positive)
            if hole is not None:
                importance = importance.masked_fill(hole, 0)
        return _narrow(importance, ctx.dtype), gradient, None, None


def _sample_blocks(position: Tensor) -> list[slice]:
    """Slices of the samples of [B, N, h] to process at once."""
    size = len(position)
    rows = size if position.device.type != "cpu" else CACHED_ENTRIES // max(1, position[:1].numel())
    return [slice(i, i + max(1, rows)) for i in range(0, size, max(1, rows))]


def _tokens_of(position: Tensor, hole: Tensor | None, rows: slice, dtype: torch.dtype) -> Tensor:
    """The positions of some samples in `dtype`; with holes, a copy that is 0 where there is no token."""
    position = position[rows]
    if hole is None:
        return position.to(dtype)
    if position.device.type != "cpu":  # indexing would synchronize an accelerator
        return position.to(dtype).masked_fill(hole[rows].unsqueeze(2), 0)
    copy = position.to(dtype, copy=True)
    copy[hole[rows].nonzero(as_tuple=True)] = 0
    return copy


def _minus(p: Tensor, center: Tensor, hole: Tensor | None) -> Tensor:
    """p - mu, in the place of p where `_tokens_of` made a copy."""
    return p - center if hole is None else p.sub_(center)


def _narrow(gradient: Tensor, dtype: torch.dtype) -> Tensor:
    """Cast a gradient to the dtype of its input, clamped to the largest finite number."""
    if gradient.dtype == dtype:
        return gradient
    largest = torch.finfo(dtype).max
    return gradient.clamp(-largest, largest).to(dtype)
