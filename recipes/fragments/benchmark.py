"""What comparing channels costs, streamed and naively: python recipes/fragments/benchmark.py

The streamed form is `compare_channels`; the naive ones (naive.py) hold all fingerprints. All run in this process by turns, in
one thread and float64, on random channels: means and variances of one dimension, as a VAE's latents, and values under noise,
as hidden units. Times are the processor's, so that other work on the machine counts little. It writes results/benchmark.json,
benchmark.md and benchmark.png beside it. With --report_only nothing is measured.
"""

import argparse
import gc
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
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
MOST_HELD = 20_000_000  # numbers of all fingerprints: beyond, the naive forms do not grow on
ROUNDS = 3
HEAD = """# What comparing channels costs

`compare_channels` streams the rows of fingerprints: time O(N² C²), memory O(C N + C²). The naive forms hold all C fingerprints
[N, N]: *pair by pair* is a function of two of them, called for each pair; *own terms once* computes what concerns one channel
only once ([`naive.py`](naive.py)). All run in one process by turns, in one thread and float64 (PyTorch {torch}). Times are
those of the processor, medians of {rounds} rounds. Peak memory is that of the tensors that are made ([`memory.py`](memory.py)).
Channels are random.

    python recipes/fragments/benchmark.py                  # measures, and writes this page
    python recipes/fragments/benchmark.py --report_only    # writes this page again from the results

{sizes_table}
{goals}
Against *own terms once* the streamed form gains less: what is left is to make the fingerprints, which both must.

{large_size} (random Gaussian values, one thread) take {large_time} minutes; the process holds {large_memory} MB at
most, of which {large_before} MB is Python, PyTorch and the values.

![Time and memory by points and by channels](benchmark.png)

As points and channels grow, one round each, channels of latents; the naive forms are left out where their fingerprints would
take more than {most} MB.
"""
FORMS = {"streamed": "streamed", "once": "naive, own terms once", "in_pairs": "naive, pair by pair"}
COLORS = {"streamed": "#1f6fb4", "once": "#e0a030", "in_pairs": "#c44e00"}
PARTS = ["sizes", "by_points", "by_channels", "large"]
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
    """The forms that are measured at a size, by their names."""
    forms: dict[str, Callable[[list[Channel]], Any]] = {"streamed": compare_channels}
    if channels * points**2 <= MOST_HELD or (channels, points) in SIZES:
        forms |= {"once": naive.once, "in_pairs": naive.in_pairs}
    return forms


