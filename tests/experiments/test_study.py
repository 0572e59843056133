"""The runs of a study and what they keep, and going on with it as it is or as it has grown."""

import dataclasses
import itertools
import json
import math
import shlex

import datasets
import numpy as np
import pytest

from atom_hf import AtomError
from atom_hf.cli.main import main
from atom_hf.experiments import study, study_file, study_tasks
from atom_hf.experiments.ray_arguments import RayArguments
from atom_hf.experiments.study import StudyArguments, missing_runs, run_study
from atom_hf.experiments.study_run import MOMENTS
from atom_hf.finetune.arguments import RunArguments
from atom_hf.finetune.flags import parse_flags
from atom_hf.finetune.run import fine_tune
from atom_hf.training.arguments import AtomTrainingArguments
from helpers.ray_pools import KILLED, FakePool, fake_ray, measured_at_once, without_training
from helpers.studies import ARMS, DIGITS, SHORT, STUDY, VERSE, kept, keys, run, values, with_setting, write

pytestmark = pytest.mark.usefixtures("digits_once", "own_folder")


# The runs


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study with latents and a shift, run once: (its folder, its results)."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        shifts = {"train rows": {"eval_split": "train", "max_eval_samples": 30}}
        probes = {"digit": {"dataset": "digits", "max_train_samples": 60, "max_eval_samples": 50}}
        return folder, run(folder, with_setting(STUDY, latents=True, shifts=shifts, probes=probes))


def test_every_run_is_measured(finished):
    folder, lines = finished
    # Seeds outermost, arms innermost.
    assert keys(lines) == [("digits", size, arm, seed) for seed in (0, 1) for size in (24, 48) for arm in ARMS]
    assert lines == kept(folder)
    for line in lines:
        assert list(line) == [
            *("setting", "size", "arm", "seed", "settings", "accuracy", "mcc", "loss", "calibration_error", "entropy"),
            *("effective_rank", "neighbor_distance", "corrupted accuracy", "corrupted mcc"),
            *("train rows accuracy", "train rows mcc", "scaled loss", "train accuracy", "twin", "distance_correlation"),
            *("digit probe", "digit neighbors", "digit probe mcc"),
            *("digit untrained probe", "digit untrained neighbors", "digit untrained probe mcc", "seconds"),
        ]
    # One fingerprint for all seeds of an arm at a size, and no other; no result twice.
    marks = {(line["size"], line["arm"]): line["settings"] for line in lines}
    assert len(set(marks.values())) == 4 and all(line["settings"] == marks[line["size"], line["arm"]] for line in lines)
    assert len({line["loss"] for line in lines}) == 8


def test_untrained_weights_are_the_same_in_every_arm_and_not_the_trained_ones(finished):
    found = {}
    for line in finished[1]:
        assert 0 <= line["digit untrained probe"] <= 1 and 0 <= line["train accuracy"] <= 1
        found.setdefault((line["size"], line["seed"]), set()).add(line["digit untrained probe"])
    assert all(len(values) == 1 for values in found.values())
    assert any(line["digit untrained probe"] != line["digit probe"] for line in finished[1])


def test_nothing_but_results_and_latents_is_left_behind(finished):
    folder, _ = finished
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    latents = {f"study/latents/digits-{size}-{arm}.json" for size in (24, 48) for arm in ARMS}
    assert files == {"study.yaml", "study/results.jsonl", *latents}


def test_latents_are_kept_over_training_for_the_first_seed(finished):
    folder, _ = finished
    # Four steps are too few for all four moments: what is due is kept after the next steps.
    found = json.loads((folder / "study" / "latents" / "digits-24-atom.json").read_text())
    progress = [moment["progress"] for moment in found["moments"]]
    assert progress == [0.0, 0.25, 0.5, 1.0] and progress[-1] == MOMENTS[-1]
    assert len(found["labels"]) == 40 and set(found["labels"]) <= set(range(10))
    points = np.array([moment["points"] for moment in found["moments"]])
    assert points.shape == (4, 40, 2)
    # Centred, in the plane of the last ones' principal components; the first are not the last.
    np.testing.assert_allclose(points.mean(1), 0, atol=1e-3)
    assert points[-1, :, 0].std() > points[-1, :, 1].std() and abs(np.corrcoef(points[-1].T)[0, 1]) < 1e-2
    assert np.abs(points[0] - points[-1]).max() > 0.01


