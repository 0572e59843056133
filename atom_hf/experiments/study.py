"""`atom-hf study`: arms x data sets x sizes x seeds in paired runs, measured by more than accuracy, and resumable."""

import gc
import json
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ..errors import AtomError
from ..finetune.arguments import RunArguments
from ..utils.files import check_output_folder, read_yaml, write_atomically
from ..utils.jsonl import RESULTS_NAME, append_line, read_lines, start_lines
from ..utils.lock import lock_folder
from ..utils.quiet import quiet
from .paired_runs import warn_of_accumulation
from .ray_arguments import RayArguments
from .ray_pool import RayPool, finished, ray_started
from .regularizers import StudyTrainingArguments
from .study_file import Job, Study, is_map_of_maps, job_fingerprint, job_flags, locate, read_study, study_jobs
from .study_run import Measured, check_job, run_job
from .study_tasks import study_call


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


def run_study(
    path: str, options: StudyArguments, on_ray: RayArguments | None = None
) -> tuple[Study, list[dict[str, Any]], Path]:
    """Runs what has not run yet. Returns the study, the results of all its runs so far, and their folder.

    Paired: runs of one setting, size and seed have the same samples, initial weights, order and number of steps in every arm.
    Each result is appended to `results.jsonl` when its run ends, with a hash of all flags that it depends on (except where the
    data are), so that a study can grow by arms, settings and seeds and keep its finished runs.

    On Ray (`on_ray`) a run that fails is told of in a line, and the others go on: `missing_runs` are those without a result.

    Raises:
        AtomError: a file that cannot be read, flags that cannot be used, or results of other flags under the same name.
    """
    on_ray = on_ray or RayArguments()
    on_ray.check()
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
        return study, _run_jobs(study, options, on_ray, local, folder), folder


def missing_runs(study: Study, lines: list[dict[str, Any]]) -> list[Job]:
    """The runs of a study that have no result among these."""
    done = {_key(line) for line in lines}
    return [job for job in study_jobs(study) if job.key not in done]


def _run_jobs(
    study: Study, options: StudyArguments, on_ray: RayArguments, local: dict[str, Any], folder: Path
) -> list[dict[str, Any]]:
    """Runs what has not run yet. Returns the results of all runs so far."""
    jobs = list(study_jobs(study))
    flags = {job: job_flags(study, job) for job in jobs}
    hashes = {job: job_fingerprint(job, *flags[job]) for job in jobs}
    lines = read_lines(folder / RESULTS_NAME)
    if not all(
        isinstance(line, dict) and {"setting", "size", "arm", "seed", "settings"} <= set(line) for line in lines
    ):
        raise AtomError(f"{folder / RESULTS_NAME} holds other results than a study's; give another --output_dir")
    done = {_key(line): line for line in lines}
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
        with quiet(), _pool(on_ray) as pool:
            # What cannot run is rejected before anything has run.
            for job in {(job.setting.name, job.size, job.arm): job for job in todo}.values():
                check_job(job, *located[job], local.get(job.setting.name, {}))
            start_lines(folder / RESULTS_NAME)
            with tqdm(total=len(todo), desc=study.title, unit="run") as bar:
                given = located, local, bar
                for job, found in _runs_on(pool, study, hashes, *given) if pool else _runs_here(*given):
                    if found.latents is not None:
                        write_atomically(_latents_path(folder, job), json.dumps(found.latents))
                    line = {"setting": job.setting.name, "size": job.size, "arm": job.arm, "seed": job.seed}
                    done[job.key] = {**line, "settings": hashes[job], **found.measures}
                    append_line(folder / RESULTS_NAME, done[job.key])
                    bar.update()
    return [done[job.key] for job in jobs if job.key in done]


def _pool(on_ray: RayArguments) -> AbstractContextManager[RayPool | None]:
    return nullcontext() if on_ray.ray is None else ray_started(on_ray)


_Located = dict[Job, tuple[RunArguments, StudyTrainingArguments]]


def _runs_here(located: _Located, local: dict[str, Any], bar: tqdm) -> Iterator[tuple[Job, Measured]]:
    """The runs one after another, in this process."""
    for job, arguments in located.items():
        bar.set_postfix_str(job.title)
        yield job, run_job(job, *arguments, local.get(job.setting.name, {}))
        gc.collect()


def _runs_on(
    pool: RayPool, study: Study, hashes: dict[Job, str], located: _Located, local: dict[str, Any], bar: tqdm
) -> Iterator[tuple[Job, Measured]]:
    """The runs as tasks, in the order in which they end. Those that fail are told of, and left out."""

    def tell(job: Job, what: str) -> None:
        bar.write(f"{job.title}: {what}", file=sys.stderr)

    calls = {
        job: study_call(study, job, run, local.get(job.setting.name, {}), hashes[job], pool.cpus, args.use_cpu)
        for job, (run, args) in located.items()
    }
    for job, outcome in finished(pool, calls, tell):
        if outcome.failure is None:
            bar.set_postfix_str(job.title)
            yield job, outcome.result
        else:
            tell(job, f"{outcome.failure}; it has no result")


def _key(line: dict[str, Any]) -> tuple[str, int, str, int]:
    return line["setting"], line["size"], line["arm"], line["seed"]


def _latents_path(folder: Path, job: Job) -> Path:
    plain = "".join(c if c.isalnum() else "-" for c in f"{job.setting.name}-{job.size}-{job.arm}")
    return folder / "latents" / f"{plain}.json"
