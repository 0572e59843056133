"""`atom-hf fragments`: read the channels of an ensemble of runs, compare them, and write tables, pictures and a page."""

import importlib.util
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..data.load import TaskData, load_data
from ..errors import AtomError
from ..finetune.arguments import DATA_FIELDS
from ..finetune.pretrained import find_model
from ..modeling.heads_file import read_heads_config
from ..utils.files import check_output_folder
from ..utils.jsonl import hashed
from ..utils.lock import lock_folder
from ..utils.quiet import quiet
from ..utils.terminal import get_logger
from .arguments import FEWEST, TOKENS, FragmentsArguments
from .channel import Channel
from .compare import compare_channels
from .comparison import Comparison
from .ensemble import by_regularization
from .fusion import Fusion, fuse
from .hotspots import Hotspots, find_hotspots
from .kinds import OF_LAYERS
from .load import config_of, load_model, processor_of, run_name
from .points import Points, evaluation_rows, find_points
from .read import read_channels
from .report import write_files
from .selection import selection_report
from .storage import load_channels, save_channels, settings_of

logger = get_logger(__name__)

MOST_CHANNELS = 10_000  # all pairs of them take 6 GB

LABELS = "labels"


@dataclass(frozen=True)
class Found:
    """What was found in the channels of an ensemble; what was not asked for is None."""

    kind: str
    data: str
    channels: list[Channel]
    comparison: Comparison
    to_labels: Comparison | None
    hotspots: Hotspots
    labels: Tensor | None
    """int64 [N], the class of each data point."""
    classes: list[str]
    strengths: dict[str, float] | None = None
    regularization: list[dict[str, Any]] | None = None
    fusion: Fusion | None = None
    bars: dict[str, tuple[float, float]] | None = None
    """(mean NMI to the learners, bits) of the fusion, of its closed-form baselines, and of the best single learner."""
    selection: dict[str, Any] | None = None


def run_fragments(run: FragmentsArguments) -> tuple[Found, list[Path]]:
    """Read, compare, find hotspots, and what else the arguments ask for. Returns what was found, and the files written.

    The channels of each run are kept in the output folder; the same command goes on from there.

    Raises:
        AtomError: an argument that is wrong; models or data that cannot be loaded or do not go together; no information.
    """
    run.check()
    if importlib.util.find_spec("matplotlib") is None:
        raise AtomError("fragments needs matplotlib: pip install 'atom-hf[study]'")
    if run.dataset is None:
        raise AtomError("give --dataset: a Hub id, a file or folder, or a built-in one")
    names = _run_names(run.models)
    kind = run.channels or _usual_kind(run.models)
    options = run.options(kind)
    if run.select is not None and kind != "classes":
        raise AtomError("--select needs classifiers, whose classes are read; these --models are not all classifiers")
    if len(run.models) == 1 and (kind not in ("units", "subspaces", "heads", "posterior")) and run.layers() == -1:
        raise AtomError(
            f"--channels {kind} of one model is one channel, with nothing to compare; give several --models"
        )
    if kind == "classes":
        _check_classes(run.models)
    strengths = None
    if run.regularization is not None:
        strengths = {names[model]: _strength(model, run.regularization) for model in run.models}
    with quiet():  # which rows a training run would hold out is of no concern here
        data = load_data(run.dataset, **{name: getattr(run, name) for name in DATA_FIELDS if hasattr(run, name)})
    points = find_points(data.eval if run.hold_out else evaluation_rows(data), run.samples, run.seed)
    if points.count < FEWEST:
        raise AtomError(
            f"--dataset {run.dataset!r} has {points.count} rows to read; give {FEWEST} or more: with fewer, chance "
            "decides"
        )
    folder = Path(run.output_dir or os.path.join("runs", f"{data.name}-fragments"))
    check_output_folder(folder)
    with lock_folder(folder), quiet():
        channels = _read_all(run, names, kind, asdict(options), points, folder)
        found = _find(run, kind, data, channels, points, strengths)
        return found, write_files(found, run, folder)


def _run_names(models: list[str]) -> dict[str, str]:
    """A name for each model: its last part, or all of it where that is not its own."""
    short = [run_name(model) for model in models]
    return {model: name if short.count(name) == 1 else model for model, name in zip(models, short, strict=True)}


def _usual_kind(models: list[str]) -> str:
    names = [str((config_of(model).architectures or [""])[0]) for model in models]
    classify = all("Classification" in name and "TokenClassification" not in name for name in names)
    return "classes" if classify else "space"


def _check_classes(models: list[str]) -> None:
    """Raise `AtomError` for runs whose classes have different names."""
    first = list(config_of(models[0]).id2label.values())
    for model in models[1:]:
        names = list(config_of(model).id2label.values())
        if names != first:
            shown = [", ".join(map(str, one[:5])) + (", ..." if len(one) > 5 else "") for one in (first, names)]
            raise AtomError(
                f"--models: the classes of {models[0]!r} are {shown[0]}, and those of {model!r} {shown[1]}; give runs of the "
                "same classes"
            )