@pytest.mark.parametrize("arm", ARMS)
def test_an_arm_is_what_fine_tune_gives_for_its_seed(finished, tmp_path, arm):
    # Latents are read in the first seed's run, and it goes on as if nobody had looked.
    line = next(line for line in finished[1] if (line["size"], line["arm"], line["seed"]) == (48, arm, 0))
    overrides = json.dumps(DIGITS["config_overrides"])
    flags = ["--model_type", "vit", "--dataset", "digits", "--config_overrides", overrides, "--max_train_samples", "48"]
    flags += shlex.split("--max_eval_samples 40 --per_device_train_batch_size 8 --learning_rate 5e-3 --max_steps 3")
    flags += [*shlex.split(f"--seed 0 --sample_seed 0 --output_dir {tmp_path}"), *(["--atom"] if arm == "atom" else [])]
    found = fine_tune(*parse_flags("train", flags, [RunArguments, AtomTrainingArguments]), save=False).metrics
    assert line["loss"] == pytest.approx(found["loss"], rel=1e-5)
    assert (line["accuracy"], line["mcc"]) == (found["accuracy"], found["mcc"])


def test_a_causal_lm_is_measured_by_what_it_writes(tmp_path):
    lines = run(tmp_path, {**SHORT, "settings": {"verse": VERSE}})
    assert keys(lines) == [("verse", 16, arm, seed) for seed in (0, 1) for arm in ARMS]
    for line in lines:
        assert {"perplexity", "loss", "distinct-1", "distinct-2", "self_bleu", "repetition"} <= set(line)
        assert line["perplexity"] == pytest.approx(math.exp(line["loss"]))


def test_the_plain_arm_does_not_depend_on_the_defaults_of_the_atom_loss(tmp_path, monkeypatch, started):
    before = run(tmp_path, SHORT)

    @dataclasses.dataclass
    class Other(study_file.StudyTrainingArguments):
        atom_weight: float = 0.77

    assert study_file.StudyTrainingArguments.atom_weight != Other.atom_weight
    monkeypatch.setattr(study_file, "StudyTrainingArguments", Other)
    with pytest.raises(AtomError, match="'atom' of 'digits' run with other flags"):
        run(tmp_path, SHORT)
    after = run(tmp_path, SHORT, output_dir=str(tmp_path / "again"))
    for one, two in zip(values(before), values(after), strict=True):
        plain = one["arm"] == "plain"
        assert (one == two) == plain and (one["settings"] == two["settings"]) == plain


# Going on


def test_a_finished_study_runs_nothing(finished, started, monkeypatch):
    folder, lines = finished
    monkeypatch.setattr(study, "run_job", None)
    again = run_study(str(folder / "study.yaml"), StudyArguments())
    assert again[1] == lines and again[2] == folder / "study" and started == []


@pytest.mark.promise("Interrupted comparisons and studies resume after the last finished run.")
def test_an_interrupted_study_goes_on(tmp_path, monkeypatch, capsys):
    whole = run(tmp_path, SHORT, output_dir=str(tmp_path / "whole"))
    calls, real = itertools.count(), study.run_job

    def interrupted(*args):
        if next(calls) == 1:
            raise KeyboardInterrupt
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(study, "run_job", interrupted)
        assert main(["study", write(tmp_path, SHORT)]) == 130
    assert "resumes after the last finished run" in capsys.readouterr().err
    assert keys(kept(tmp_path)) == [("digits", 24, "plain", 0)]
    assert values(run(tmp_path, SHORT)) == values(whole) == values(kept(tmp_path))


@pytest.mark.promise("Interrupted comparisons and studies resume after the last finished run.")
@pytest.mark.parametrize("cut", [1, 30])
def test_a_last_line_that_was_cut_short_is_done_again(tmp_path, started, cut):
    """Even where nothing but the end of the line is missing: the next line would be written onto it."""
    lines = run(tmp_path, SHORT)
    results = tmp_path / "study" / "results.jsonl"
    results.write_text(results.read_text()[:-cut])
    started.clear()
    assert values(run(tmp_path, SHORT)) == values(lines) == values(kept(tmp_path))
    assert started == [1]


