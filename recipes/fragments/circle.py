"""Fusion of weak learners whose truth is known: python recipes/fragments/circle.py

The points lie on a circle. Each learner sees it cut open at a random place, as one number under noise: neighbours across its
cut are far apart for it. K learners are fused, and the fusion is compared with the circle itself under noise, which no learner
has seen, and with five learners that took no part. It writes results/circle.json, circle.md and circle.png beside it. With
--report_only nothing is computed.
"""

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from atom_hf.fragments import Channel, compare_channels, fuse
from atom_hf.fragments.fusion import continuity
from atom_hf.utils.statistics import t_interval
from atom_hf.utils.tables import markdown
from atom_hf.visualization.figures import new_figure, save_figure

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "circle.json"
POINTS, HELD_OUT, SEEDS = 80, 5, 5
LEARNERS = [1, 2, 4, 8, 15]
BITS, TRUTH_BITS = 1.55, 1.7
RINGS = [1, 4, 15]  # learners of the fusions that are drawn
FORMS = {
    "single": "best single learner",
    "mean": "mean fingerprint",
    "product": "product",
    "vi": "fusion by VI",
    "nmi": f"fusion by NMI, {TRUTH_BITS} bits",
}
COLORS = {"single": "#777777", "mean": "#e0a030", "product": "#8e5ba6", "vi": "#1f6fb4", "nmi": "#c44e00"}
HEAD = """# Fusing learners that see a circle cut open

{points} points on a circle; each learner sees it cut open at a random place, as one number under noise that holds {bits} bits.
Of K learners the table gives the NMI to the circle itself (under noise, {truth_bits} bits), the bits shared with {held_out}
learners that took no part, the bits held, and how torn the ring is: the largest over the 90th percentile of the distances
between neighbours on the circle, 1 for a closed ring. Means over {seeds} draws of the cuts, with 95 % t intervals.

    python recipes/fragments/circle.py                  # computes, and writes this page
    python recipes/fragments/circle.py --report_only    # writes this page again from the results

{table}
The mean fingerprint is one learner drawn at random for each message, the product the messages of all; neither has places to
draw. An NMI to the truth says how alike two clusterings are, not how much is known.

![NMI to the truth by the number of learners, and fused rings](circle.png)

One draw of the cuts: the means of the points fused by VI, coloured by their angle, and joined in the order of the circle.
"""


def make_learners(count: int, seed: int) -> tuple[Tensor, list[Channel]]:
    """The angles of the points [N], and learners that see them from a random cut on."""
    angle = torch.arange(POINTS, dtype=torch.float64) / POINTS * 2 * math.pi
    cuts = 2 * math.pi * torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return angle, [Channel.deterministic((angle - cut) % (2 * math.pi), bits=BITS) for cut in cuts]


def tear(mean: Tensor) -> float:
    """The continuity of means [N, d] along the circle."""
    points = torch.arange(len(mean))
    return continuity(mean, torch.stack([points.roll(1), points.roll(-1)], 1))


def run(seed: int, bar: tqdm) -> list[dict[str, Any]]:
    """A row for each number of learners and form."""
    angle, everyone = make_learners(max(LEARNERS) + HELD_OUT, seed)
    truth = Channel.deterministic(torch.stack([angle.cos(), angle.sin()], 1), bits=TRUTH_BITS)
    held_out = everyone[-HELD_OUT:]
    rows = []
    for count in LEARNERS:
        learners = everyone[:count]
        by_vi = fuse(learners, seed=seed)
        by_nmi = fuse(learners, objective="nmi", bits=TRUTH_BITS, seed=seed)
        single = int(compare_channels(learners, [truth]).nmi.argmax())
        forms = {
            "single": learners[single],
            "mean": by_vi.mean_fingerprint,
            "product": by_vi.product,
            "vi": by_vi.channel,
            "nmi": by_nmi.channel,
        }
        to_truth = compare_channels(list(forms.values()), [truth], estimator="fingerprint")
        to_others = compare_channels(list(forms.values()), held_out, estimator="fingerprint")
        for place, (form, channel) in enumerate(forms.items()):
            row = {
                "seed": seed,
                "learners": count,
                "form": form,
                "nmi": to_truth.nmi[place].item(),
                "held_out": to_others.shared[place].mean().item(),
                "bits": to_truth.information[place].item(),
            }
            if form in ("vi", "nmi"):
                row["tear"] = tear(channel.mean)
            if form == "vi" and seed == 0 and count in RINGS:
                row["means"] = channel.mean.tolist()
            rows.append(row)
        bar.update()
    return rows


