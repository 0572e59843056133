"""`atom-hf study`: arms x data sets x sizes x seeds in paired runs, measured by more than accuracy, and resumable.

A study is a YAML file:

    title: Digits
    seeds: 10                   # 0 to 9, or from first_seed on
    arms:                       # flags in place of the setting's; the first arm is what the others are compared to
      plain: {atom: false}
      atom: {atom: true}
    settings:
      digits, from nothing:     # any flags of `atom-hf train`, and
        model_type: vit
        dataset: digits
        metric: accuracy        # the main measure; mcc, or perplexity for a causal-lm
        sizes:                  # training samples, each with the flags that go with that size
          100: {num_train_epochs: 60}
          300: {num_train_epochs: 30}
        shifts:                 # further test data by name, as flags
          out of domain: {eval_dataset: other.csv}
        latents: true           # keep latents over training of the first seed, for a picture
"""

import dataclasses
import gc
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
from tqdm.auto import tqdm
from transformers import PrinterCallback, TrainerCallback

from ..atoms.config import AtomConfig
from ..errors import AtomError
from ..finetune.arguments import RunArguments, load_run_data
from ..finetune.run import Prepared, prepare_run, unlogged_run
from ..training.random_state import keeping_random_state
from ..utils.files import check_output_folder, read_yaml
from ..utils.jsonl import RESULTS_NAME, append_line, hashed, read_lines, start_lines
from ..utils.quiet import quiet
from .measures import measure_classifier, measure_writer, read_outputs
from .paired_runs import warn_of_accumulation, with_flags
from .regularizers import StudyTrainer, StudyTrainingArguments, output_layer

OWN_KEYS = ("sizes", "metric", "shifts", "latents")

# What --local may say: the result is the same wherever the same data and model lie.
WHERE = (
    *("dataset", "eval_dataset", "dataset_config", "train_split", "eval_split", "model", "model_revision", "tokenizer"),
    *("text_column", "text_pair_column", "image_column", "label_column"),
)

MOMENTS = (0.0, 0.05, 0.2, 1.0)  # of training, at which latents are kept


@dataclass
class StudyArguments:
    """Which part of a study runs, and where its results lie."""

    seeds: int | None = field(default=None, metadata={"help": "Run this many seeds instead of what the study says."})
    local: str | None = field(
        default=None,
        metadata={"help": "A YAML file {setting: {flag: value}}: where the data lies, if not where the study says."},
    )
    output_dir: str | None = field(
        default=None, metadata={"help": "The folder of results, tables and plots; by default beside the study."}
    )
    report_only: bool = field(default=False, metadata={"help": "Run nothing; write the report of what has run."})


class Setting(NamedTuple):
    """One data set, model and way to train, at one or more sizes."""

    name: str
    flags: dict[str, Any]
    sizes: dict[int, dict[str, Any]]
    metric: str
    shifts: dict[str, dict[str, Any]]
    latents: bool


class Study(NamedTuple):
    """What a study's file says."""

    title: str
    seeds: int
    arms: dict[str, dict[str, Any]]
    settings: list[Setting]
    first_seed: int = 0


@dataclass(frozen=True, eq=False)
class Job:
    """One run of a study."""

    setting: Setting
    size: int
    arm: str
    seed: int
    is_first: bool
    """Whether the seed is the study's first, whose latents are kept."""

    @property
    def key(self) -> tuple[str, int, str, int]:
        return self.setting.name, self.size, self.arm, self.seed