@pytest.mark.promise("Interrupted comparisons and studies resume after the last finished run.")
def test_a_study_that_grows_keeps_what_has_run(tmp_path, started):
    first = run(tmp_path, SHORT)
    digits = SHORT["settings"]["digits"]
    grown = {
        "an arm": {**SHORT, "arms": {"plain": {}, "uniformity": {"regularizer": "uniformity"}, **ARMS}},
        "a seed": {**SHORT, "seeds": 3},
        "a setting": {**SHORT, "settings": {"others": {**digits, "learning_rate": 1e-4}, "digits": digits}},
        "a size": with_setting(sizes={24: {"max_steps": 1}, 32: {"max_steps": 1}}),
        "latents and another title": {**with_setting(latents=True), "title": "Digits"},
    }
    expected = {"an arm": [0, 1], "a seed": [2, 2], "a setting": [0, 0, 1, 1], "a size": [0, 0, 1, 1]}
    for what, content in grown.items():
        started.clear()
        lines = run(tmp_path, content)
        assert started == expected.get(what, []), what
        assert [line for line in lines if line in first] == first, what
    # What a study no longer names stays, and is not reported.
    assert run(tmp_path, SHORT) == first and len(kept(tmp_path)) == 4 + 2 + 2 + 4 + 4


CHANGED = [
    with_setting(learning_rate=1e-3),
    with_setting(sizes={24: {"max_steps": 2}}),
    with_setting(dataset="gaussians"),
    with_setting(shifts={"train rows": {"eval_split": "train"}}),
    {**SHORT, "arms": {"plain": {"weight_decay": 0.1}, "atom": {"atom": True}}},
    {**SHORT, "arms": {"plain": {}, "atom": {"atom": True, "atom_softening": 0.5}}},
    {**SHORT, "arms": {"plain": {"atom": True}, "atom": {}}},
]


@pytest.mark.promise("Results of other settings are never taken for those of a run.")
def test_results_of_other_flags_under_the_same_name_are_rejected(tmp_path, started):
    run(tmp_path, SHORT)
    before = (tmp_path / "study" / "results.jsonl").read_bytes()
    started.clear()
    for content in CHANGED:
        with pytest.raises(AtomError, match="run with other flags; remove those lines or give another --output_dir"):
            run(tmp_path, content)
    assert started == [] and (tmp_path / "study" / "results.jsonl").read_bytes() == before


def test_only_so_many_seeds_are_run(tmp_path, started):
    assert len(run(tmp_path, {**SHORT, "seeds": 9}, seeds=2)) == 4 and started == [0, 0, 1, 1]
    assert len(run(tmp_path, {**SHORT, "seeds": 9}, seeds=3)) == 6 and started[4:] == [2, 2]
    with pytest.raises(AtomError, match="--seeds must be at least 2, got 1"):
        run(tmp_path, SHORT, seeds=1)


def test_report_only_runs_nothing(tmp_path, started):
    assert run(tmp_path, SHORT, report_only=True) == [] and started == []
    run(tmp_path, SHORT)
    started.clear()
    assert len(run(tmp_path, {**SHORT, "seeds": 5}, report_only=True)) == 4 and started == []


def test_a_folder_of_results_that_is_a_file_is_rejected(tmp_path):
    (tmp_path / "taken").touch()
    with pytest.raises(AtomError, match=r"--output_dir .*taken' is a file"):
        run(tmp_path, SHORT, output_dir=str(tmp_path / "taken"))


def test_a_study_may_begin_at_another_seed(tmp_path):
    later = {**SHORT, "first_seed": 5, "settings": with_setting(SHORT, latents=True)["settings"]}
    lines = run(tmp_path, later)
    assert {line["seed"] for line in lines} == {5, 6}
    assert (tmp_path / "study" / "latents").is_dir()
    with pytest.raises(AtomError, match="first_seed must be a whole number, got -1"):
        run(tmp_path, {**later, "first_seed": -1})


@pytest.mark.promise("Results of other settings are never taken for those of a run.")
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{broken\n", "line 1, is not a result: remove it"),
        ('{"settings": "x"}\n', "holds other results than a study's"),
    ],
)
def test_results_that_are_not_a_studys_are_rejected(tmp_path, text, says):
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "results.jsonl").write_text(text)
    with pytest.raises(AtomError, match=says):
        run(tmp_path, SHORT)


def test_a_blank_line_among_the_results_is_passed_over(tmp_path):
    lines = run(tmp_path, SHORT)
    results = tmp_path / "study" / "results.jsonl"
    results.write_text("\n" + results.read_text().replace("\n", "\n\n"))
    assert run(tmp_path, SHORT) == lines


