"""Write README.md, the plots of the cost and the generated parts of the project's documents from the results alone.

Nothing is measured, and no number is written by hand.
"""

import json
from pathlib import Path
from typing import Any

import small_models

from atom_hf.utils.tables import fill_block, markdown
from atom_hf.visualization.figures import new_figure, save_figure

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PROJECT = HERE.parents[1]
KINDS = {"cpu": "CPU", "cuda": "GPU"}
MODELS = {"bert": "BERT-base", "vit": "ViT-base"}
PRECISIONS = {"cpu": "float32", "cuda": "bfloat16"}
TIME_GOAL = {"cpu": 1.05, "cuda": 1.02}
MEMORY_GOAL = 1.03  # on a GPU
GROWTH_GOAL = 100
FORMS = {
    "closed": "closed form",
    "naive": "double sum, large blocks",
    "cached": "double sum, blocks that stay in the cache",
}
COLORS = {"closed": "#1f6fb4", "naive": "#c44e00", "cached": "#e0a030"}
NOT_RUN = "not run"
PARTS = {"gate": "gradient balancer"}  # parts by the names that older results have, as they are called now

HEAD = """# What the flag costs

The ratio of a training step with `--atom` to the same step without it (`atom-hf bench`): both steps interleaved in one process, with the same initial weights and batches.
Times are given as ratios only, because a machine's load changes the times of both alike.

    python recipes/cost/run.py                  # measures on the GPU, or the CPU where there is none; writes this page
    python recipes/cost/run.py --report_only    # writes this page again from the results

"""  # noqa: E501
NOTES = """
A step is Trainer's own: forward, loss, backward, clipping, optimizer, scheduler, and with the flag the heads, the energy, the gradient balancer and the record for the log.
Peak memory is the parameters, buffers and optimizer state of one trainer, plus the most that one step allocates beyond them.
[...] is the {interval}.

Own parts is 1 + the share of the profiled plain step that the profiler finds in the flag's own operations (the table of parts below).
If the machine is busy during one step of a pair and not during the other, their ratio changes, but own parts hardly does.

The floor is the least that two linear layers can cost, one of h x h and one of h x 1, in the heads' precision: their forward, backward and AdamW update on the batch's tokens, timed between the two steps of each pair; in memory, their parameters and optimizer state.
Operations are those of matrix products, convolutions and attention, counted by `torch.utils.flop_counter`.
"""  # noqa: E501
GROWTH = """## As batches and texts grow

The energy alone, from importance, position and mask to the gradient with respect to importance and position: the closed form, and the double sum of Eq. 5 over all pairs of tokens, as [`growth.py`](growth.py) writes it in plain torch.
The time of the double sum depends on the size of its blocks: as large as easily fits into memory, or so small that they stay in a processor's cache.
It takes this many times as long as the closed form, at {samples} x {tokens} tokens of width {width}:

"""  # noqa: E501
SIZES = """
Times as multiples of the closed form's at the smallest size, width {width} ({kind}).
The double sum is omitted at sizes where it takes more than {longest:.0f} seconds, or would by its growth:

"""


def read_results() -> dict[str, dict[str, Any]]:
    """What has been measured, by kind of device."""
    files = {kind: RESULTS / f"{kind}.json" for kind in KINDS}
    return {kind: json.loads(file.read_text(encoding="utf-8")) for kind, file in files.items() if file.exists()}


def step_table(results: dict[str, dict[str, Any]]) -> str:
    """One row a model and kind of device, whether it was run or not."""
    header = ["device", "model, batch", "step time [95 %], pairs", "own parts", "floor"]
    header += ["throughput", "peak memory", "floor", "operations"]
    rows, missing = [], {}
    for kind, found in ((k, results.get(k, {})) for k in KINDS):
        for model, title in MODELS.items():
            if model not in found:
                rows.append([f"{KINDS[kind]}, {PRECISIONS[kind]}", title, NOT_RUN, *[""] * 6])
                missing[kind] = (
                    f"Rows of the {KINDS[kind]}: `python recipes/cost/run.py --device {kind}`, where there is one."
                )
                continue
            one = found[model]
            timed, memory, flops = one["time"], one["memory"], one["flops"]
            rows.append(
                [
                    f"{one['device']}, {one['precision']}",
                    f"{title}, {one['samples']} x {one['tokens']:.0f} tokens",
                    f"{timed['ratio']:.4f} [{timed['low']:.4f}, {timed['high']:.4f}], {one['pairs']}",
                    _own_parts(one),
                    f"{one['time_floor']['ratio']:.4f}",
                    f"{one['throughput']:.4f}",
                    f"{memory['ratio']:.4f}",
                    f"{memory['floor']:.4f}",
                    f"{flops['atom']:.4f}" if flops["atom"] else "",
                ]
            )
    return "\n".join([markdown(header, rows), *(f"{line}\n" for line in missing.values())])


