"""Hashes of settings, by which committed results are known: a change of the code must leave them as they are."""

import json

import pytest

from atom_hf.experiments.study_file import job_fingerprint, job_flags, read_study, study_jobs
from helpers.paths import ROOT

# A study that has not begun has no results to be known by.
STUDIES = sorted(
    file for file in (ROOT / "recipes" / "study").glob("*.yaml") if (file.with_suffix("") / "results.jsonl").exists()
)


def test_every_study_that_has_begun_is_seen():
    assert len(STUDIES) >= 11


@pytest.mark.promise("Results of other settings are never taken for those of a run.")
@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_committed_results_of_a_study_are_of_its_settings(file):
    lines = (file.with_suffix("") / "results.jsonl").read_text(encoding="utf-8").splitlines()
    kept = {}
    for line in map(json.loads, lines):
        kept.setdefault((line["setting"], line["size"], line["arm"]), set()).add(line["settings"])
    read = read_study(str(file))
    made = {}
    for job in study_jobs(read):
        place = job.key[:3]
        if place in kept and place not in made:  # the seed is no part of it
            made[place] = job_fingerprint(job, *job_flags(read, job))
    assert {place: {found} for place, found in made.items()} == kept
