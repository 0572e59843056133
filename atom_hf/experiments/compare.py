"""Compare runs with and without the atom loss, seed by seed."""

import gc
import hashlib
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from tqdm.auto import tqdm

from ..data.load import TaskData
from ..errors import AtomError
from ..finetune.arguments import RunArguments, load_run_data
from ..finetune.run import (
    DEFAULT_FOLDER,
    IMPORTANCE_KEYS,
    RunResult,
    default_output_dir,
    fine_tune,
    prepare_run,
    unlogged_run,
)
from ..hub.card import Comparison
from ..importance.read import read_samples
from ..training.arguments import AtomTrainingArguments
from ..utils.bounds import COUNT, Bound
from ..utils.files import check_output_folder, check_page, read_yaml
from ..utils.jsonl import RESULTS_NAME, append_line, read_lines, start_lines
from ..utils.lock import lock_folder
from ..utils.quiet import quiet
from ..utils.statistics import t_interval
from ..visualization.files import write_files
from ..visualization.page import Table
from .paired_runs import fingerprint, training_fingerprint, warn_of_accumulation, with_flags

ARMS = {"plain": {"atom": False}, "atom": {"atom": True}}

EXPLAINER_SAMPLES = 200  # of the model that the page shows

LESS_IS_BETTER = ("loss", "perplexity")


@dataclass
class CompareArguments:
    """The arms and seeds of the paired runs, and the page."""

    bounds: ClassVar[dict[str, Bound]] = {"page_samples": COUNT}

    seeds: int = field(default=3, metadata={"help": "Number of seeds: --seed, --seed + 1, ... Each arm runs with all."})
    arms: str | None = field(
        default=None,
        metadata={"help": "A YAML file {arm: {flag: value}}; plain and atom by default. The first is the reference."},
    )
    page: str | None = field(
        default=None,
        metadata={"help": "Path of an HTML page: the table, and samples with their importance (first seed)."},
    )
    page_samples: int = field(default=24, metadata={"help": "Number of evaluation samples on the page."})


@dataclass(frozen=True)
class Report:
    """The result of `compare_runs`."""

    table: Table
    folder: str
    page: str | None
    pictures: list[str]


def compare_runs(run: RunArguments, args: AtomTrainingArguments, options: CompareArguments) -> Report:
    """Trains every arm with every seed, and compares each arm with the first.

    Paired: runs of the same seed have the same initial weights, data, order of data and number of steps. The samples are
    drawn by the seed too, so that the seeds differ in their data. Each run's metrics are appended to `results.jsonl` in the
    output folder as it ends; a comparison that was interrupted goes on where it stopped.

    Raises:
        AtomError: fewer than 2 seeds, arms that cannot be read, an output folder with results of other settings.
    """
    if options.seeds < 2:
        raise AtomError(f"--seeds must be at least 2 for a comparison, got {options.seeds}")
    if options.page:
        check_page(options.page)
    arms = _read_arms(options.arms)
    configured = {name: with_flags(args, changes, "--arms") for name, changes in arms.items()}
    for arm in configured.values():
        if arm.atom:
            arm.atom_config()
    warn_of_accumulation(args)
    if args.output_dir != DEFAULT_FOLDER:
        check_output_folder(args.output_dir)
    data = load_run_data(run)
    folder = _default_folder(run, data) if args.output_dir == DEFAULT_FOLDER else Path(args.output_dir)
    check_output_folder(folder)
    with lock_folder(folder):
        return _compare(run, args, options, arms, configured, data, folder)


def _compare(
    run: RunArguments,
    args: AtomTrainingArguments,
    options: CompareArguments,
    arms: dict[str, dict[str, Any]],
    configured: dict[str, AtomTrainingArguments],
    data: TaskData,
    folder: Path,
) -> Report:
    about = {"data": data.name, "task": data.task, "train_samples": len(data.train), "eval_samples": len(data.eval)}
    about |= {"training": training_fingerprint(run, args, arms=arms), "rows": hashed_rows(data)}
    head = {"settings": fingerprint(run, args, arms=arms), **about}
    done = _read_results(folder / RESULTS_NAME, head)
    with quiet():
        for arm in configured.values():
            # An arm that cannot run is rejected before any other has run.
            with unlogged_run(run, arm, args.seed) as arguments:
                prepare_run(*arguments, save=False)
        start_lines(folder / RESULTS_NAME, head)

    with quiet():
        plan = [(args.seed + i, name) for i in range(options.seeds) for name in arms]
        shown = None
        for seed, name in (bar := tqdm(plan, desc="paired runs", unit="run")):
            first = seed == args.seed
            if (seed, name) in done and not (options.page and first and configured[name].atom):
                continue
            bar.set_postfix_str(f"{name}, seed {seed}")
            reads = bool(options.page) and first and configured[name].atom and shown is None
            with unlogged_run(run, configured[name], seed) as arguments:
                result = fine_tune(*arguments, save=False, explainer_samples=EXPLAINER_SAMPLES if reads else 0)
            if (seed, name) not in done:
                done[seed, name] = result.metrics
                append_line(folder / RESULTS_NAME, {"arm": name, "seed": seed, **result.metrics, **result.importance})
            if reads:
                shown = _page_samples(result, options.page_samples)
            del result
            gc.collect()

    seeds = [args.seed + i for i in range(options.seeds)]
    table = paired_table(f"{data.name}: {data.task}, {len(data.train)} training samples", arms, seeds, done)
    page, pictures = None, []
    if options.page:
        title = f"{data.name}, with and without --atom"
        page, *pictures = map(str, write_files(options.page, title=title, tables=[table], **(shown or {})))
    return Report(table, str(folder), page, pictures)


