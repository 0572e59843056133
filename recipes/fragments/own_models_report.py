"""Measures, tables and the picture of `own_models.py`."""

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fine_tunes import ARMS

from atom_hf.fragments import Channel, compare_channels
from atom_hf.fragments.points import find_points
from atom_hf.utils.statistics import paired_t_test, t_interval
from atom_hf.utils.tables import markdown
from atom_hf.visualization.figures import new_figure, save_figure

HERE = Path(__file__).parent / "own_models"

SEEDS = {"digits": 4, "verse": 3}

TRAINED = {"digits": 100, "verse": 500}  # training samples

EXPLAINED = {"digits": 100, "verse": 32}  # of these, samples that the explainer is fitted on

SAMPLES, BITS = 300, 2.0

CHOSEN = -2  # the layer that the energy acts on; its place among the layers

HELD = {
    "accuracy": "accuracy",
    "classes bits": "bits of the classes",
    "classes NMI": "NMI of the classes to the labels",
    "layer NMI": "adjusted NMI of layer -2 to the labels",
    "units bits": "mean bits of a unit of the last layer, over augmented copies",
    "units informative": "informative units of the last layer",
}


def labels_for(data: str, channel: Channel) -> Channel:
    """The classes of a channel's points: of a token that of its sample."""
    rows = [int(name.split(":")[0]) for name in channel.ids]
    return Channel.hard(torch.as_tensor(classes_of(data, SAMPLES)[rows]), name="labels", ids=channel.ids)


@functools.cache
def classes_of(data: str, samples: int) -> np.ndarray:
    """int [samples], the class of each."""
    return find_points(data, samples).labels


def analyse(
    data: str, before: dict[str, Any], found: dict[tuple[str, int], dict[str, Any]], seeds: int
) -> dict[str, Any]:
    """All numbers of one recipe."""
    labels = labels_for(data, before["layers"][0])
    held = {f"{arm} {seed}": _held(one, labels) for (arm, seed), one in found.items()}
    pairs = {
        name: _pairs({key: pick(one) for key, one in found.items()}, seeds)
        for name, pick in (
            ("layer -2", lambda one: one["layers"][CHOSEN]),
            ("last layer", lambda one: one["layers"][-1]),
            ("classes", lambda one: one["classes"][0]),
        )
    }
    layers = {arm: _layers(before["layers"], [found[arm, seed]["layers"] for seed in range(seeds)]) for arm in ARMS}
    importance = {
        what: {
            "untrained heads": [_to_labels(before[what][0], data)],
            **{
                arm: [_to_labels(found[arm, seed][what][0], data) for seed in range(seeds)]
                for arm in ARMS
                if arm != "plain"
            },
        }
        for what in ("importance", "token importance")
    }
    return {"data": data, "seeds": seeds, "held": held, "pairs": pairs, "layers": layers, "importance": importance}


def _held(one: dict[str, list[Channel]], labels: Channel) -> dict[str, float]:
    classes, layer = one["classes"][0], one["layers"][CHOSEN]
    said = compare_channels([classes], [labels])
    near = compare_channels([layer], [labels], chance=True)
    found = {
        "accuracy": float((classes.probabilities.argmax(1) == labels.labels).double().mean()),
        "classes bits": float(said.information),
        "classes NMI": float(said.nmi),
        "layer NMI": float(near.adjusted),
    }
    if "units" in one:
        units = compare_channels(one["units"])
        found |= {"units bits": float(units.information.mean()), "units informative": int(units.informative.sum())}
    return found


def _pairs(channels: dict[tuple[str, int], Channel], seeds: int) -> dict[str, list[float]]:
    """Adjusted NMI between runs, for each seed the mean over the other seeds; `same seed`: of a run and the plain one."""
    keys = list(channels)
    adjusted = compare_channels(list(channels.values()), chance=True).adjusted
    place = {key: number for number, key in enumerate(keys)}
    found: dict[str, list[float]] = {}
    for arm in ARMS:
        for name, one, other in (("within", arm, arm), ("to plain", "plain", arm)):
            found[f"{arm} {name}"] = [
                float(np.mean([adjusted[place[one, s], place[other, t]] for t in range(seeds) if t != s]))
                for s in range(seeds)
            ]
        found[f"{arm} same seed"] = [float(adjusted[place["plain", s], place[arm, s]]) for s in range(seeds)]
    return found


def _layers(before: list[Channel], after: list[list[Channel]]) -> list[list[float]]:
    """[layers before, layers after]: adjusted NMI, mean over seeds."""
    return torch.stack([compare_channels(before, one, chance=True).adjusted for one in after]).mean(0).tolist()


def _to_labels(channel: Channel, data: str) -> dict[str, float]:
    found = compare_channels([channel], [labels_for(data, channel)], chance=True)
    return {name: float(getattr(found, name)) for name in ("information", "shared", "nmi", "chance", "adjusted")}


# Writing


def read_results() -> list[dict[str, Any]]:
    """The results that are there, one of each recipe."""
    files = [HERE / f"{data}.json" for data in SEEDS]
    return [json.loads(file.read_text(encoding="utf-8")) for file in files if file.is_file()]