def read_study(path: str) -> Study:
    """Reads a study's file. Raises `AtomError`, saying what is wrong in it."""
    raw = read_yaml(path, "study")

    def check(condition: bool, what: str) -> None:
        if not condition:
            raise AtomError(f"study {path!r}: {what}")

    check(isinstance(raw, dict), "must hold title, seeds, arms and settings")
    known = ("title", "seeds", "first_seed", "arms", "settings")
    unknown = sorted(set(map(str, raw)) - set(known))
    check(not unknown, f"unknown keys {', '.join(unknown)}; there are {', '.join(known)}")
    first_seed = raw.get("first_seed", 0)
    check(_is_whole(first_seed) and first_seed >= 0, f"first_seed must be a whole number, got {first_seed!r}")
    seeds, arms, settings = raw.get("seeds"), raw.get("arms"), raw.get("settings")
    check(_is_whole(seeds) and seeds >= 2, f"seeds must be a whole number of at least 2, got {seeds!r}")
    check(_is_map_of_maps(arms) and len(arms) >= 2, "arms must hold at least two arms, each as 'name: {flag: value}'")
    check(_is_map_of_maps(settings) and bool(settings), "settings must hold 'name: {flag: value}'")
    found = []
    for name, flags in settings.items():
        sizes, shifts = flags.get("sizes"), flags.get("shifts", {})
        check(
            _is_map_of_maps(sizes) and bool(sizes) and all(isinstance(n, int) and n > 1 for n in sizes),
            f"setting {name!r}: sizes must hold 'training samples: {{flag: value}}'",
        )
        check(_is_map_of_maps(shifts), f"setting {name!r}: shifts must hold 'name: {{flag: value}}'")
        own = {key: value for key, value in flags.items() if key not in OWN_KEYS}
        metric = flags.get("metric", "accuracy")
        check(
            metric in ("accuracy", "mcc", "perplexity"),
            f"setting {name!r}: metric must be accuracy, mcc or perplexity, got {metric!r}",
        )
        found.append(Setting(str(name), own, sizes, metric, shifts, bool(flags.get("latents"))))
    named = {str(name): flags for name, flags in arms.items()}
    return Study(str(raw.get("title", Path(path).stem)), seeds, named, found, first_seed)


def run_study(path: str, options: StudyArguments) -> tuple[Study, list[dict[str, Any]], Path]:
    """Runs what has not run yet. Returns the study, the results of all its runs so far, and their folder.

    Paired: runs of one setting, size and seed have the same samples, initial weights, order and number of steps in every arm.
    Each result is appended to `results.jsonl` as its run ends. A result is known by all flags that it depends on but where
    data lies, so that a study may grow by arms, settings and seeds and keep what has run.

    Raises:
        AtomError: a file that cannot be read, flags that cannot be used, or results of other flags under the same name.
    """
    study = read_study(path)
    if options.seeds is not None:
        if options.seeds < 2:
            raise AtomError(f"--seeds must be at least 2, got {options.seeds}")
        study = study._replace(seeds=options.seeds)
    local = read_yaml(options.local, "--local") if options.local else {}
    if not _is_map_of_maps(local) or not all(_is_map_of_maps(flags.get("shifts", {})) for flags in local.values()):
        raise AtomError(
            f"--local {options.local!r} must hold settings as 'name: {{flag: value}}', shifts within likewise"
        )
    folder = Path(options.output_dir) if options.output_dir else Path(path).with_suffix("")
    check_output_folder(folder)
    jobs = list(_jobs(study))
    flags = {job: _flags(study, job) for job in jobs}
    hashes = {job: _fingerprint(job, *flags[job]) for job in jobs}
    lines = read_lines(folder / RESULTS_NAME)
    if not all(
        isinstance(line, dict) and {"setting", "size", "arm", "seed", "settings"} <= set(line) for line in lines
    ):
        raise AtomError(f"{folder / RESULTS_NAME} holds other results than a study's; give another --output_dir")
    done = {(line["setting"], line["size"], line["arm"], line["seed"]): line for line in lines}
    for job in jobs:
        if job.key in done and done[job.key]["settings"] != hashes[job]:
            raise AtomError(
                f"{folder / RESULTS_NAME} holds '{job.arm}' of '{job.setting.name}' run with other flags; "
                "remove those lines or give another --output_dir"
            )
    todo = [job for job in jobs if job.key not in done]
    if todo and not options.report_only:
        warn_of_accumulation(max((flags[job][1] for job in todo), key=lambda args: args.gradient_accumulation_steps))
        located = {job: _locate(flags[job], local.get(job.setting.name, {}), options.local) for job in todo}
        with quiet():
            # What cannot run is refused before anything has run.
            for job in {(job.setting.name, job.size, job.arm): job for job in todo}.values():
                with unlogged_run(*located[job], job.seed) as arguments:
                    prepared = _prepare(*arguments)
                    _check(job, prepared)
                    _load_shifts(job, arguments[0], _local_shifts(job, local), prepared.data.labels)
            start_lines(folder / RESULTS_NAME)
            for job in (bar := tqdm(todo, desc=study.title, unit="run")):
                bar.set_postfix_str(f"{job.setting.name}, {job.size}, {job.arm}, seed {job.seed}")
                found = _run(job, *located[job], folder, _local_shifts(job, local))
                line = {"setting": job.setting.name, "size": job.size, "arm": job.arm, "seed": job.seed}
                done[job.key] = {**line, "settings": hashes[job], **found}
                append_line(folder / RESULTS_NAME, done[job.key])
                gc.collect()
    return study, [done[job.key] for job in jobs if job.key in done], folder