def time_forms(channels: list[Channel], rounds: int) -> dict[str, float]:
    """The median seconds of each form: by turns, the order reversed from one round to the next."""
    forms = forms_of(len(channels), channels[0].points)
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for form in forms.values():  # whatever is done once in a process
        form(channels[:2])
    for number in range(rounds):
        gc.collect()
        for name in list(forms)[:: -1 if number % 2 else 1]:
            start = time.process_time()
            forms[name](channels)
            seconds[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def measure_size(kind: str, channels: int, points: int, rounds: int = ROUNDS) -> dict[str, Any]:
    """Seconds of each form at a size, and bytes of the streamed one and of the smaller naive one."""
    made = make_channels(kind, channels, points)
    forms = forms_of(channels, points)
    peaks = {name: peak_bytes(lambda name=name: forms[name](made)) for name in ("streamed", "once") if name in forms}
    return {"kind": kind, "channels": channels, "points": points, "seconds": time_forms(made, rounds), "bytes": peaks}


def measure_large() -> dict[str, Any]:
    """The large size in this process: call it in one of its own, whose peak memory is then that of Python, PyTorch and all."""
    torch.set_num_threads(1)
    channels = make_channels("units", *LARGE)
    before = _peak_of_process()
    start = time.process_time()
    compare_channels(channels)
    seconds = time.process_time() - start
    return {
        "channels": LARGE[0],
        "points": LARGE[1],
        "seconds": seconds,
        "bytes_before": before,
        "bytes_of_process": _peak_of_process(),
    }


def measure(parts: Sequence[str]) -> None:
    """Measure some parts, and keep each when it is finished."""
    torch.set_num_threads(1)
    measured: dict[str, Callable[[], Any]] = {
        "sizes": lambda: [measure_size(kind, *size) for kind in KINDS for size in _shown(SIZES)],
        "by_points": lambda: [measure_size("latents", CHANNELS_OF_POINTS, n, rounds=1) for n in _shown(POINTS)],
        "by_channels": lambda: [measure_size("latents", c, POINTS_OF_CHANNELS, rounds=1) for c in _shown(CHANNELS)],
        "large": _in_a_process_of_its_own,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    for part in parts:
        found = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
        found |= {"torch": torch.__version__.partition("+")[0], "rounds": ROUNDS, part: measured[part]()}
        RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def report(found: dict[str, Any]) -> str:
    """The page: nothing is measured, and no number is written by hand."""
    rows, goals = [], []
    for one in found["sizes"]:
        size = one["channels"], one["points"]
        ratios = {name: one["seconds"][name] / one["seconds"]["streamed"] for name in ("once", "in_pairs")}
        smaller = one["bytes"]["once"] / one["bytes"]["streamed"]
        rows.append(
            [
                KINDS[one["kind"]],
                f"{size[0]} x {size[1]}",
                f"{one['seconds']['streamed']:.2f} s",
                f"{ratios['in_pairs']:.1f}",
                f"{ratios['once']:.1f}",
                f"{one['bytes']['streamed'] / 1e6:.1f} MB",
                f"{smaller:.0f}",
            ]
        )
        if size in TARGETS:
            where = f"{KINDS[one['kind']]}, {size[0]} x {size[1]}"
            goals.append([f"speed, {where}", f"at least {TIME_GOAL}", *_verdict(ratios["in_pairs"], TIME_GOAL)])
            goals.append([f"memory, {where}", f"at least {MEMORY_GOAL}", *_verdict(smaller, MEMORY_GOAL)])
    header = ["channels of", "C x N", "streamed", "times faster than pair by pair", "than own terms once"]
    header += ["peak", "times smaller"]
    large = found["large"]
    return HEAD.format(
        **found,
        sizes_table=markdown(header, rows),
        goals=markdown(["", "goal", "found", ""], goals),
        large_size=f"{large['channels']} units x {large['points']} points",
        large_time=f"{large['seconds'] / 60:.1f}",
        large_memory=f"{large['bytes_of_process'] / 1e6:.0f}",
        large_before=f"{large['bytes_before'] / 1e6:.0f}",
        most=MOST_HELD * 8 // 10**6,
    )


def draw(found: dict[str, Any], path: Path) -> Path:
    """Time and memory as points and channels grow."""
    figure, axes = new_figure(9, 6.4, 2, 2, sharex="col")
    for column, (name, axis, fixed) in enumerate(
        (
            ("by_points", "points", f"{CHANNELS_OF_POINTS} channels"),
            ("by_channels", "channels", f"{POINTS_OF_CHANNELS} points"),
        )
    ):
        for row, (unit, scale, title) in enumerate((("seconds", 1, "time (s)"), ("bytes", 1e6, "peak memory (MB)"))):
            ax = axes[row][column]
            for form, label in FORMS.items():
                drawn = [(one[axis], one[unit][form] / scale) for one in found[name] if form in one[unit]]
                if drawn:
                    ax.loglog(*zip(*drawn, strict=True), marker="o", color=COLORS[form], label=label)
            ax.grid(alpha=0.3)
            ax.set_ylabel(title)
        axes[0][column].set_title(fixed)
        axes[1][column].set_xlabel(axis)
        sizes = [one[axis] for one in found[name]]
        axes[1][column].set_xticks(sizes, [str(size) for size in sizes])
        axes[1][column].minorticks_off()
    axes[0][0].legend()
    return save_figure(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS, help="what to measure; all if not given")
    parser.add_argument("--report_only", action="store_true", help="measure nothing")
    given = parser.parse_args()
    if not given.report_only:
        measure(given.parts)
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    page = HERE / "benchmark.md"
    page.write_text(report(found), encoding="utf-8")
    print(f"written   {page}\nwritten   {draw(found, HERE / 'benchmark.png')}")


def _verdict(value: float, goal: float) -> list[str]:
    return [f"{value:.1f}", "met" if value >= goal else "**not met**"]


def _shown(sizes: Sequence[Any]) -> Any:
    return tqdm(sizes, desc="measuring", unit="size")


def _peak_of_process() -> int:
    """Bytes, of all that this process has held at once (Linux). `getrusage` would count the process that started it."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text()).group(1)) * 1024


def _in_a_process_of_its_own() -> dict[str, Any]:
    code = "import json, benchmark; print(json.dumps(benchmark.measure_large()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=HERE, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


if __name__ == "__main__":
    main()
