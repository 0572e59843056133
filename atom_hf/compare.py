"""Paired runs: the same seeds with and without the atom loss, side by side."""

import copy
import dataclasses
import gc
import hashlib
import json
import logging
import math
import statistics
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import transformers
import yaml
from tqdm.auto import tqdm
from transformers.trainer_utils import SaveStrategy

from .errors import AtomError
from .explain import read_samples, write_picture
from .flags import as_flags, parse_kinds
from .page import Table, write_page
from .run import (
    DEFAULT_FOLDER,
    IMPORTANCE_KEYS,
    Outcome,
    RunArguments,
    check_page,
    default_output_dir,
    fine_tune,
    load_run_data,
    prepare_run,
)
from .trainer import AtomTrainingArguments

ARMS = {"plain": {"atom": False}, "atom": {"atom": True}}
RESULTS_NAME = "results.jsonl"
LESS_IS_BETTER = ("loss", "perplexity")


@dataclass
class CompareArguments:
    """How many paired runs, of what."""

    seeds: int = field(default=3, metadata={"help": "How many seeds: --seed, --seed + 1, ... Each arm runs with each."})
    arms: str | None = field(
        default=None,
        metadata={"help": "A YAML file {arm: {flag: value}}; plain and atom if not given. The first is compared to."},
    )
    page: str | None = field(
        default=None, metadata={"help": "Write the table and samples of the first seed under their importance here."}
    )
    page_samples: int = field(default=24, metadata={"help": "How many evaluation samples the page shows."})


@dataclass(frozen=True)
class Report:
    """What `compare_runs` ends with."""

    table: Table
    folder: str
    page: str | None


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
    configured = {name: _with(args, changes) for name, changes in arms.items()}
    folder = Path(args.output_dir)
    if folder.exists() and not folder.is_dir():
        raise AtomError(f"--output_dir {args.output_dir!r} is a file; give a folder")
    data = load_run_data(run)
    if args.output_dir == DEFAULT_FOLDER:
        folder = Path(default_output_dir(run, data, True).removesuffix("-atom") + "-compare")
    about = {"data": data.name, "task": data.task, "train_samples": len(data.train), "eval_samples": len(data.eval)}
    head = {"settings": _fingerprint(run, args, arms), **about}
    done = _read_results(folder / RESULTS_NAME, head)
    with _quiet():
        for arm in configured.values():
            # An arm that cannot run is refused before any other has run.
            with _silent(run, arm, args.seed) as arguments:
                prepare_run(*arguments, save=False)
        _start_results(folder / RESULTS_NAME, head)

    with _quiet():
        plan = [(args.seed + i, name) for i in range(options.seeds) for name in arms]
        shown = None
        for seed, name in (bar := tqdm(plan, desc="paired runs", unit="run")):
            first = seed == args.seed
            if (seed, name) in done and not (options.page and first and configured[name].atom):
                continue
            bar.set_postfix_str(f"{name}, seed {seed}")
            with _silent(run, configured[name], seed) as arguments:
                outcome = fine_tune(*arguments, save=False)
            if (seed, name) not in done:
                done[seed, name] = outcome.metrics
                _append(folder / RESULTS_NAME, {"arm": name, "seed": seed, **outcome.metrics, **outcome.importance})
            if options.page and first and configured[name].atom and shown is None:
                shown = _readings(outcome, options.page_samples)
            del outcome
            gc.collect()

    seeds = [args.seed + i for i in range(options.seeds)]
    table = paired_table(f"{data.name}: {data.task}, {len(data.train)} training samples", arms, seeds, done)
    page = None
    if options.page:
        page = str(
            write_page(options.page, title=f"{data.name}, with and without --atom", tables=[table], **(shown or {}))
        )
        write_picture(Path(options.page).with_suffix(".png"), shown or {})
    return Report(table, str(folder), page)


def paired_table(caption: str, arms: Any, seeds: list[int], done: dict[tuple[int, str], dict[str, float]]) -> Table:
    """Mean and standard deviation of each metric for each arm, and the mean paired difference with its 95 % interval."""
    from scipy import stats

    first, *others = arms
    header = ["metric", first]
    for name in others:
        header += [name, f"{name} - {first} [95 %]"]
    rows = []
    for metric in (m for m in done[seeds[0], first] if m != "epoch"):
        values = {name: [done[seed, name][metric] for seed in seeds] for name in arms}
        row = [metric + (" (less is better)" if metric in LESS_IS_BETTER else ""), _mean(values[first])]
        for name in others:
            differences = [b - a for a, b in zip(values[first], values[name], strict=True)]
            half = stats.t.ppf(0.975, len(seeds) - 1) * statistics.stdev(differences) / math.sqrt(len(seeds))
            mean = statistics.mean(differences)
            row += [_mean(values[name]), f"{mean:+.4f} [{mean - half:+.4f}, {mean + half:+.4f}]"]
        rows.append(row)
    note = f"Mean ± standard deviation over {len(seeds)} seeds; differences are paired by seed."
    return Table(caption, header, rows, note)


