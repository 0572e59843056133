"""One run of a study."""

import pytest

from atom_hf import AtomError
from atom_hf.experiments.study_file import job_flags, locate, read_study, study_jobs
from atom_hf.experiments.study_run import check_job, run_job
from helpers.studies import SHORT, with_setting, write

pytestmark = pytest.mark.usefixtures("digits_once", "own_folder")


def prepared(folder, content):
    study = read_study(write(folder, content))
    return [(job, *job_flags(study, job)) for job in study_jobs(study)]


def test_a_run_returns_what_it_found_and_writes_nothing(tmp_path):
    runs = prepared(tmp_path, with_setting(latents=True))
    files = sorted(tmp_path.rglob("*"))
    for job, run, args in (runs[0], runs[2]):
        found = run_job(job, run, args, {})
        assert found.measures["loss"] > 0 and found.measures["seconds"] >= 0
        # Latents are kept of the first seed alone.
        assert (found.latents is not None) == (job.seed == 0)
    assert sorted(tmp_path.rglob("*")) == files


def test_a_run_gives_the_same_again(tmp_path):
    (run, *_) = prepared(tmp_path, SHORT)
    one, two = (run_job(*run, {}).measures for _ in range(2))
    assert {**one, "seconds": 0} == {**two, "seconds": 0}


def test_what_local_says_of_shifts_counts(tmp_path):
    shifts = {"other": {"eval_dataset": "elsewhere.csv"}}
    ((job, run, args), *_) = prepared(tmp_path, with_setting(shifts=shifts))
    local = {"shifts": {"other": {"eval_dataset": "digits"}}}
    check_job(job, *locate((run, args), local, None), local)
    with pytest.raises(AtomError, match=r"elsewhere\.csv"):
        check_job(job, run, args, {})
