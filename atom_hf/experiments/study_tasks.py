"""The runs of a study as tasks of other processes: their arguments are plain values, and their results are checked there."""

import gc
import os
import traceback
from pathlib import Path
from typing import Any

import torch

from ..builtin import BUILT_IN_DATASETS, BUILT_IN_MODELS
from ..errors import AtomError, first_line
from ..finetune.arguments import RunArguments
from ..utils.quiet import quiet
from .ray_nodes import differing, installed
from .ray_pool import Call, Outcome
from .study_file import Job, Study, job_fingerprint, job_flags, locate
from .study_run import run_job

_PATHS = ("dataset", "eval_dataset", "model", "tokenizer")  # flags that may name a file or folder


def study_call(
    study: Study, job: Job, run: RunArguments, local: dict[str, Any], settings: str, threads: int, use_cpu: bool
) -> Call:
    """The task of one run.

    Args:
        study: whose arms the flags are taken from again, since arguments of a training run hold the device of their process.
        job: the run.
        run: its arguments here, with data and model where `--local` says they lie.
        local: what `--local` says of its setting.
        settings: its fingerprint, which it must have there too.
        threads: of PyTorch.
        use_cpu: whether it leaves GPUs alone.
    """
    arm = study._replace(arms={job.arm: study.arms[job.arm]}, settings=[])
    return Call(run_task, (arm, job, absolute(job, run, local), settings, threads, installed()), use_cpu)


def run_task(
    study: Study, job: Job, local: dict[str, Any], settings: str, threads: int, expected: dict[str, str]
) -> Outcome:
    """Runs a job in this process. The outcome's result is a `Measured`; whatever goes wrong is its failure."""
    try:
        if other := differing(expected, installed()):
            raise AtomError(f"its machine has other versions: {other}")
        torch.set_num_threads(threads)
        flags = job_flags(study, job)
        if job_fingerprint(job, *flags) != settings:
            raise AtomError("its machine reads the flags otherwise")
        with quiet():
            return Outcome(run_job(job, *locate(flags, local, "of this study"), local))
    except AtomError as error:
        return Outcome(failure=" ".join(str(error).split()))
    except Exception as error:
        at = traceback.extract_tb(error.__traceback__)[-1]
        why = f"{type(error).__name__}: {first_line(error)} ({Path(at.filename).name}, line {at.lineno})"
        return Outcome(failure=why, may_pass=True)
    finally:
        gc.collect()


def absolute(job: Job, run: RunArguments, local: dict[str, Any]) -> dict[str, Any]:
    """What `--local` says of a setting, with the absolute paths of all files and folders that its runs read."""

    def found(flags: dict[str, Any]) -> dict[str, str]:
        given = {name: flags[name] for name in _PATHS if isinstance(flags.get(name), str)}
        return {name: os.path.abspath(os.path.expanduser(value)) for name, value in given.items() if _is_path(value)}

    result = {**local, **found(vars(run))}
    for kind in ("shifts", "probes"):
        theirs = {
            name: {**flags, **local.get(kind, {}).get(name, {})} for name, flags in getattr(job.setting, kind).items()
        }
        result[kind] = {name: {**local.get(kind, {}).get(name, {}), **found(flags)} for name, flags in theirs.items()}
    return result


def _is_path(value: str) -> bool:
    return value not in (*BUILT_IN_DATASETS, *BUILT_IN_MODELS) and Path(value).expanduser().exists()
