"""What comparing channels costs, streamed and naively: python recipes/fragments/benchmark.py

The streamed form is `compare_channels`; the naive ones (naive.py) hold all fingerprints. All run in this process by turns, in
one thread and float64, on random channels: means and variances of one dimension, as a VAE's latents, and values under noise, as
hidden units. It writes results/benchmark.json, benchmark.md and benchmark.png beside it. With --report_only nothing is measured.
"""

import argparse
import gc
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import naive
import torch
from memory import peak_bytes
from tqdm.auto import tqdm

from atom_hf.fragments import Channel, compare_channels
from atom_hf.utils.tables import markdown
from atom_hf.visualization.figures import new_figure, save_figure

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "benchmark.json"
SIZES = [(100, 300), (200, 300), (60, 1000)]  # channels, points
TARGETS = [(100, 300), (60, 1000)]
TIME_GOAL, MEMORY_GOAL = 8, 40
POINTS, CHANNELS_OF_POINTS = [100, 200, 400, 800, 1600, 3200], 50
CHANNELS, POINTS_OF_CHANNELS = [25, 50, 100, 200, 400, 800], 300
LARGE = 768, 2000
MOST_HELD = 60_000_000  # numbers of all fingerprints: beyond, the naive forms are left out
ROUNDS = 5
FORMS = {"streamed": "streamed", "once": "naive, own terms once", "in_pairs": "naive, pair by pair"}
COLORS = {"streamed": "#1f6fb4", "once": "#e0a030", "in_pairs": "#c44e00"}
KINDS = {"latents": "latents (mean and variance)", "units": "units (values under noise)"}


def make_channels(kind: str, channels: int, points: int, seed: int = 0) -> list[Channel]:
    """Random channels of one dimension, of about one bit."""
    draw = torch.Generator().manual_seed(seed)
    mean = torch.randn(channels, points, generator=draw, dtype=torch.float64)
    log_variance = torch.randn(channels, points, generator=draw, dtype=torch.float64) / 2 - 1.5
    if kind == "latents":
        return [Channel.gaussian(m, v) for m, v in zip(mean, log_variance, strict=True)]
    return [Channel.deterministic(m, noise=0.45) for m in mean]


def forms_of(channels: int, points: int) -> dict[str, Callable[[list[Channel]], Any]]:
    """The forms that fit into memory at a size, by their names."""
    forms: dict[str, Callable[[list[Channel]], Any]] = {"streamed": compare_channels}
    if channels * points**2 <= MOST_HELD:
        forms |= {"once": naive.once, "in_pairs": naive.in_pairs}
    return forms


def gaussians(channels: list[Channel]) -> list[Channel]:
    """The same channels for the naive forms, which know only Gaussians."""
    return [
        channel if channel.kind == "gaussian" else
        Channel.gaussian(channel.mean, torch.full_like(channel.mean, channel.noise).log() * 2)
        for channel in channels
    ]
