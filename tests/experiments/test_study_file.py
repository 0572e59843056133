"""The file of a study, and what it cannot ask for."""

import numpy as np
import pytest

from atom_hf import AtomError
from atom_hf.data.load import load_data
from atom_hf.experiments.study_file import job_fingerprint, job_flags, read_study, study_jobs
from helpers.studies import SHORT, STUDY, VERSE, run, values, with_setting, write

pytestmark = pytest.mark.usefixtures("digits_once", "own_folder")

# The file


def test_a_study_is_read(tmp_path):
    shifts = {"others": {"eval_dataset": "x.csv"}}
    probes = {"digit": {"label_column": "digit"}}
    content = {
        **with_setting(metric="mcc", shifts=shifts, probes=probes, latents=True),
        "arms": {"plain": {}, 0.5: {"atom": True}},
    }
    found = read_study(write(tmp_path, content))
    assert (found.title, found.seeds, found.arms) == ("Two digits", 2, {"plain": {}, "0.5": {"atom": True}})
    (setting,) = found.settings
    assert (setting.name, setting.metric, setting.shifts, setting.latents) == ("digits", "mcc", shifts, True)
    assert setting.probes == probes
    assert setting.sizes == {24: {"max_steps": 1}} and setting.flags["dataset"] == "digits"
    assert not {"sizes", "metric", "shifts", "probes", "latents"} & set(setting.flags)
    del content["title"]
    assert read_study(write(tmp_path, content)).title == "study"


MALFORMED = [
    ("{", "cannot be read"),
    ("- 1", "must hold title, seeds, arms and settings"),
    ("", "must hold title, seeds, arms and settings"),
    ({**STUDY, "arm": {}, 3: 4}, "unknown keys 3, arm; there are title, seeds, first_seed, arms, settings"),
    *[({**STUDY, "seeds": value}, "seeds must be a whole number of at least 2") for value in (1, 2.5, "3", None, True)],
    *[
        ({**STUDY, "arms": value}, "arms must hold at least two arms")
        for value in (None, ["plain", "atom"], {"plain": {}}, {"plain": {}, "atom": None}, {"plain": {}, "atom": 1})
    ],
    *[({**STUDY, "settings": value}, "settings must hold") for value in (None, {}, [1], {"digits": None})],
    *[
        (with_setting(sizes=value), "setting 'digits': sizes must hold")
        for value in (None, {}, [24], 24, {24: None}, {"24": {}}, {1: {}}, {24.0: {}})
    ],
    (with_setting(shifts=["x"]), "setting 'digits': shifts must hold"),
    (with_setting(shifts={"x": "y.csv"}), "setting 'digits': shifts must hold"),
    (with_setting(probes=["x"]), "setting 'digits': probes must hold"),
    (with_setting(probes={"x": "y.csv"}), "setting 'digits': probes must hold"),
    (with_setting(metric="f1"), "setting 'digits': metric must be accuracy, mcc or perplexity, got 'f1'"),
]


@pytest.mark.parametrize(("content", "says"), MALFORMED)
def test_a_malformed_study_is_rejected_by_what_is_wrong_in_it(tmp_path, content, says):
    with pytest.raises(AtomError) as caught:
        read_study(write(tmp_path, content))
    assert says in str(caught.value) and "study.yaml" in str(caught.value) and "\n" not in str(caught.value)


def test_a_study_that_is_not_there_is_rejected(tmp_path):
    with pytest.raises(AtomError, match=r"nowhere\.yaml' cannot be read"):
        read_study(str(tmp_path / "nowhere.yaml"))


CANNOT_RUN = [
    (with_setting(larning_rate=1), "study: setting 'digits' sets larning_rate"),
    (with_setting(sizes={24: {"max_step": 1}}), "setting 'digits', size 24 sets max_step"),
    ({**SHORT, "arms": {"plain": {}, "atom": {"atm": True}}}, "study: arm 'atom' sets atm"),
    ({**SHORT, "arms": {"plain": {}, "atom": {7: True}}}, "study: arm 'atom' sets 7"),
    ({**SHORT, "arms": {"plain": {}, "atom": {"learning_rate": "fast"}}}, "study: arm 'atom': .*learning_rate.*fast"),
    ({**SHORT, "arms": {"plain": {}, "atom": {"atom": True, "atom_layer": 9}}}, "layer"),
    ({**SHORT, "arms": {"plain": {}, "atom": {"atom": True, "atom_weight": -1}}}, "atom_weight must be"),
    ({**SHORT, "arms": {"plain": {}, "other": {"regularizer": "dropout"}}}, "regularizer must be one of none"),
    (with_setting(dataset="nowhere.csv"), "nowhere.csv"),
    (with_setting(dataset=None), "give --dataset"),
    # More samples than there are.
    (with_setting(sizes={4000: {"max_steps": 1}}), "setting 'digits' has 1000 training samples, not 4000"),
    # Measures that the task does not have.
    (with_setting(metric="perplexity"), "setting 'digits': metric is perplexity, which image-classification"),
    ({**SHORT, "settings": {"verse": {**VERSE, "metric": "mcc"}}}, "setting 'verse': metric is mcc, which causal-lm"),
    ({**SHORT, "settings": {"verse": {**VERSE, "latents": True}}}, "latents, shifts and probes are for classification"),
    (with_setting(shifts={"far": {"eval_dataset": "nowhere.csv"}}), "--eval_dataset 'nowhere.csv'"),
    (with_setting(probes={"far": {"dataset": "nowhere.csv"}}), "--dataset 'nowhere.csv'"),
    (with_setting(probes={"far": {"eval_set": "x.csv"}}), "probe 'far' sets eval_set"),
    (with_setting(shifts={"far": {"eval_set": "x.csv"}}), "shift 'far' sets eval_set"),
]


