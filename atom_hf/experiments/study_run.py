"""One run of a study: prepared, checked, trained and measured."""

import dataclasses
import time
from typing import Any, NamedTuple

import datasets
import numpy as np
from transformers import PrinterCallback, TrainerCallback

from ..data.load import TaskData
from ..errors import AtomError
from ..finetune.arguments import RunArguments, load_run_data
from ..finetune.run import Prepared, prepare_run, unlogged_run
from ..finetune.saving import check_diverged
from ..training.random_state import keeping_random_state
from .features import encode, read_outputs
from .measures import measure_classifier, measure_probes, measure_writer
from .paired_runs import with_flags
from .regularizers import StudyTrainer, StudyTrainingArguments, output_layer
from .study_file import Job

MOMENTS = (0.0, 0.05, 0.2, 1.0)  # of training, at which latents are kept


class Measured(NamedTuple):
    """What one run has given: plain values, which another process can send."""

    measures: dict[str, float]
    latents: dict[str, Any] | None
    """Over training, of 300 evaluation samples, where the setting asks for them and the run has the first seed."""


def check_job(job: Job, run: RunArguments, args: StudyTrainingArguments, local: dict[str, Any]) -> None:
    """Raises `AtomError` for a run that cannot be trained or measured: all is prepared, and nothing trained.

    `local` is what `--local` says of the job's setting; of it, shifts and probes count here.
    """
    with unlogged_run(run, args, job.seed) as arguments:
        prepared = _prepare(*arguments)
        _check(job, prepared)
        _load_shifts(job, arguments[0], local.get("shifts", {}), prepared.data.labels)
        _load_probes(job, arguments[0], local.get("probes", {}), prepared.data.task)


def run_job(job: Job, run: RunArguments, args: StudyTrainingArguments, local: dict[str, Any]) -> Measured:
    """Trains and measures; `local` as in `check_job`. Nothing is written but to a temporary folder, which is removed.

    Raises:
        AtomError: arguments that cannot be used, or a run that has diverged.
    """
    with unlogged_run(run, args, job.seed) as (one, quietly):
        prepared = _prepare(one, quietly)
        trainer, data, _ = prepared
        trainer.remove_callback(PrinterCallback)
        latents = _LatentCallback(prepared, job) if job.setting.latents and job.is_first else None
        if latents is not None:
            trainer.add_callback(latents)
        probes = _load_probes(job, one, local.get("probes", {}), data.task)
        untrained = _measure_untrained(prepared, probes, one, job.seed) if probes else {}
        # On a CPU that others use too, its own time is what a run costs.
        clock = time.perf_counter if trainer.args.device.type != "cpu" else time.process_time
        began = clock()
        trainer.train()
        seconds = clock() - began
        check_diverged(trainer, save=False)
        if data.task == "causal-lm":
            measures, _ = measure_writer(prepared, job.seed)
        else:
            shifts = _load_shifts(job, one, local.get("shifts", {}), data.labels)
            measures, features = measure_classifier(prepared, shifts, job.seed)
            measures |= {**measure_probes(prepared, probes, known=features), **untrained}
    return Measured({**measures, "seconds": round(seconds, 2)}, latents.found if latents else None)


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


class _LatentCallback(TrainerCallback):
    """Keeps the latents of 300 evaluation samples over training, in the plane of the last ones' principal components."""

    def __init__(self, prepared: Prepared, job: Job):
        self.prepared, self.job = prepared, job
        self.kept: list[tuple[float, np.ndarray]] = []
        self.found: dict[str, Any] | None = None

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
        last = self.kept[-1][1]
        _, _, components = np.linalg.svd(last - last.mean(0), full_matrices=False)
        moments = [
            {"progress": progress, "points": np.round((latent - latent.mean(0)) @ components[:2].T, 3).tolist()}
            for progress, latent in self.kept
        ]
        about = {"setting": self.job.setting.name, "size": self.job.size, "arm": self.job.arm}
        self.found = {**about, "labels": self.labels.tolist(), "moments": moments}