@contextmanager
def _quiet():
    """One bar over all runs, instead of several bars and lines for each."""
    ours, theirs = logging.getLogger("atom_hf"), transformers.utils.logging
    levels = ours.level, theirs.get_verbosity()
    ours.setLevel(logging.WARNING)
    theirs.set_verbosity_error()
    theirs.disable_progress_bar()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        ours.setLevel(levels[0])
        theirs.set_verbosity(levels[1])
        theirs.enable_progress_bar()
        datasets.enable_progress_bars()


@contextmanager
def _silent(run: RunArguments, args: AtomTrainingArguments, seed: int):
    """The arguments of one run that draws its samples by the seed, and neither shows nor saves anything."""
    run = dataclasses.replace(run, sample_seed=run.sample_seed + seed)
    never = transformers.trainer_utils.IntervalStrategy.NO
    quiet = {"disable_tqdm": True, "report_to": [], "logging_strategy": never, "save_strategy": SaveStrategy.NO}
    with tempfile.TemporaryDirectory() as folder:  # Trainer wants a folder, though nothing is saved
        changed = copy.copy(args)
        for name, value in {"seed": seed, "output_dir": folder, **quiet}.items():
            setattr(changed, name, value)
        yield run, changed


def _with(args: AtomTrainingArguments, changes: dict[str, Any]) -> AtomTrainingArguments:
    unknown = sorted(set(changes) - {f.name for f in dataclasses.fields(args)})
    if unknown:
        raise AtomError(f"--arms sets {', '.join(unknown)}, which are no flags of a training run")
    typed = parse_kinds("compare --arms", as_flags(changes), [AtomTrainingArguments])[0]
    changed = copy.copy(args)
    for name in changes:
        setattr(changed, name, getattr(typed, name))
    if changed.atom:
        changed.atom_config()
    return changed


def _read_arms(path: str | None) -> dict[str, dict[str, Any]]:
    if path is None:
        return ARMS
    try:
        arms = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise AtomError(f"--arms {path!r} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(arms, dict) or len(arms) < 2 or not all(isinstance(changes, dict) for changes in arms.values()):
        raise AtomError(f"--arms {path!r} must hold at least two arms, each as 'name: {{flag: value}}'")
    return arms


def _fingerprint(run: RunArguments, args: AtomTrainingArguments, arms: Any) -> str:
    """Of everything that a result depends on, but for which seeds and arms have run."""
    ignored = {"output_dir", "seed", "run_name", "logging_dir", "local_rank", "disable_tqdm"}
    settings = {
        **dataclasses.asdict(run),
        **{k: v for k, v in args.to_dict().items() if k not in ignored},
        "arms": arms,
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _read_results(path: Path, head: dict[str, Any]) -> dict[tuple[int, str], dict[str, float]]:
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except ValueError:
            break  # a line that was cut short as it was written: that run is done again
    if len(lines) < 2:
        return {}
    if not isinstance(lines[0], dict) or lines[0].get("settings") != head["settings"]:
        raise AtomError(f"--output_dir {str(path.parent)!r} holds a comparison with other settings; give another")
    done = {}
    for line in lines[1:]:
        key = line.pop("seed"), line.pop("arm")
        done[key] = {name: value for name, value in line.items() if name not in IMPORTANCE_KEYS}
    return done


def _start_results(path: Path, head: dict[str, Any]) -> None:
    """Writes the head of a new file, or drops a last line that was cut short."""
    whole = [
        text
        for text in (path.read_text(encoding="utf-8") if path.exists() else "").splitlines(True)
        if text[-1:] == "\n"
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(whole) if len(whole) > 1 else json.dumps(head) + "\n", encoding="utf-8")


def _append(path: Path, line: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _readings(outcome: Outcome, samples: int) -> dict[str, list]:
    trainer = outcome.trainer
    return read_samples(
        trainer.accelerator.unwrap_model(trainer.model), trainer.processing_class, outcome.data, samples
    )


def _mean(values: list[float]) -> str:
    return f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}"
