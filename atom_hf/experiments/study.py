"""`atom-hf study`: arms x data sets x sizes x seeds in paired runs, measured by more than accuracy, and resumable."""

import dataclasses
import gc
import json
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from tqdm.auto import tqdm
from transformers import PrinterCallback, TrainerCallback

from ..data.load import TaskData
from ..errors import AtomError
from ..finetune.arguments import RunArguments, load_run_data
from ..finetune.run import Prepared, prepare_run, unlogged_run
from ..finetune.saving import check_diverged
from ..training.random_state import keeping_random_state
from ..utils.files import check_output_folder, read_yaml, write_atomically
from ..utils.jsonl import RESULTS_NAME, append_line, read_lines, start_lines
from ..utils.lock import lock_folder
from ..utils.quiet import quiet
from .features import encode, read_outputs
from .measures import measure_classifier, measure_probes, measure_writer
from .paired_runs import warn_of_accumulation, with_flags
from .regularizers import StudyTrainer, StudyTrainingArguments, output_layer
from .study_file import Job, Study, is_map_of_maps, job_fingerprint, job_flags, locate, read_study, study_jobs

MOMENTS = (0.0, 0.05, 0.2, 1.0)  # of training, at which latents are kept


@dataclass
class StudyArguments:
    """The part of a study to run, and the folder of its results."""

    seeds: int | None = field(default=None, metadata={"help": "Number of seeds; by default the study's."})
    local: str | None = field(
        default=None,
        metadata={"help": "A YAML file {setting: {flag: value}} with the local paths of data and models."},
    )
    output_dir: str | None = field(
        default=None, metadata={"help": "Folder of results, tables and plots; by default beside the study's file."}
    )
    report_only: bool = field(
        default=False, metadata={"help": "Run nothing, and write the report from the finished runs."}
    )


def run_study(path: str, options: StudyArguments) -> tuple[Study, list[dict[str, Any]], Path]:
    """Runs what has not run yet. Returns the study, the results of all its runs so far, and their folder.

    Paired: runs of one setting, size and seed have the same samples, initial weights, order and number of steps in every arm.
    Each result is appended to `results.jsonl` when its run ends, with a hash of all flags that it depends on (except where the
    data are), so that a study can grow by arms, settings and seeds and keep its finished runs.

    Raises:
        AtomError: a file that cannot be read, flags that cannot be used, or results of other flags under the same name.
    """
    study = read_study(path)
    if options.seeds is not None:
        if options.seeds < 2:
            raise AtomError(f"--seeds must be at least 2, got {options.seeds}")
        study = study._replace(seeds=options.seeds)
    local = read_yaml(options.local, "--local") if options.local else {}
    if not is_map_of_maps(local) or not all(
        is_map_of_maps(flags.get(others, {})) for flags in local.values() for others in ("shifts", "probes")
    ):
        raise AtomError(
            f"--local {options.local!r} must hold settings as 'name: {{flag: value}}', shifts and probes within likewise"
        )
    folder = Path(options.output_dir) if options.output_dir else Path(path).with_suffix("")
    check_output_folder(folder)
    # What has run so far may be looked at while more is running.
    with nullcontext() if options.report_only else lock_folder(folder):
        return study, _run_jobs(study, options, local, folder), folder