def report(results: list[dict[str, Any]]) -> str:
    """The page, in Markdown."""
    parts = [HEAD]
    for result in results:
        data = result["data"]
        about = (
            f"{result['seeds']} seeds, {TRAINED[data]} training samples, explainers fitted on {EXPLAINED[data]} of them"
        )
        parts += [f"## {data}: {about}\n", _held_table(result), _pairs_table(result), _importance_table(result)]
    return "\n".join([*parts, TAIL])


def write_report() -> None:
    """Writes README.md and the picture from the results that are there."""
    results = read_results()
    draw_layers(results, HERE / "layers.png")
    (HERE / "README.md").write_text(report(results), encoding="utf-8")


HEAD = f"""# What the channels tell of this project's own models

Fine-tunes of the [digits](../../digits/plain.yaml) and [verse](../../verse/plain.yaml) recipes without `--atom` (`plain`) and
with it (`atom`), in the form and weight that the flag takes for classifiers if none is given: separation, 0.5.
They are paired over seeds, each seed with its own draw of the training samples.
{SAMPLES} evaluation samples; layers hold {BITS:g} bits each, which are set by noise: only what they tell apart is compared.
Intervals are 95 % t intervals over seeds. Adjusted NMI is 0 at chance.

    python recipes/fragments/own_models.py                  # trains what is missing, reads, and writes this page
    python recipes/fragments/own_models.py --report_only    # writes this page again from the results
"""

TAIL = """## Which layers say the same before and after

![Adjusted NMI of each layer before fine-tuning to each layer after it](layers.png)

Each layer of the pretrained model (down) beside each layer of its fine-tunes (across), mean over seeds.
"""


def _held_table(result: dict[str, Any]) -> str:
    names = [name for name in HELD if name in result["held"]["plain 0"]]
    rows = []
    for name in names:
        values = {arm: [result["held"][f"{arm} {seed}"][name] for seed in range(result["seeds"])] for arm in ARMS}
        cells = [f"{np.mean(values['plain']):.4g}"]
        for arm in ARMS:
            if arm != "plain":
                cells.append(_difference(values["plain"], values[arm]))
        rows.append([HELD[name], *cells])
    return "Do they hold more?\n\n" + markdown(["mean over seeds", "plain", "atom - plain"], rows)


def _difference(first: list[float], second: list[float]) -> str:
    interval, p = paired_t_test(first, second)
    return f"{interval.mean:+.4g} [{interval.low:+.4g}, {interval.high:+.4g}], p {p:.2g}"


def _pairs_table(result: dict[str, Any]) -> str:
    ways = {"within": "other seeds", "to plain": "to plain of other seeds", "same seed": "to plain of its seed"}
    columns = {f"{arm} {way}": f"{arm}, {said}" for arm in ARMS if arm != "plain" for way, said in ways.items()}
    columns = {"plain within": "plain, other seeds", **columns}
    rows = [[name, *(_interval(pairs[key]) for key in columns)] for name, pairs in result["pairs"].items()]
    return f"{OTHER}\n\n" + markdown(["adjusted NMI", *columns.values()], rows)


OTHER = """Do they say other things? Runs with the flag would then be less like plain ones of other seeds than these are like
each other."""


def _interval(values: list[float]) -> str:
    mean, low, high = t_interval(values)
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def _importance_table(result: dict[str, Any]) -> str:
    rows = []
    for what, arms in result["importance"].items():
        for arm, lines in arms.items():
            cells = [
                f"{np.mean([line[key] for line in lines]):.4g}" for key in ("information", "shared", "nmi", "chance")
            ]
            adjusted = [line["adjusted"] for line in lines]
            cells.append(_interval(adjusted) if len(adjusted) > 1 else f"{adjusted[0]:.3f}")
            rows.append([f"{what}, {arm}", *cells])
    head = ["channel", "bits", "bits shared with the labels", "NMI", "chance", "adjusted NMI"]
    return "Does the importance say what the labels say?\n\n" + markdown(head, rows)


def draw_layers(results: list[dict[str, Any]], path: Path) -> None:
    """How much each layer before says of what each layer after says, by recipe and arm."""
    figure, axes = new_figure(3.4 * len(ARMS) + 0.8, 3.3 * len(results) + 0.3, len(results), len(ARMS))
    for row, result in zip(axes, results, strict=True):
        for axis, arm in zip(row, ARMS, strict=True):
            values = np.array(result["layers"][arm])
            drawn = axis.imshow(values, vmin=0, vmax=1, cmap="viridis")
            for (down, across), value in np.ndenumerate(values):
                color = "w" if value < 0.6 else "k"
                axis.annotate(f"{value:.2f}", (across, down), ha="center", va="center", fontsize=6, color=color)
            axis.set_title(f"{result['data']}, {arm}", fontsize=9)
            axis.set_xlabel("layer after", fontsize=8)
            axis.set_ylabel("layer before", fontsize=8)
            axis.tick_params(labelsize=7)
    figure.colorbar(drawn, ax=axes, label="adjusted NMI", fraction=0.02)
    save_figure(figure, path)
