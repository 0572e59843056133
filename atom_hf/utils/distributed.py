"""Gather rows over processes, with their gradient, and sum over processes."""

import torch
import torch.distributed as dist
from torch import Tensor


def processes() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_first_process() -> bool:
    """Whether this process is the first, or the only one."""
    return processes() == 1 or dist.get_rank() == 0


def gather_rows(rows: Tensor) -> Tensor:
    """Concatenate the rows [b, k] of all processes in the order of ranks; `rows` itself on one process.

    For a loss that every process computes alike from all rows: each process then knows its gradient without communication.
    A process's own rows receive it times the number of processes, so that, averaged over processes as DDP and FSDP do, it is
    the gradient of a single process with the whole batch. Processes may hold different numbers of rows.
    """
    if processes() == 1:
        return rows
    sizes = [torch.zeros(1, dtype=torch.long, device=rows.device) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, torch.tensor([len(rows)], device=rows.device))
    sizes = [int(size) for size in sizes]
    longest = max(sizes)
    padded = torch.cat([rows, rows.new_zeros(longest - len(rows), rows.shape[1])])
    gathered = _AllGather.apply(padded).split(longest)
    return torch.cat([part[:size] for part, size in zip(gathered, sizes, strict=True)])


class _AllGather(torch.autograd.Function):
    # By hand: the all_gather of torch.distributed.nn.functional communicates in backward too, and warns of its own removal.
    @staticmethod
    def forward(ctx, rows: Tensor) -> Tensor:
        rows = rows.contiguous()
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows)
        ctx.size = len(rows)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return dist.get_world_size() * gradient[dist.get_rank() * ctx.size :][: ctx.size]


def sum_over_processes(values: Tensor) -> Tensor:
    """Sum a tensor over all processes; the tensor itself on one process."""
    if processes() == 1:
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total