def _own_parts(one: dict[str, Any], digits: int = 4) -> str:
    parts = one.get("profile", {}).get("rows", [])
    return f"{1 + sum(forward + backward for _, forward, backward in parts):.{digits}f}" if parts else ""


def goal_table(results: dict[str, dict[str, Any]]) -> str:
    """Each goal, what was found, and whether that meets it."""
    rows = []
    for kind, found in ((k, results.get(k, {})) for k in KINDS):
        for model, title in MODELS.items():
            where = f"{KINDS[kind]}, {PRECISIONS[kind]}, {title}"
            one = found.get(model)
            goal = TIME_GOAL[kind]
            found_time = [NOT_RUN, ""]
            if one:
                timed = one["time"]
                decided = timed["high"] <= goal or timed["low"] > goal
                value, verdict = _verdict(timed["ratio"], at_most=goal)
                found_time = [value, verdict if decided else "not decided: the interval holds the goal"]
            rows.append([f"step time, {where}", f"at most {goal}", *found_time])
            if one and _own_parts(one):
                own = _verdict(float(_own_parts(one)), at_most=goal)
                rows.append([f"own parts, {where}", f"at most {goal}", *own])
            if kind == "cuda":
                value = one and one["memory"]["ratio"]
                rows.append([f"peak memory, {where}", f"at most {MEMORY_GOAL}", *_verdict(value, at_most=MEMORY_GOAL)])
        for what, words, value, goal, interval in small_models.goals(found, f"{KINDS[kind]}, {PRECISIONS[kind]}"):
            undecided = interval and interval[0] <= goal < interval[1]
            verdict = _verdict(value, at_most=goal)
            rows.append(
                [what, words, verdict[0], "not decided: the interval holds the goal" if undecided else verdict[1]]
            )
        for one in found.get("growth", {}).get("target", []):
            where = f"{FORMS['naive']} / closed form, {KINDS[kind]}{_threads(one)}"
            verdict = _verdict(one["naive"]["ratio"], above=GROWTH_GOAL)
            rows.append([where, f"more than {GROWTH_GOAL} times", *verdict])
    return markdown(["", "goal", "found", ""], rows)


def _verdict(value: float | None, at_most: float | None = None, above: float | None = None) -> list[str]:
    if value is None:
        return [NOT_RUN, ""]
    met = value <= at_most if at_most is not None else value > above
    return [f"{value:.4f}" if value < 10 else f"{value:.1f}", "met" if met else "**not met**"]


def _threads(one: dict[str, Any]) -> str:
    return f", {one['threads']} thread{'s' * (one['threads'] > 1)}" if one["threads"] else ""


def profile_tables(results: dict[str, dict[str, Any]]) -> str:
    """Tables of the parts of the extra time."""
    parts = []
    for kind, found in results.items():
        for model, title in MODELS.items():
            profile = found.get(model, {}).get("profile")
            if profile:
                rows = [
                    [PARTS.get(name, name), *(f"{100 * share:.2f} %" for share in shares)]
                    for name, *shares in profile["rows"]
                ]
                rows += [["rest, and noise", f"{100 * profile['rest']:.2f} %", ""]]
                rows += [["all", f"{100 * profile['total']:.2f} %", ""]]
                parts.append(f"{title}, {KINDS[kind]}, under the profiler:\n\n")
                parts.append(markdown(["part", "forward", "backward"], rows) + "\n")
    if not parts:
        return ""
    intro = "## Where the extra time goes\n\nShares of the plain step, from two steps each: small values are noise.\n\n"
    return intro + "".join(parts)


