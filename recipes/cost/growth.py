"""The cost of the energy itself as batches and texts grow: the closed form beside the double sum over pairs of tokens.

    python recipes/cost/growth.py FILE.json    # `recipes/cost/run.py` calls it as a part of the report

Both start from importance, position and mask and end with the gradient with respect to importance and position. The double
sum is Eq. 5 as it is written, in plain torch: one term for each pair of tokens of distinct samples. It is as fast as that is
made easily: vectorised, radii and distances taken once a sample, and each block of pairs followed by its gradient at once,
so that nothing is computed twice. How fast it is depends on the size of the blocks: `naive` takes them as large as fits
into memory with ease (2^24 pairs, 64 MiB a tensor, on a CPU), `cached` so small that they stay in a processor's cache.
"""

import functools
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from atom_hf import atomic_energy
from atom_hf.modeling.inference import default_device

SOFTENING = 0.1  # the default of training
WIDTH = 768
TARGET = (64, 197)  # samples and tokens: a batch of ViT-base
BATCHES, TOKENS_OF_BATCHES = [2**i for i in range(1, 13)], 16
TOKENS, BATCH_OF_TOKENS = [2**i for i in range(4, 13)], 8
LONGEST = 10.0  # seconds: beyond it the double sum is left out
BLOCKS = {"cpu": {"naive": 2**24, "cached": 2**18}, "cuda": {"naive": 2**27, "cached": 2**21}}  # pairs at a time

Inputs = tuple[Tensor, Tensor, Tensor]