@pytest.mark.parametrize(("content", "says"), CANNOT_RUN)
def test_what_cannot_run_is_rejected_before_anything_has_run(tmp_path, started, content, says):
    with pytest.raises(AtomError, match=says):
        run(tmp_path, content)
    assert started == [] and not (tmp_path / "study").exists()


# Where data lies


@pytest.fixture
def elsewhere(tmp_path):
    """The digits in a file, to train and evaluate on, and others to evaluate on."""
    data = load_data("digits", max_train_samples=60, max_eval_samples=40)
    for name, parts in {"some.npz": ("train", "eval"), "others.npz": ("eval",)}.items():
        arrays = {}
        for part, end in zip(parts, ("train", "test"), strict=False):
            rows = getattr(data, part)
            arrays |= {f"x_{end}": np.stack([np.asarray(image) for image in rows["image"]])}
            arrays |= {f"y_{end}": np.array(rows["label"])}
        np.savez(tmp_path / name, **arrays)
    return tmp_path


def test_local_says_where_the_data_lies_and_nothing_else(elsewhere, tmp_path, monkeypatch, started):
    shifts = {"others": {"eval_dataset": "others.npz"}}
    content = with_setting(dataset="some.npz", shifts=shifts)
    here = run(tmp_path, content)
    (tmp_path / "far").mkdir()
    monkeypatch.chdir(tmp_path / "far")
    with pytest.raises(AtomError, match=r"some\.npz"):
        run(tmp_path, {**content, "seeds": 3})
    flags = {
        "dataset": str(elsewhere / "some.npz"),
        "shifts": {"others": {"eval_dataset": str(elsewhere / "others.npz")}},
    }
    local = write(tmp_path, {"digits": flags, "another study's": {"dataset": "x"}}, "local.yaml")
    # The same fingerprint: what has run is kept. The same data: the same results.
    started.clear()
    lines = run(tmp_path, {**content, "seeds": 3}, local=local)
    assert lines[:4] == here and started == [2, 2]
    assert values(run(tmp_path, content, local=local, output_dir=str(tmp_path / "anew"))) == values(here)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[1]", "--local .* must hold settings"),
        ("digits: some.npz", "--local .* must hold settings"),
        ("digits: {shifts: {others: x.npz}}", "--local .* must hold settings"),
        ("digits: {probes: {others: x.npz}}", "--local .* must hold settings"),
        ("digits: {place: some.npz}", "--local .* sets place"),
        ("digits: {learning_rate: 1.0}", "--local .* sets learning_rate"),
        ("{", "--local .* cannot be read"),
    ],
)
def test_a_local_file_that_cannot_be_used_is_rejected(tmp_path, started, content, says):
    with pytest.raises(AtomError, match=says):
        run(tmp_path, SHORT, local=write(tmp_path, content, "local.yaml"))
    assert started == []


def test_local_says_where_data_lies_and_nothing_else(tmp_path):
    (tmp_path / "local.yaml").write_text("digits: {learning_rate: 1.0}")
    with pytest.raises(AtomError, match="sets learning_rate; it says where data lies: dataset, "):
        run(tmp_path, SHORT, local=str(tmp_path / "local.yaml"))


def test_a_probe_counts_in_the_hash_and_no_probe_leaves_it_as_it_was(tmp_path):
    found = []
    for options in ({}, {"probes": {}}, {"probes": {"digit": {"label_column": "digit"}}}):
        study = read_study(write(tmp_path, with_setting(**options)))
        job = next(study_jobs(study))
        found.append(job_fingerprint(job, *job_flags(study, job)))
    assert found[0] == found[1] != found[2]


def test_a_shift_has_the_classes_of_the_training_data(tmp_path):
    shifts = {"other": {"dataset": "gaussians"}}
    with pytest.raises(AtomError, match="shift 'other' has the classes"):
        run(tmp_path, with_setting(SHORT, shifts=shifts))