def paired_table(caption: str, arms: Any, seeds: list[int], done: dict[tuple[int, str], dict[str, float]]) -> Table:
    """Mean and standard deviation of each metric for each arm, and the mean paired difference with its 95 % interval."""
    first, *others = arms
    header = ["metric", first]
    for name in others:
        header += [name, f"{name} - {first} [95 %]"]
    rows = []
    for metric in (m for m in done[seeds[0], first] if m != "epoch"):
        values = {name: [done[seed, name][metric] for seed in seeds] for name in arms}
        row = [metric + (" (less is better)" if metric in LESS_IS_BETTER else ""), _mean(values[first])]
        for name in others:
            gap = t_interval([b - a for a, b in zip(values[first], values[name], strict=True)])
            row += [_mean(values[name]), f"{gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]"]
        rows.append(row)
    note = f"Mean ± standard deviation over {len(seeds)} seeds; differences are paired by seed."
    return Table(caption, header, rows, note)


def read_comparison(folder: str | Path) -> tuple[dict[str, Any], Comparison]:
    """The results of `compare_runs` in a folder: (their first line, the table over the seeds that every arm has run with).

    Raises `AtomError` if there is no such comparison, or one of fewer than two seeds.
    """
    lines = read_lines(Path(folder, RESULTS_NAME))
    try:
        about, *rest = lines
        done = {(line.pop("seed"), line.pop("arm")): line for line in rest}
        counts = about["train_samples"], about["eval_samples"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise AtomError(f"{Path(folder, RESULTS_NAME)} holds no results of atom-hf compare") from error
    arms = list(dict.fromkeys(arm for _, arm in done))
    seeds = sorted(seed for seed in {s for s, _ in done} if all((seed, arm) in done for arm in arms))
    if len(seeds) < 2 or len(arms) < 2:
        raise AtomError(f"{Path(folder, RESULTS_NAME)} holds fewer than two seeds that every arm has run with")
    table = paired_table("", arms, seeds, done)
    means = {
        arm: {name: statistics.mean(done[seed, arm][name] for seed in seeds) for name in done[seeds[0], arm]}
        for arm in arms
    }
    return about, Comparison(table.header, table.rows, seeds, *counts, means)


def find_comparison(run: RunArguments, args: AtomTrainingArguments) -> Callable[[TaskData], Comparison | None]:
    """A function that finds an earlier comparison with the very settings of this run, in `compare`'s default folder.

    Ask before the run: it fills in what its arguments leave open.
    """
    training = training_fingerprint(run, args, arms=ARMS)
    # Paired runs end with their last weights, whatever their flags.
    comparable = not args.load_best_model_at_end

    def find(data: TaskData) -> Comparison | None:
        try:
            about, found = read_comparison(_default_folder(run, data))
        except AtomError:
            return None
        # Results from before these two were kept do not tell what they are of.
        same = comparable and about.get("training") == training and about.get("rows") == hashed_rows(data)
        return found if same else None

    return find


def hashed_rows(data: TaskData) -> str:
    """A hash of the rows, wherever they lie: sixteen hexadecimal digits. An image file counts by its modification time."""
    digest = hashlib.sha256(repr(data.labels).encode())
    for rows in (data.train, data.eval):
        for batch in rows.with_format("arrow").iter(1000):
            for name, column in batch.to_pydict().items():
                digest.update(repr((name, [_with_time(value) for value in column])).encode())
        digest.update(b"end")
    return digest.hexdigest()[:16]


def _with_time(value: Any) -> Any:
    if isinstance(value, dict) and value.get("bytes", 0) is None and Path(str(value.get("path"))).is_file():
        return value["path"], Path(value["path"]).stat().st_mtime_ns
    return value


def _default_folder(run: RunArguments, data: TaskData) -> Path:
    return Path(default_output_dir(run, data, True).removesuffix("-atom") + "-compare")


def _read_arms(path: str | None) -> dict[str, dict[str, Any]]:
    if path is None:
        return ARMS
    arms = read_yaml(path, "--arms")
    if not isinstance(arms, dict) or len(arms) < 2 or not all(isinstance(changes, dict) for changes in arms.values()):
        raise AtomError(f"--arms {path!r} must hold at least two arms, each as 'name: {{flag: value}}'")
    return arms


def _read_results(path: Path, head: dict[str, Any]) -> dict[tuple[int, str], dict[str, float]]:
    lines = read_lines(path)
    if len(lines) < 2:
        return {}
    if not isinstance(lines[0], dict) or lines[0].get("settings") != head["settings"]:
        raise AtomError(f"--output_dir {str(path.parent)!r} holds a comparison with other settings; give another")
    if lines[0].get("rows", head["rows"]) != head["rows"]:
        raise AtomError(
            f"--output_dir {str(path.parent)!r} holds a comparison on other rows; the data changed, give another"
        )
    done = {}
    for line in lines[1:]:
        key = line.pop("seed"), line.pop("arm")
        done[key] = {name: value for name, value in line.items() if name not in IMPORTANCE_KEYS}
    return done


def _page_samples(result: RunResult, samples: int) -> dict[str, Any]:
    model = result.trainer.accelerator.unwrap_model(result.trainer.model)
    shown = read_samples(model, result.trainer.processing_class, result.data, samples)
    return {**shown, "softening": model.atom_config.softening, "fitted": model.atom_config.has_explainer}


def _mean(values: list[float]) -> str:
    return f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}"