def growth_section(results: dict[str, dict[str, Any]]) -> str:
    """The target, and the curves as tables."""
    measured = {kind: found["growth"] for kind, found in results.items() if "growth" in found}
    if not measured:
        return ""
    rows, parts = [], []
    for kind, growth in measured.items():
        target = growth["target"]
        rows += [
            [KINDS[kind] + _threads(one), *(f"{one[f]['ratio']:.1f}" for f in ("naive", "cached"))] for one in target
        ]
        parts.append(SIZES.format(width=growth["width"], longest=growth["longest_seconds"], kind=KINDS[kind]))
        sizes = [*growth["samples"], *growth["tokens"]]
        lines = [
            [f"{row['samples']} x {row['tokens']}", *(f"{row[f]:.4g}" if f in row else "" for f in FORMS)]
            for row in sizes
        ]
        parts.append(markdown(["samples x tokens", *FORMS.values()], lines))
    head = GROWTH.format(**next(iter(measured.values()))["target"][0])
    table = markdown(["", FORMS["naive"], FORMS["cached"]], rows)
    return head + table + "\n![Time by samples and by tokens](growth.png)\n" + "".join(parts)


def headline(results: dict[str, dict[str, Any]]) -> str:
    """The cost in two sentences, for the project's README.md."""
    said = []
    for kind, found in results.items():
        ones = {name: found[model] for model, name in MODELS.items() if model in found}
        if ones:
            times = " and ".join(
                f"{one['time']['ratio']:.2f} ({name}; 95 % interval {one['time']['low']:.2f} to {one['time']['high']:.2f})"
                for name, one in ones.items()
            )
            memory = max(one["memory"]["ratio"] for one in ones.values())
            said.append(
                f"on a {KINDS[kind]} a training step takes {times} times as long with the flag, "
                f"and {memory:.2f} times the memory"
            )
    missing = [title for kind, title in KINDS.items() if not any(model in results.get(kind, {}) for model in MODELS)]
    text = "**What it costs:** " + ("; ".join(said) or "not measured yet") + "."
    if missing and said:
        text += f"\nOn a {' and a '.join(missing)} it has not been measured."
    return text


def summary(results: dict[str, dict[str, Any]]) -> str:
    """The table and a sentence on the energy, for docs/distributed.md."""
    rows = []
    for kind, title in KINDS.items():
        for model, name in MODELS.items():
            one = results.get(kind, {}).get(model)
            where = f"{name}, {title}, {PRECISIONS[kind]}"
            if one is None:
                rows.append([where, NOT_RUN, *[""] * 4])
                continue
            timed, memory = one["time"], one["memory"]
            spread = f"{timed['ratio']:.3f} [{timed['low']:.3f}, {timed['high']:.3f}]"
            rows.append(
                [
                    f"{where}, {one['samples']} x {one['tokens']:.0f} tokens",
                    *(spread, _own_parts(one, 3), f"{one['time_floor']['ratio']:.3f}"),
                    *(f"{memory['ratio']:.3f}", f"{memory['floor']:.3f}"),
                ]
            )
    lines = [markdown(["", "step time [95 %]", "own parts", "floor", "peak memory", "floor"], rows)]
    for kind, found in results.items():
        for one in found.get("growth", {}).get("target", [])[:1]:
            size = f"{one['samples']} x {one['tokens']} tokens with its gradient, {KINDS[kind]}{_threads(one)}"
            naive, cached = (f"{one[form]['ratio']:.0f} times" for form in ("naive", "cached"))
            lines.append(
                f"\nThe energy of {size}: the double sum over tokens takes {naive} as long ({cached} where its blocks are "
                "cut to stay in a processor's cache).\n"
            )
    return "".join(lines)


def write_report() -> None:
    """Writes README.md, the plots, and the generated parts of the project's README.md and docs/distributed.md."""
    results = read_results()
    fill_block(PROJECT / "README.md", "cost", headline(results))
    fill_block(PROJECT / "docs" / "distributed.md", "cost", summary(results))
    benches = [found[model] for found in results.values() for model in MODELS if model in found]
    interval = benches[0]["interval"] if benches else "95 % interval"
    exactness = HERE / "exactness.md"
    parts = [HEAD, step_table(results)]
    if benches:
        parts.append("\n![Step time and peak memory](cost.png)\n")
        plot_costs(results)
    parts += [NOTES.format(interval=interval), "\n## Goals\n\n", goal_table(results), "\n", profile_tables(results)]
    parts.append(small_models.section(results, KINDS))
    if any("growth" in found for found in results.values()):
        plot_growth(results)
    parts.append(growth_section(results))
    if exactness.exists():
        parts.append("\n[exactness.md](exactness.md) shows that it computes the same however a run is split.\n")
    (HERE / "README.md").write_text("".join(parts), encoding="utf-8")


