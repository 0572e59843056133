"""One run of a study as a task: what is handed over, and what comes back."""

import os

import pytest

from atom_hf.experiments import study_tasks
from atom_hf.experiments.ray_nodes import installed
from atom_hf.experiments.ray_pool import Outcome
from atom_hf.experiments.study_file import job_fingerprint, job_flags, read_study, study_jobs
from atom_hf.experiments.study_tasks import absolute, run_task, study_call
from helpers.studies import SHORT, with_setting, write

pytestmark = pytest.mark.usefixtures("own_folder")


def first(folder, content=SHORT):
    study = read_study(write(folder, content))
    job = next(study_jobs(study))
    return study, job, job_flags(study, job)


@pytest.fixture
def task(tmp_path, monkeypatch):
    """task(error, **changed): the outcome of a run that raises this error, if any; its result is else what it was given."""
    study, job, flags = first(tmp_path)
    monkeypatch.setattr(study_tasks.torch, "set_num_threads", lambda count: None)

    def run(error=None, expected=None, settings=None):
        def run_job(*given):
            if error is not None:
                raise error
            return given

        monkeypatch.setattr(study_tasks, "run_job", run_job)
        return run_task(study, job, {}, settings or job_fingerprint(job, *flags), 1, expected or installed())

    return run


def test_a_run_is_given_the_flags_of_its_job(task):
    job, run, args, local = task().result
    assert (job.arm, job.seed, run.dataset, run.max_train_samples, args.max_steps) == ("plain", 0, "digits", 24, 1)
    assert local == {}


def test_an_error_that_would_come_again_is_not_tried_again(task):
    found = task(study_tasks.AtomError("the model\nhas diverged"))
    assert found == Outcome(failure="the model has diverged", may_pass=False)


def test_any_other_error_may_pass(task):
    found = task(OSError(28, "No space left on device"))
    assert found.may_pass and found.result is None
    assert found.failure.startswith("OSError: [Errno 28] No space left on device (test_study_tasks.py, line ")


def test_another_version_or_reading_is_no_result(task):
    found = task(expected={**installed(), "torch": "1.0"})
    assert found == Outcome(
        failure=f"its machine has other versions: torch is {installed()['torch']} there and 1.0 here"
    )
    assert task(settings="0" * 16).failure == "its machine reads the flags otherwise"


def test_a_call_holds_only_its_own_arm(tmp_path):
    study, job, (run, _) = first(tmp_path)
    call = study_call(study, job, run, {}, "mark", 3, use_cpu=True)
    assert list(call.arguments[0].arms) == ["plain"] and call.arguments[0].settings == []
    assert call.arguments[1] is job and call.arguments[3:] == ("mark", 3, installed()) and call.use_cpu


def test_paths_are_those_of_files_that_are_there(tmp_path):
    os.makedirs("data/digits")
    for name in ("data/train.csv", "data/other.csv", "digits"):
        open(name, "w").close()
    shifts = {"other": {"eval_dataset": "data/other.csv"}, "hub": {"dataset": "org/set"}}
    probes = {"mood": {"dataset": "elsewhere.csv", "eval_dataset": "data/other.csv"}}
    content = with_setting(dataset="digits", eval_dataset="data/train.csv", shifts=shifts, probes=probes)
    _, job, (run, _) = first(tmp_path, content)
    local = {"text_column": "words", "probes": {"mood": {"dataset": "data/train.csv"}}}
    where = str(tmp_path / "data")
    assert absolute(job, run, local) == {
        "text_column": "words",
        "eval_dataset": f"{where}/train.csv",  # digits are the built-in data, whatever lies there
        "shifts": {"other": {"eval_dataset": f"{where}/other.csv"}, "hub": {}},
        "probes": {"mood": {"dataset": f"{where}/train.csv", "eval_dataset": f"{where}/other.csv"}},
    }