# On Ray


PLAIN = "digits, 24, plain, seed 0"


def on_ray(folder, content=SHORT):
    return run_study(write(folder, content), StudyArguments(), RayArguments("local"))


def test_runs_on_ray_are_those_of_one_process(tmp_path, monkeypatch, capsys):
    content = with_setting(latents=True)
    whole = run(tmp_path, content, output_dir=str(tmp_path / "whole"))
    with fake_ray(monkeypatch, FakePool()) as pool:
        found, lines, folder = on_ray(tmp_path, content)
    assert values(lines) == values(whole) and missing_runs(found, lines) == []
    # Each is there as soon as it has ended, in the order in which they end.
    assert pool.before_each == [4, 5, 6, 7] and keys(kept(tmp_path)) == keys(whole)[::-1]
    for picture in (tmp_path / "whole" / "latents").iterdir():
        assert (folder / "latents" / picture.name).read_text() == picture.read_text()
    assert not [line for line in capsys.readouterr().err.splitlines() if "again" in line]


def test_a_run_whose_process_was_killed_is_run_again(tmp_path, monkeypatch, capsys):
    without_training(monkeypatch)
    with fake_ray(monkeypatch, FakePool(lost={PLAIN: 2})) as pool:
        found, lines, _ = on_ray(tmp_path)
    told = [line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if KILLED in line]
    assert told == [f"{PLAIN}: {KILLED}; it is run again (try {n} of 3)" for n in (2, 3)]
    assert len(pool.calls) == 6 and missing_runs(found, lines) == []


@pytest.mark.promise("A run of a study on Ray whose process is killed is run again, and costs no other run.")
def test_a_run_that_fails_costs_no_other(tmp_path, monkeypatch, capsys):
    without_training(monkeypatch)

    def run_job(job, *rest):
        if job.arm == "atom" and job.seed == 1:
            raise AtomError("the model has diverged")
        return measured_at_once(job)

    monkeypatch.setattr(study_tasks, "run_job", run_job)
    with fake_ray(monkeypatch, FakePool(lost={PLAIN: 3})) as pool:
        found, lines, _ = on_ray(tmp_path)
    told = capsys.readouterr().err.replace("\r", "\n").splitlines()
    assert "digits, 24, atom, seed 1: the model has diverged; it has no result" in told
    assert f"{PLAIN}: {KILLED}; it has no result" in told
    assert [job.title for job in missing_runs(found, lines)] == [PLAIN, "digits, 24, atom, seed 1"]
    # Tried once where the error would come again, and three times where it might pass.
    assert lines == kept(tmp_path)[::-1] and len(pool.calls) == 2 + 1 + 3
    # The same again runs what is missing.
    monkeypatch.setattr(study_tasks, "run_job", measured_at_once)
    with fake_ray(monkeypatch, FakePool()) as pool:
        found, again, _ = on_ray(tmp_path)
    assert len(pool.calls) == 2 and missing_runs(found, again) == []
    assert [line for line in again if line in lines] == lines


@pytest.mark.promise("Interrupted comparisons and studies resume after the last finished run.")
def test_an_interrupted_study_on_ray_goes_on(tmp_path, monkeypatch):
    without_training(monkeypatch)
    with fake_ray(monkeypatch, FakePool(most=1)), pytest.raises(KeyboardInterrupt):
        on_ray(tmp_path)
    (line,) = kept(tmp_path)
    # In one process as well: where a run was done does not count.
    lines = run(tmp_path, SHORT)
    assert len(lines) == 4 and kept(tmp_path)[0] == line and len(kept(tmp_path)) == 4


def test_no_ray_is_started_where_nothing_is_left_to_do(finished, monkeypatch):
    monkeypatch.setattr(RayArguments, "check", lambda self: None)
    monkeypatch.setattr(study, "ray_started", None)
    path = str(finished[0] / "study.yaml")
    assert run_study(path, StudyArguments(), RayArguments("local"))[1] == finished[1]


def test_a_study_that_cannot_run_on_ray_is_rejected_before_any_run(tmp_path, monkeypatch):
    with fake_ray(monkeypatch, FakePool()) as pool, pytest.raises(AtomError, match="nowhere"):
        on_ray(tmp_path, with_setting(dataset="nowhere.csv"))
    assert pool.calls == [] and kept(tmp_path) == []