def make_inputs(batch: int, tokens: int, width: int = WIDTH, device: str = "cpu") -> Inputs:
    """Importance, position and mask, random: every third sample is a quarter shorter than the others."""
    generator = torch.Generator().manual_seed(0)
    importance = torch.tanh(torch.randn(batch, tokens, generator=generator)).to(device).requires_grad_()
    position = torch.randn(batch, tokens, width, generator=generator).to(device).requires_grad_()
    mask = torch.ones(batch, tokens, dtype=torch.bool)
    mask[::3, tokens - tokens // 4 :] = False
    return importance, position, mask.to(device)


def closed_form(importance: Tensor, position: Tensor, mask: Tensor) -> Tensor:
    """The energy; its gradient is left in the inputs."""
    energy = atomic_energy(importance, position, mask, softening=SOFTENING, token_reduction="mean")
    energy.backward()
    return energy.detach()


def double_sum(importance: Tensor, position: Tensor, mask: Tensor, block: int) -> Tensor:
    """The same by Eq. 5 as it is written, over all pairs of tokens, about `block` of them at a time."""
    batch, tokens = importance.shape
    count = mask.sum(1)
    charge = importance.masked_fill(~mask, 0)
    electron = (-charge).clamp(min=0)
    center = torch.einsum("bn,bnh->bh", (1 - electron) * mask, position) / count.unsqueeze(1)
    apart = torch.linalg.vector_norm(position - center.unsqueeze(1), dim=-1)
    radius = (electron * apart).sum(1) / count
    # Charges over their number of tokens: the mean over pairs is then a sum.
    inputs = charge / count.unsqueeze(1), center, radius
    # The pairs read copies: the blocks' gradients gather there, and go on to the tokens once.
    copies = [value.detach().requires_grad_() for value in inputs]
    q, mu, r = copies
    rows = max(1, block // (batch * tokens * tokens))
    columns = max(1, min(batch, block // (rows * tokens * tokens)))
    pairs = batch * (batch - 1)
    total = importance.new_zeros(())
    for a in range(0, batch, rows):
        for b in range(0, batch, columns):
            here, there = slice(a, a + rows), slice(b, b + columns)
            square = (mu[here].unsqueeze(1) - mu[there]).square().sum(-1) + SOFTENING**2
            distance = square.sqrt()[:, None, :, None]
            between = ((r[here].unsqueeze(1) + r[there]) / 2)[:, None, :, None]
            product = q[here][:, :, None, None] * q[there]
            term = product / (distance + between * (product < 0))
            if b < a + rows and a < b + columns:  # A != B
                same = torch.arange(batch, device=q.device)
                term = term * (same[here].unsqueeze(1) != same[there])[:, None, :, None]
            energy = term.sum() / pairs
            energy.backward()
            total += energy.detach()
    torch.autograd.backward(inputs, [copy.grad for copy in copies])
    return total


def make_forms(device: str) -> dict[str, Callable]:
    """What is timed: the closed form, and the double sum in blocks of either size."""
    blocks = {name: functools.partial(double_sum, block=size) for name, size in BLOCKS[device].items()}
    return {"closed": closed_form, **blocks}


def time_forms(inputs: Inputs, rounds: int, forms: dict[str, Callable]) -> dict[str, list[float]]:
    """The seconds of each form, one a round: by turns, the order reversed from one round to the next."""
    device = inputs[0].device
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for number in range(-1, rounds):  # the first is not counted
        gc.collect()
        gc.disable()
        for name in list(forms)[:: 1 if number % 2 else -1]:
            for tensor in inputs[:2]:
                tensor.grad = None
            _wait(device)
            start = time.perf_counter()
            forms[name](*inputs)
            _wait(device)
            if number >= 0:
                seconds[name].append(time.perf_counter() - start)
        gc.enable()
    return seconds


def ratios_to_closed(seconds: dict[str, list[float]]) -> dict[str, dict[str, Any]]:
    """How many times the closed form's time each other form takes: the median over rounds."""
    found = {}
    for name in seconds:
        if name != "closed":
            ratios = [b / a for a, b in zip(seconds["closed"], seconds[name], strict=True)]
            found[name] = {"ratio": statistics.median(ratios), "ratios": ratios}
    return found


def measure_target(device: str, threads: int | None, rounds: int = 7) -> dict[str, Any]:
    """The ratios at `TARGET`, with this many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        seconds = time_forms(make_inputs(*TARGET, device=device), rounds, make_forms(device))
    finally:
        torch.set_num_threads(before)
    about = {"threads": threads, "samples": TARGET[0], "tokens": TARGET[1], "width": WIDTH, "rounds": rounds}
    return {**about, **ratios_to_closed(seconds)}


def measure_sizes(sizes: list[tuple[int, int]], device: str, done: Callable[[], Any]) -> list[dict[str, Any]]:
    """Each form at each size of samples and tokens, in times of the closed form at the first."""
    rows, forms = [], make_forms(device)
    for batch, tokens in sizes:
        rounds = 3 if (batch * tokens) ** 2 > 1e8 else 15
        seconds = time_forms(make_inputs(batch, tokens, device=device), rounds, forms)
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        rows.append({"samples": batch, "tokens": tokens, **medians})
        # The next size has four times the pairs.
        forms = {name: form for name, form in forms.items() if name == "closed" or 4 * medians[name] <= LONGEST}
        done()
    unit = rows[0]["closed"]
    return [{k: v if k in ("samples", "tokens") else v / unit for k, v in row.items()} for row in rows]


def measure(device: str) -> dict[str, Any]:
    """All of it."""
    threads = torch.get_num_threads()
    counts = [None] if device == "cuda" else sorted({1, threads})
    batches, tokens = [(b, TOKENS_OF_BATCHES) for b in BATCHES], [(BATCH_OF_TOKENS, n) for n in TOKENS]
    with tqdm(total=len(counts) + len(batches) + len(tokens), desc="growth", unit="size") as bar:
        target = []
        for count in counts:
            target.append(measure_target(device, count))
            bar.update()
        return {
            "width": WIDTH,
            "longest_seconds": LONGEST,
            "blocks": BLOCKS[device],
            "target": target,
            "samples": measure_sizes(batches, device, bar.update),
            "tokens": measure_sizes(tokens, device, bar.update),
        }


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    found = measure(default_device())
    Path(sys.argv[1]).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
