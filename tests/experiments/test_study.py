"""A study: its file, its runs and what they keep, and going on with it as it is or as it has grown."""

import dataclasses
import functools
import itertools
import json
import math
import shlex

import datasets
import numpy as np
import pytest
import transformers
import yaml

from atom_hf import AtomError, sources, study
from atom_hf.arguments import AtomTrainingArguments
from atom_hf.cli import main
from atom_hf.data import load_data
from atom_hf.flags import parse_flags
from atom_hf.paired import read_lines
from atom_hf.run import RunArguments, fine_tune
from atom_hf.study import MOMENTS, StudyArguments, read_study, run_study
from atom_hf.study_report import REPORT_NAME

SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
DIGITS = {
    "model_type": "vit",
    "config_overrides": {"image_size": 8, "patch_size": 4, "num_channels": 1, **SIZES},
    "dataset": "digits",
    "max_eval_samples": 40,
    "per_device_train_batch_size": 8,
    "learning_rate": 5e-3,
    "sizes": {24: {"max_steps": 4}, 48: {"max_steps": 3}},
}
VERSE = {
    "model_type": "gpt2",
    "config_overrides": {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32},
    "vocabulary_size": 300,
    "dataset": "verse",
    "task": "causal-lm",
    "metric": "perplexity",
    "max_eval_samples": 12,
    "max_length": 32,
    "sizes": {16: {"max_steps": 2}},
}
ARMS = {"plain": {"atom": False}, "atom": {"atom": True}}
STUDY = {"title": "Two digits", "seeds": 2, "arms": ARMS, "settings": {"digits": DIGITS}}
SHORT = {**STUDY, "settings": {"digits": {**DIGITS, "sizes": {24: {"max_steps": 1}}}}}