def _run_jobs(study: Study, options: StudyArguments, local: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """Runs what has not run yet. Returns the results of all runs so far."""
    jobs = list(study_jobs(study))
    flags = {job: job_flags(study, job) for job in jobs}
    hashes = {job: job_fingerprint(job, *flags[job]) for job in jobs}
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
        located = {job: locate(flags[job], local.get(job.setting.name, {}), options.local) for job in todo}
        with quiet():
            # What cannot run is rejected before anything has run.
            for job in {(job.setting.name, job.size, job.arm): job for job in todo}.values():
                with unlogged_run(*located[job], job.seed) as arguments:
                    prepared = _prepare(*arguments)
                    _check(job, prepared)
                    _load_shifts(job, arguments[0], _local(job, local, "shifts"), prepared.data.labels)
                    _load_probes(job, arguments[0], _local(job, local, "probes"), prepared.data.task)
            start_lines(folder / RESULTS_NAME)
            for job in (bar := tqdm(todo, desc=study.title, unit="run")):
                bar.set_postfix_str(f"{job.setting.name}, {job.size}, {job.arm}, seed {job.seed}")
                others = {kind: _local(job, local, kind) for kind in ("shifts", "probes")}
                found = _run(job, *located[job], folder, others)
                line = {"setting": job.setting.name, "size": job.size, "arm": job.arm, "seed": job.seed}
                done[job.key] = {**line, "settings": hashes[job], **found}
                append_line(folder / RESULTS_NAME, done[job.key])
                gc.collect()
    return [done[job.key] for job in jobs if job.key in done]


def _prepare(run: RunArguments, args: StudyTrainingArguments) -> Prepared:
    prepared = prepare_run(run, args, save=False, trainer_class=StudyTrainer)
    if prepared.data.is_image and not run.horizontal_flip:
        prepared.trainer.train_dataset = encode(prepared, prepared.data.train)
    return prepared


def _check(job: Job, prepared: Prepared) -> None:
    """Raises `AtomError` for a run that could be trained but not measured."""
    name, task, count = job.setting.name, prepared.data.task, len(prepared.data.train)
    if count != job.size:
        raise AtomError(f"setting {name!r} has {count} training samples, not {job.size}")
    if (job.setting.metric == "perplexity") != (task == "causal-lm"):
        raise AtomError(f"setting {name!r}: metric is {job.setting.metric}, which {task} does not have")
    if task == "causal-lm" and (job.setting.latents or job.setting.shifts or job.setting.probes):
        raise AtomError(f"setting {name!r}: latents, shifts and probes are for classification, not for causal-lm")
    output_layer(prepared.trainer.model)


def _local(job: Job, local: dict[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    return local.get(job.setting.name, {}).get(kind, {})


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


def _load_probes(job: Job, run: RunArguments, local: dict[str, dict[str, Any]], task: str) -> dict[str, TaskData]:
    # The setting's own numbers of rows are not those of a probe, which uses all that it names.
    own = dataclasses.replace(run, task=task, max_train_samples=None, max_eval_samples=None)
    return {
        name: load_run_data(with_flags(own, {**flags, **local.get(name, {})}, f"probe {name!r}"))
        for name, flags in job.setting.probes.items()
    }


def _measure_untrained(
    prepared: Prepared, probes: dict[str, TaskData], run: RunArguments, seed: int
) -> dict[str, float]:
    """The probes of the initial weights: those of all arms, which are measured once for a seed."""
    key = (*map(str, dataclasses.astuple(run)), seed, *probes)
    if key not in _untrained:
        with keeping_random_state(prepared.trainer.args.device):
            found = measure_probes(prepared, probes, "untrained ")
        _untrained.clear()
        _untrained[key] = found
        prepared.trainer.model.train()
    return _untrained[key]


_untrained: dict[tuple, dict[str, float]] = {}


def _run(
    job: Job, run: RunArguments, args: StudyTrainingArguments, folder: Path, local: dict[str, Any]
) -> dict[str, float]:
    with unlogged_run(run, args, job.seed) as (one, quietly):
        prepared = _prepare(one, quietly)
        trainer, data, _ = prepared
        trainer.remove_callback(PrinterCallback)
        if job.setting.latents and job.is_first:
            trainer.add_callback(_LatentCallback(prepared, job, _latents_path(folder, job)))
        probes = _load_probes(job, one, local["probes"], data.task)
        untrained = _measure_untrained(prepared, probes, one, job.seed) if probes else {}
        # On a shared CPU, the process's own time is what a run costs.
        clock = time.perf_counter if trainer.args.device.type != "cpu" else time.process_time
        began = clock()
        trainer.train()
        seconds = clock() - began
        check_diverged(trainer, save=False)
        if data.task == "causal-lm":
            measures, _ = measure_writer(prepared, job.seed)
        else:
            shifts = _load_shifts(job, one, local["shifts"], data.labels)
            measures, features = measure_classifier(prepared, shifts, job.seed)
            measures |= {**measure_probes(prepared, probes, known=features), **untrained}
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
        with keeping_random_state(trainer.args.device):  # the run continues as without this
            _, self.labels, latent = read_outputs(self.prepared, self.prepared.task.encode(rows))
        self.kept.append((progress, latent))
        trainer.model.train()

    def on_train_begin(self, args, state, control, **kwargs):
        self._keep(state)

    def on_step_end(self, args, state, control, **kwargs):
        self._keep(state)

    def on_train_end(self, args, state, control, **kwargs):
        last = self.kept[-1][1]
        _, _, components = np.linalg.svd(last - last.mean(0), full_matrices=False)
        moments = [
            {"progress": progress, "points": np.round((latent - latent.mean(0)) @ components[:2].T, 3).tolist()}
            for progress, latent in self.kept
        ]
        about = {"setting": self.job.setting.name, "size": self.job.size, "arm": self.job.arm}
        write_atomically(self.path, json.dumps({**about, "labels": self.labels.tolist(), "moments": moments}))