def _jobs(study: Study) -> Iterator[Job]:
    # Seeds outermost: a study that is cut short is a whole study of fewer seeds. Arms innermost: costs are compared
    # between runs that follow each other.
    for seed in range(study.first_seed, study.first_seed + study.seeds):
        for setting in study.settings:
            for size in setting.sizes:
                for arm in study.arms:
                    yield Job(setting, size, arm, seed, seed == study.first_seed)


def _flags(study: Study, job: Job) -> tuple[RunArguments, StudyTrainingArguments]:
    given = f"study: setting {job.setting.name!r}"
    run_names = set(RunArguments.__dataclass_fields__)
    run, args = RunArguments(max_train_samples=job.size), StudyTrainingArguments(per_device_eval_batch_size=32)
    for changes, where in (
        (job.setting.flags, given),
        (job.setting.sizes[job.size], f"{given}, size {job.size}"),
        (study.arms[job.arm], f"study: arm {job.arm!r}"),
    ):
        run = with_flags(run, {k: v for k, v in changes.items() if k in run_names}, where)
        args = with_flags(args, {k: v for k, v in changes.items() if k not in run_names}, where)
    if args.atom:
        args.atom_config()
    return run, args


def _fingerprint(job: Job, run: RunArguments, args: StudyTrainingArguments) -> str:
    """Of what was given, and of all that the atom loss is made of."""
    plain = StudyTrainingArguments(per_device_eval_batch_size=32)
    before = {**plain.to_dict(), **vars(RunArguments())}
    given = {k: v for k, v in {**args.to_dict(), **vars(run)}.items() if v != before[k] and k != "logging_dir"}
    atom = None
    if args.atom:
        # Committed results are known by these hashes: they are of the fields that there were then, and what came later counts
        # only where it is not the default.
        atom = {"format_version": 1, **dataclasses.asdict(args.atom_config())}
        for name in ("side", "explainer_classes", "explainer_width"):
            if atom[name] == getattr(AtomConfig, name):
                del atom[name]
    return hashed({"given": given, "atom": atom, "shifts": job.setting.shifts})


def _locate(flags: tuple[RunArguments, Any], local: dict[str, Any], given: str | None) -> tuple[RunArguments, Any]:
    run, args = flags
    changes = {key: value for key, value in local.items() if key != "shifts"}
    if others := sorted(map(str, set(changes) - set(WHERE))):
        raise AtomError(
            f"--local {given!r} sets {', '.join(others)}; it says where data lies: {', '.join(WHERE)}, shifts"
        )
    return with_flags(run, changes, f"--local {given!r}"), args


def _prepare(run: RunArguments, args: StudyTrainingArguments) -> Prepared:
    return prepare_run(run, args, save=False, trainer_class=StudyTrainer)