@pytest.fixture(autouse=True, scope="module")
def brief():
    """Reads the digits once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "_digits", functools.cache(sources._digits))
        yield


@pytest.fixture(autouse=True)
def own_folders(tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def started(monkeypatch):
    """The seeds of the runs that are trained."""
    seeds, real = [], transformers.Trainer.train

    def train(self, *args, **options):
        seeds.append(self.args.seed)
        return real(self, *args, **options)

    monkeypatch.setattr(transformers.Trainer, "train", train)
    return seeds


def write(folder, content, name="study.yaml"):
    path = folder / name
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
    return str(path)


def with_setting(base=SHORT, **flags):
    """The study with its setting changed; a flag of None is taken out."""
    changed = {name: value for name, value in {**base["settings"]["digits"], **flags}.items() if value is not None}
    return {**base, "settings": {"digits": changed}}


def run(folder, content, **options):
    """The results of a study, in the order of its runs."""
    return run_study(write(folder, content), StudyArguments(**options))[1]


def keys(lines):
    return [(line["setting"], line["size"], line["arm"], line["seed"]) for line in lines]


def values(lines):
    """Without what a clock measures."""
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def kept(folder):
    return read_lines(folder / "study" / "results.jsonl")


# The file


def test_a_study_is_read(tmp_path):
    shifts = {"others": {"eval_dataset": "x.csv"}}
    content = {**with_setting(metric="mcc", shifts=shifts, latents=True), "arms": {"plain": {}, 0.5: {"atom": True}}}
    found = read_study(write(tmp_path, content))
    assert (found.title, found.seeds, found.arms) == ("Two digits", 2, {"plain": {}, "0.5": {"atom": True}})
    (setting,) = found.settings
    assert (setting.name, setting.metric, setting.shifts, setting.latents) == ("digits", "mcc", shifts, True)
    assert setting.sizes == {24: {"max_steps": 1}} and setting.flags["dataset"] == "digits"
    assert not {"sizes", "metric", "shifts", "latents"} & set(setting.flags)
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
    (with_setting(metric="f1"), "setting 'digits': metric must be accuracy, mcc or perplexity, got 'f1'"),
]


@pytest.mark.parametrize(("content", "says"), MALFORMED)
def test_a_malformed_study_is_refused_by_what_is_wrong_in_it(tmp_path, content, says):
    with pytest.raises(AtomError) as caught:
        read_study(write(tmp_path, content))
    assert says in str(caught.value) and "study.yaml" in str(caught.value) and "\n" not in str(caught.value)


def test_a_study_that_is_not_there_is_refused(tmp_path):
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
    ({**SHORT, "settings": {"verse": {**VERSE, "latents": True}}}, "latents and shifts are for classification"),
    (with_setting(shifts={"far": {"eval_dataset": "nowhere.csv"}}), "--eval_dataset 'nowhere.csv'"),
    (with_setting(shifts={"far": {"eval_set": "x.csv"}}), "shift 'far' sets eval_set"),
]


@pytest.mark.parametrize(("content", "says"), CANNOT_RUN)
def test_what_cannot_run_is_refused_before_anything_has_run(tmp_path, started, content, says):
    with pytest.raises(AtomError, match=says):
        run(tmp_path, content)
    assert started == [] and not (tmp_path / "study").exists()


# The runs


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study with latents and a shift, run once: (its folder, its results)."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        shifts = {"train rows": {"eval_split": "train", "max_eval_samples": 30}}
        return folder, run(folder, with_setting(STUDY, latents=True, shifts=shifts))


def test_every_run_is_measured(finished):
    folder, lines = finished
    # Seeds outermost, arms innermost.
    assert keys(lines) == [("digits", size, arm, seed) for seed in (0, 1) for size in (24, 48) for arm in ARMS]
    assert lines == kept(folder)
    for line in lines:
        assert list(line) == [
            *("setting", "size", "arm", "seed", "settings", "accuracy", "mcc", "loss", "calibration_error", "entropy"),
            *("effective_rank", "neighbor_distance", "corrupted accuracy", "corrupted mcc"),
            *("train rows accuracy", "train rows mcc", "seconds"),
        ]
    # One fingerprint for all seeds of an arm at a size, and no other; no result twice.
    marks = {(line["size"], line["arm"]): line["settings"] for line in lines}
    assert len(set(marks.values())) == 4 and all(line["settings"] == marks[line["size"], line["arm"]] for line in lines)
    assert len({line["loss"] for line in lines}) == 8


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
    class Other(study.StudyTrainingArguments):
        atom_weight: float = 0.77

    assert study.StudyTrainingArguments.atom_weight != Other.atom_weight
    monkeypatch.setattr(study, "StudyTrainingArguments", Other)
    with pytest.raises(AtomError, match="'atom' of 'digits' run with other flags"):
        run(tmp_path, SHORT)
    after = run(tmp_path, SHORT, output_dir=str(tmp_path / "again"))
    for one, two in zip(values(before), values(after), strict=True):
        plain = one["arm"] == "plain"
        assert (one == two) == plain and (one["settings"] == two["settings"]) == plain


# Going on


def test_a_finished_study_runs_nothing(finished, started, monkeypatch):
    folder, lines = finished
    monkeypatch.setattr(study, "prepare_run", None)
    again = run_study(str(folder / "study.yaml"), StudyArguments())
    assert again[1] == lines and again[2] == folder / "study" and started == []


def test_an_interrupted_study_goes_on(tmp_path, monkeypatch, capsys):
    whole = run(tmp_path, SHORT, output_dir=str(tmp_path / "whole"))
    calls, real = itertools.count(), study._run

    def interrupted(*args):
        if next(calls) == 1:
            raise KeyboardInterrupt
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(study, "_run", interrupted)
        assert main(["study", write(tmp_path, SHORT)]) == 130
    assert "goes on after the last finished run" in capsys.readouterr().err
    assert keys(kept(tmp_path)) == [("digits", 24, "plain", 0)]
    assert values(run(tmp_path, SHORT)) == values(whole) == values(kept(tmp_path))


@pytest.mark.parametrize("cut", [1, 30])
def test_a_last_line_that_was_cut_short_is_done_again(tmp_path, started, cut):
    """Even where nothing but the end of the line is missing: the next line would be written onto it."""
    lines = run(tmp_path, SHORT)
    results = tmp_path / "study" / "results.jsonl"
    results.write_text(results.read_text()[:-cut])
    started.clear()
    assert values(run(tmp_path, SHORT)) == values(lines) == values(kept(tmp_path))
    assert started == [1]


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


def test_results_of_other_flags_under_the_same_name_are_refused(tmp_path, started):
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
        ("digits: {place: some.npz}", "--local .* sets place"),
        ("digits: {learning_rate: 1.0}", "--local .* sets learning_rate"),
        ("{", "--local .* cannot be read"),
    ],
)
def test_a_local_file_that_cannot_be_used_is_refused(tmp_path, started, content, says):
    with pytest.raises(AtomError, match=says):
        run(tmp_path, SHORT, local=write(tmp_path, content, "local.yaml"))
    assert started == []


def test_a_folder_of_results_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "taken").touch()
    with pytest.raises(AtomError, match=r"--output_dir .*taken' is a file"):
        run(tmp_path, SHORT, output_dir=str(tmp_path / "taken"))


# The command line


def test_the_command_runs_the_study_and_writes_its_report(tmp_path, capsys, started):
    command = ["study", write(tmp_path, SHORT), "--output_dir", "out"]
    assert main(command) == 0 and started == [0, 0, 1, 1]
    out, folder = capsys.readouterr().out, tmp_path / "out"
    assert (folder / REPORT_NAME).read_text() in out and "| digits, 24 | accuracy | atom | 2 |" in out
    for name in (REPORT_NAME, "differences.png"):
        assert f"written   out/{name}" in out and (folder / name).stat().st_size
    assert main([*command, "--report_only"]) == 0 and len(started) == 4
    assert (folder / REPORT_NAME).read_text() in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [[], ["--seeds", "3"], ["nowhere.yaml"], ["study.yaml", "--sedes", "3"], ["study.yaml", "--seeds", "1"]],
)
def test_a_command_that_cannot_be_run_is_refused_in_one_line(tmp_path, capsys, started, arguments):
    write(tmp_path, SHORT)
    assert main(["study", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("atom-hf: error: ") and started == []
    if not arguments or arguments[0].startswith("-"):
        assert "give the study's file first" in line


def test_help_lists_the_flags(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["study", "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert all(flag in out for flag in ("--seeds", "--local", "--output_dir", "--report_only"))


def test_a_study_may_begin_at_another_seed(tmp_path):
    later = {**SHORT, "first_seed": 5, "settings": with_setting(SHORT, latents=True)["settings"]}
    lines = run(tmp_path, later)
    assert {line["seed"] for line in lines} == {5, 6}
    assert (tmp_path / "study" / "latents").is_dir()
    with pytest.raises(AtomError, match="first_seed must be a whole number, got -1"):
        run(tmp_path, {**later, "first_seed": -1})


@pytest.mark.parametrize(
    ("text", "says"),
    [("{broken\n", "line 1, is no result: remove it"), ('{"settings": "x"}\n', "holds other results than a study's")],
)
def test_results_that_are_not_a_studys_are_refused(tmp_path, text, says):
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "results.jsonl").write_text(text)
    with pytest.raises(AtomError, match=says):
        run(tmp_path, SHORT)


def test_a_blank_line_among_the_results_is_passed_over(tmp_path):
    lines = run(tmp_path, SHORT)
    results = tmp_path / "study" / "results.jsonl"
    results.write_text("\n" + results.read_text().replace("\n", "\n\n"))
    assert run(tmp_path, SHORT) == lines


def test_local_says_where_data_lies_and_nothing_else(tmp_path):
    (tmp_path / "local.yaml").write_text("digits: {learning_rate: 1.0}")
    with pytest.raises(AtomError, match="sets learning_rate; it says where data lies: dataset, "):
        run(tmp_path, SHORT, local=str(tmp_path / "local.yaml"))


def test_a_shift_has_the_classes_of_the_training_data(tmp_path):
    shifts = {"other": {"dataset": "gaussians"}}
    with pytest.raises(AtomError, match="shift 'other' has the classes"):
        run(tmp_path, with_setting(SHORT, shifts=shifts))