def plot_costs(results: dict[str, dict[str, Any]]) -> None:
    """Step time with its interval and the pairs behind it, and peak memory; the floor and the goal beside them."""
    rows = [(kind, model) for kind in results for model in MODELS if model in results[kind]]
    figure, [axes] = new_figure(10, 1.6 + 0.6 * len(rows), 1, 2, sharey=True)
    for y, (kind, model) in enumerate(rows):
        one = results[kind][model]
        timed = one["time"]
        axes[0].plot(timed["ratios"], [y] * len(timed["ratios"]), "|", color="#bbbbbb", markersize=8, label="one pair")
        axes[0].plot([timed["low"], timed["high"]], [y, y], color=COLORS["closed"], linewidth=2.5)
        for axis, value, floor, goal in (
            (axes[0], timed["ratio"], one["time_floor"]["ratio"], TIME_GOAL[kind]),
            (axes[1], one["memory"]["ratio"], one["memory"]["floor"], MEMORY_GOAL if kind == "cuda" else None),
        ):
            axis.plot([value], [y], "o", color=COLORS["closed"], markersize=7, label="atom / plain")
            axis.plot([floor], [y], "D", color="#444444", markersize=5, label="floor: the two linear layers")
            if goal:
                axis.plot([goal] * 2, [y - 0.3, y + 0.3], color=COLORS["naive"], linewidth=1.5, label="goal, at most")
    labels = [f"{MODELS[model]}, {KINDS[kind]}, {PRECISIONS[kind]}" for kind, model in rows]
    axes[0].set_yticks(range(len(rows)), labels)
    axes[0].set_ylim(len(rows) - 0.5, -0.5)
    for axis, title in zip(axes, ("step time, median and 95 % interval", "peak memory"), strict=True):
        axis.set_title(title, fontsize=10)
        axis.axvline(1, color="black", linewidth=0.8)
        axis.grid(axis="x", color="#dddddd", linewidth=0.6)
        axis.locator_params(axis="x", nbins=6)
    handles, names = axes[0].get_legend_handles_labels()
    legend = dict(zip(names, handles, strict=True))
    figure.legend(legend.values(), legend.keys(), loc="outside lower center", ncols=4, fontsize=8)
    figure.suptitle("With the flag / without it", fontsize=11)
    save_figure(figure, HERE / "cost.png")


def plot_growth(results: dict[str, dict[str, Any]]) -> None:
    """One row a kind of device: time by samples and by tokens, both axes logarithmic."""
    kinds = [kind for kind, found in results.items() if "growth" in found]
    figure, axes = new_figure(10, 3.9 * len(kinds) + 0.5, len(kinds), 2)
    for row, kind in zip(axes, kinds, strict=True):
        growth = results[kind]["growth"]
        for axis, by, other in zip(row, ("samples", "tokens"), ("tokens", "samples"), strict=True):
            sizes = growth[by]
            for form, title in FORMS.items():
                points = [(one[by], one[form]) for one in sizes if form in one]
                axis.loglog(*zip(*points, strict=True), "o-", color=COLORS[form], markersize=4, label=title)
            ticks = [one[by] for one in sizes]
            axis.set_xscale("log", base=2)
            axis.set_xticks(ticks, [f"{tick:,}" for tick in ticks], fontsize=7, rotation=45)
            axis.set_xlabel({"samples": "samples in a batch", "tokens": "tokens of a sample"}[by])
            axis.set_ylabel(f"time / closed form's at {ticks[0]}", fontsize=9)
            fixed = sizes[0][other]
            axis.set_title(
                f"{KINDS[kind]}, {fixed} {other}{' each' if other == 'tokens' else ''}, width {growth['width']}"
            )
            axis.grid(color="#dddddd", linewidth=0.6)
        row[0].legend(fontsize=8)
    figure.suptitle("The energy and its gradient", fontsize=12)
    save_figure(figure, HERE / "growth.png")