def _check(job: Job, prepared: Prepared) -> None:
    """Refuses a run that could be trained but not measured."""
    name, task, count = job.setting.name, prepared.data.task, len(prepared.data.train)
    if count != job.size:
        raise AtomError(f"setting {name!r} has {count} training samples, not {job.size}")
    if (job.setting.metric == "perplexity") != (task == "causal-lm"):
        raise AtomError(f"setting {name!r}: metric is {job.setting.metric}, which {task} does not have")
    if task == "causal-lm" and (job.setting.latents or job.setting.shifts):
        raise AtomError(f"setting {name!r}: latents and shifts are for classification, not for causal-lm")
    output_layer(prepared.trainer.model)


def _local_shifts(job: Job, local: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return local.get(job.setting.name, {}).get("shifts", {})


def _load_shifts(
    job: Job, run: RunArguments, local: dict[str, dict[str, Any]], labels: list[str] | None
) -> dict[str, datasets.Dataset]:
    found = {}
    for name, flags in job.setting.shifts.items():
        data = load_run_data(with_flags(run, {**flags, **local.get(name, {})}, f"shift {name!r}"))
        if data.labels != labels:
            raise AtomError(f"shift {name!r} has the classes {data.labels}, the training data {labels}")
        found[name] = data.eval
    return found


def _run(
    job: Job, run: RunArguments, args: StudyTrainingArguments, folder: Path, local: dict[str, Any]
) -> dict[str, float]:
    with unlogged_run(run, args, job.seed) as (one, quietly):
        prepared = _prepare(one, quietly)
        trainer, data, _ = prepared
        trainer.remove_callback(PrinterCallback)
        if job.setting.latents and job.is_first:
            trainer.add_callback(_LatentCallback(prepared, job, _latents_path(folder, job)))
        # On a CPU that others use too, its own time is what a run costs.
        clock = time.perf_counter if trainer.args.device.type != "cpu" else time.process_time
        began = clock()
        trainer.train()
        seconds = clock() - began
        if data.task == "causal-lm":
            measures, _ = measure_writer(prepared, job.seed)
        else:
            measures, _ = measure_classifier(prepared, _load_shifts(job, one, local, data.labels), job.seed)
    return {**measures, "seconds": round(seconds, 2)}


def _latents_path(folder: Path, job: Job) -> Path:
    plain = "".join(c if c.isalnum() else "-" for c in f"{job.setting.name}-{job.size}-{job.arm}")
    return folder / "latents" / f"{plain}.json"


class _LatentCallback(TrainerCallback):
    """Keeps the latents of 300 evaluation samples over training, in the plane of the last ones' principal components."""

    def __init__(self, prepared: Prepared, job: Job, path: Path):
        self.prepared, self.job, self.path = prepared, job, path
        self.kept: list[tuple[float, np.ndarray]] = []

    def _keep(self, state: Any) -> None:
        progress = state.global_step / max(1, state.max_steps)
        due = [moment for moment in MOMENTS if moment <= progress + 1e-9]
        if len(due) <= len(self.kept):
            return
        rows = self.prepared.data.eval
        rows = rows.select(range(min(300, len(rows))))
        trainer = self.prepared.trainer
        with keeping_random_state(trainer.args.device):  # the run goes on as if nobody had looked
            _, self.labels, latent = read_outputs(self.prepared, self.prepared.task.encode(rows))
        self.kept.append((progress, latent))
        trainer.model.train()

    def on_train_begin(self, args, state, control, **kwargs):
        self._keep(state)

    def on_step_end(self, args, state, control, **kwargs):
        self._keep(state)

    def on_train_end(self, args, state, control, **kwargs):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        last = self.kept[-1][1]
        _, _, components = np.linalg.svd(last - last.mean(0), full_matrices=False)
        moments = [
            {"progress": progress, "points": np.round((latent - latent.mean(0)) @ components[:2].T, 3).tolist()}
            for progress, latent in self.kept
        ]
        about = {"setting": self.job.setting.name, "size": self.job.size, "arm": self.job.arm}
        self.path.write_text(
            json.dumps({**about, "labels": self.labels.tolist(), "moments": moments}), encoding="utf-8"
        )


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_map_of_maps(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(inner, dict) for inner in value.values())