def of(rows: Sequence[dict[str, Any]], learners: int, form: str, name: str) -> list[float]:
    """A measure of one form and number of learners, over seeds."""
    return [row[name] for row in rows if row["learners"] == learners and row["form"] == form and name in row]


def report(rows: Sequence[dict[str, Any]]) -> str:
    """The page."""

    def cell(learners: int, form: str, name: str) -> str:
        values = of(rows, learners, form, name)
        if not values:
            return ""
        interval = t_interval(values)
        return f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"

    measures = ("nmi", "held_out", "bits", "tear")
    lines = [
        [str(count), title, *(cell(count, form, name) for name in measures)]
        for count in LEARNERS
        for form, title in FORMS.items()
    ]
    header = ["K", "", "NMI to the truth", "bits shared with held-out learners", "bits held", "tear"]
    return HEAD.format(
        points=POINTS,
        bits=BITS,
        truth_bits=TRUTH_BITS,
        held_out=HELD_OUT,
        seeds=SEEDS,
        table=markdown(header, lines),
    )


def draw(rows: Sequence[dict[str, Any]], path: Path) -> Path:
    """NMI by the number of learners, and fused rings."""
    figure, axes = new_figure(12, 3.2, 1, 1 + len(RINGS), width_ratios=[1.5] + [1] * len(RINGS))
    first, *rings = axes[0]
    for form, title in FORMS.items():
        intervals = [t_interval(of(rows, count, form, "nmi")) for count in LEARNERS]
        means = [interval.mean for interval in intervals]
        first.plot(LEARNERS, means, marker="o", color=COLORS[form], label=title)
        low, high = ([getattr(interval, name) for interval in intervals] for name in ("low", "high"))
        first.fill_between(LEARNERS, low, high, color=COLORS[form], alpha=0.15, linewidth=0)
    first.set(xlabel="learners K", ylabel="NMI to the truth", xticks=LEARNERS)
    first.grid(alpha=0.3)
    first.legend(fontsize=7)
    for ax, count in zip(rings, RINGS, strict=True):
        (means,) = of([row for row in rows if "means" in row], count, "vi", "means")
        x, y = zip(*[*means, means[0]], strict=True)
        ax.plot(x, y, color="#bbbbbb", linewidth=0.8, zorder=1)
        ax.scatter(x[:-1], y[:-1], c=range(POINTS), cmap="twilight", s=14, zorder=2)
        ax.set_title(f"K = {count}")
        ax.set_aspect("equal", "datalim")
        ax.set_xticks([])
        ax.set_yticks([])
    return save_figure(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report_only", action="store_true", help="compute nothing")
    if not parser.parse_args().report_only:
        torch.set_num_threads(1)
        with tqdm(total=SEEDS * len(LEARNERS), desc="fusing", unit="size") as bar:
            rows = [row for seed in range(SEEDS) for row in run(seed, bar)]
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(rows) + "\n", encoding="utf-8")
    rows = json.loads(RESULTS.read_text(encoding="utf-8"))
    page = HERE / "circle.md"
    page.write_text(report(rows), encoding="utf-8")
    print(f"written   {page}\nwritten   {draw(rows, HERE / 'circle.png')}")


if __name__ == "__main__":
    main()