def _strength(model: str, name: str) -> float:
    """A number in the configuration of a run, or of its atoms. Raises `AtomError`."""
    atoms = read_heads_config(find_model(model))
    value: Any = {**config_of(model).to_dict(), **({} if atoms is None else asdict(atoms))}
    numbers = [key for key, one in value.items() if _is_number(one)]
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if not _is_number(value):
        raise AtomError(
            f"--regularization {name!r}: the configuration of {model!r} has no such number; it has {', '.join(numbers[:20])}"
        )
    return float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _read_all(
    run: FragmentsArguments, names: dict[str, str], kind: str, options: dict[str, Any], points: Points, folder: Path
) -> list[Channel]:
    """The channels of all runs, one model in memory at a time."""
    given = {**options, "layer": run.layers() if kind in OF_LAYERS else -1, "side": run.side, "seed": run.seed}
    given |= {"max_length": run.max_length, "points": (run.points or TOKENS) if run.of == "tokens" else None}
    rows = hashed({"rows": points.ids()})
    channels: list[Channel] = []
    for number, model in enumerate(tqdm(run.models, desc="runs", unit="run", disable=len(run.models) < 2)):
        settings = settings_of(model, rows=rows, **given)
        file = folder / "channels" / f"{number}.npz"
        read = load_channels(file, settings)
        if read is None:
            loaded = load_model(model)
            processor = processor_of(model, loaded)
            read = read_channels(
                loaded, points, processor=processor, batch_size=run.batch_size, run=names[model], **given
            )
            save_channels(file, read, settings)
            del loaded
        channels += read
        if len(channels) > MOST_CHANNELS:
            raise AtomError(
                f"--models have more than {MOST_CHANNELS} channels; give fewer, or --channels subspaces or space"
            )
    return channels


def _find(
    run: FragmentsArguments,
    kind: str,
    data: TaskData,
    channels: list[Channel],
    points: Points,
    strengths: dict[str, float] | None,
) -> Found:
    if channels[0].points < FEWEST:
        raise AtomError(
            f"--dataset has {channels[0].points} data points; give {FEWEST} or more: with fewer, chance decides"
        )
    options = {"estimator": run.estimator, "seed": run.seed}
    comparison = compare_channels(channels, errors=run.errors, chance=True, **options)
    labels = _labels(points, channels[0])
    to_labels = None
    if labels is not None and len(labels.unique()) > 1:
        truth = Channel.hard(labels, name=LABELS, ids=channels[0].ids)
        estimator = "auto" if run.estimator == "exact" else run.estimator
        to_labels = compare_channels(channels, [truth], chance=True, estimator=estimator, seed=run.seed)
    hotspots = find_hotspots(
        channels,
        distance=run.distance,
        cluster=run.cluster,
        min_size=run.min_size,
        estimator=run.estimator,
        comparison=comparison,
    )
    found = Found(kind, data.name, channels, comparison, to_labels, hotspots, labels, points.names, strengths)
    if strengths is not None:
        rows = by_regularization(
            channels, strengths, distance=run.distance, cluster=run.cluster, estimator=run.estimator
        )
        found = replace(found, regularization=rows)
    if run.fuse is not None:
        learners = [channels[index] for index in hotspots.kept.tolist()]
        bits = None if run.fuse == "vi" else run.fuse_bits if run.fuse_bits is not None else "best"
        fusion = fuse(learners, objective=run.fuse, bits=bits, seed=run.seed)
        found = replace(found, fusion=fusion, bars=representations(fusion, learners))
    if run.select is not None:
        found = replace(found, selection=_select(channels, run.select, labels, run.seed))
    return found


def representations(fusion: Fusion, learners: list[Channel]) -> dict[str, tuple[float, float]]:
    """(mean NMI to the learners, bits) of a fusion, of its closed forms, and of the learner most like the others."""
    single = compare_channels(learners, estimator="fingerprint")
    mean = (single.nmi.sum(1) - 1) / max(1, len(learners) - 1)
    best = int(mean.argmax())
    made = {"fusion": fusion.channel, "mean fingerprint": fusion.mean_fingerprint, "product": fusion.product}
    found = compare_channels(list(made.values()), learners, estimator="fingerprint")
    bars = {name: (float(found.nmi[i].mean()), float(found.information[i])) for i, name in enumerate(made)}
    return {**bars, "best single": (float(mean[best]), float(single.information[best]))}


def _labels(points: Points, channel: Channel) -> Tensor | None:
    """int64 [N], the class of each data point: of a token that of its sample."""
    if points.labels is None:
        return None
    rows = [int(name.split(":")[0]) for name in channel.ids]
    return torch.as_tensor(points.labels[rows])


def _select(channels: list[Channel], count: int, labels: Tensor | None, seed: int) -> dict[str, Any]:
    """Runs selected on half of the points, and the accuracy of their ensemble and of others on the other half."""
    if labels is None:
        raise AtomError("--select measures accuracy, and the data have no labels; leave it out, or use select_runs")
    order = torch.randperm(channels[0].points, generator=torch.Generator().manual_seed(seed))
    seen, unseen = order.chunk(2)
    probabilities = torch.stack([channel.probabilities[unseen] for channel in channels])
    halves = [channel.take(seen) for channel in channels]
    found = selection_report(halves, count, labels[seen], probabilities, labels[unseen], seed=seed)
    return {**found, "selected": [channels[index].run for index in found["selected"]]}
