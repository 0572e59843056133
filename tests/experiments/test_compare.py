"""Paired runs: the table by hand, going on where it stopped, and a plain arm that is plain `train`."""

import hashlib
import json
import math
import shlex

import datasets
import pytest
import transformers
from PIL import Image

from atom_hf.cli.compare import read_flags
from atom_hf.cli.main import main
from atom_hf.errors import AtomError
from atom_hf.experiments import compare as module
from atom_hf.experiments.compare import compare_runs
from atom_hf.experiments.paired_runs import as_hashed
from atom_hf.finetune.arguments import RunArguments
from atom_hf.finetune.run import unlogged_run
from atom_hf.modeling.attach import add_explainer
from atom_hf.training.arguments import AtomTrainingArguments
from helpers.browser import opened as opened_page

pytestmark = pytest.mark.usefixtures("own_folder")

FLAGS = shlex.split(
    "--model_type vit --config_overrides image_size=8,patch_size=4,num_channels=1,hidden_size=16,num_hidden_layers=1,"
    "num_attention_heads=2,intermediate_size=16 --dataset digits --max_train_samples 48 --max_eval_samples 40 "
    "--max_steps 6 --per_device_train_batch_size 8 --learning_rate 5e-3 --seed 7"
)


def run(folder, *flags, seeds=2, given=FLAGS):
    return compare_runs(*read_flags([*given, "--output_dir", str(folder), "--seeds", str(seeds), *flags]))


def lines(folder):
    return [json.loads(line) for line in (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A comparison of two seeds with a page, run once."""
    folder = tmp_path_factory.mktemp("compared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        report = run(folder / "runs", "--page", str(folder / "page" / "digits.html"), "--page_samples", "6")
    return folder, report


# The runs


def test_results_are_written_run_by_run(compared):
    folder, report = compared
    head, *results = lines(folder / "runs")
    assert "settings" in head and "arm" not in head
    assert [(line["seed"], line["arm"]) for line in results] == [(7, "plain"), (7, "atom"), (8, "plain"), (8, "atom")]
    for line in results:
        assert {"loss", "accuracy", "f1", "mcc"} <= set(line)
        assert ("importance" in line) == (line["arm"] == "atom")
    assert results[0]["loss"] != results[1]["loss"] and results[0]["loss"] != results[2]["loss"]
    assert report.folder == str(folder / "runs")


def test_table_is_of_the_results(compared):
    folder, report = compared
    results = {(line["seed"], line["arm"]): line for line in lines(folder / "runs")[1:]}
    values = [results[seed, "plain"]["loss"] for seed in (7, 8)]
    mean, spread = sum(values) / 2, abs(values[0] - values[1]) / math.sqrt(2)
    loss = next(row for row in report.table.rows if row[0].startswith("loss"))
    assert loss[1] == f"{mean:.4f} ± {spread:.4f}"
    difference = sum(results[seed, "atom"]["loss"] - results[seed, "plain"]["loss"] for seed in (7, 8)) / 2
    assert loss[3].startswith(f"{difference:+.4f} [")
    assert "48 training samples" in report.table.caption
    assert [row[0].split()[0] for row in report.table.rows] == ["loss", "accuracy", "f1", "mcc"]


def test_page_and_picture_are_written(compared):
    folder, report = compared
    page = (folder / "page" / "digits.html").read_text(encoding="utf-8")
    assert report.page == str(folder / "page" / "digits.html")
    assert "atom - plain" in page and page.count("data:image/png;base64,") == 2 * 6
    pictures = [str(folder / "page" / name) for name in ("digits.png", "digits.atoms.png", "digits.differences.png")]
    assert report.pictures == pictures and len(list((folder / "page").iterdir())) == 4
    for picture in pictures:
        with Image.open(picture) as opened:
            assert opened.format == "PNG" and min(opened.size) > 100


@pytest.mark.parametrize("fitted", [False, True])
def test_a_page_says_whether_importance_is_fitted(tmp_path, monkeypatch, capsys, fitted):
    real = module.fine_tune

    def fine_tune(run, args, *, explainer_samples=0, **options):
        assert args.atom or not explainer_samples
        result = real(run, args, **options)
        if explainer_samples and fitted:  # as fit_explainer leaves a model, without the minutes of a fit
            add_explainer(result.trainer.model, explainer_classes=10, explainer_width=8)
        return result

    monkeypatch.setattr(module, "fine_tune", fine_tune)
    page = tmp_path / "digits.html"
    flags = ["compare", *FLAGS, "--output_dir", "runs", "--seeds", "2", "--page", str(page), "--page_samples", "3"]
    assert main(flags) == 0
    assert ("the prediction leans on it" in page.read_text(encoding="utf-8")) == fitted
    pictures = [tmp_path / name for name in ("digits.png", "digits.atoms.png", "digits.differences.png")]
    assert capsys.readouterr().out.endswith("".join(f"picture   {path}\n" for path in pictures))


def test_nothing_but_results_is_left_behind(compared):
    folder, _ = compared
    assert not [path for path in (folder / "runs").rglob("*") if path.name.startswith("checkpoint")]
    assert not list((folder / "runs").rglob("*.safetensors"))


@pytest.mark.parametrize("arm", ["plain", "atom"])
def test_an_arm_is_what_train_gives_for_its_seed(compared, tmp_path, capsys, arm):
    folder, _ = compared
    flags = [
        "train",
        *FLAGS,
        "--no_explainer",
        "--seed",
        "8",
        "--sample_seed",
        "8",
        "--output_dir",
        str(tmp_path / "single"),
    ]
    assert main([*flags, *(["--atom"] if arm == "atom" else [])]) == 0
    single = json.loads((tmp_path / "single" / "all_results.json").read_text())
    line = next(line for line in lines(folder / "runs") if (line.get("seed"), line.get("arm")) == (8, arm))
    for name in ("loss", "accuracy", "f1", "mcc", *(["importance", "positive_share"] if arm == "atom" else [])):
        assert line[name] == next(v for k, v in single.items() if k.removeprefix("eval_") == name), name


def count_runs(monkeypatch, stop_at=None):
    """Records what is trained, and stops as Ctrl-C does in place of run number `stop_at`."""
    started, real = [], module.fine_tune

    def fine_tune(run, args, **options):
        if len(started) == stop_at:
            raise KeyboardInterrupt
        started.append((args.seed, "atom" if args.atom else "plain"))
        return real(run, args, **options)

    monkeypatch.setattr(module, "fine_tune", fine_tune)
    return started


@pytest.mark.promise("Interrupted comparisons and studies resume after the last finished run.")
def test_an_interrupted_comparison_goes_on(tmp_path, monkeypatch, compared, capsys):
    with monkeypatch.context() as patch:
        started = count_runs(patch, stop_at=1)
        flags = ["compare", *FLAGS, "--output_dir", str(tmp_path / "runs"), "--seeds", "2"]
        assert main(flags) == 130
        assert started == [(7, "plain")] and len(lines(tmp_path / "runs")) == 2
        # What it says to do next must do: `train` and `compare` go on in different ways.
        assert "--resume_from_checkpoint" not in capsys.readouterr().err
    started = count_runs(monkeypatch)
    report = run(tmp_path / "runs")
    assert started == [(7, "atom"), (8, "plain"), (8, "atom")]
    # The same numbers as in one go.
    assert report.table.rows == compared[1].table.rows
    assert lines(tmp_path / "runs") == lines(compared[0] / "runs")
    started.clear()
    assert run(tmp_path / "runs").table.rows == report.table.rows and started == []


@pytest.mark.promise("Interrupted comparisons and studies resume after the last finished run.")
def test_more_seeds_are_added_to_those_there(tmp_path, monkeypatch, compared):
    target = tmp_path / "runs"
    target.mkdir()
    (target / "results.jsonl").write_bytes((compared[0] / "runs" / "results.jsonl").read_bytes())
    started = count_runs(monkeypatch)
    report = run(target, seeds=3)
    assert started == [(9, "plain"), (9, "atom")] and "3 seeds" in report.table.note


@pytest.mark.promise("Results of other settings are never taken for those of a run.")
@pytest.mark.parametrize(
    "other", [["--learning_rate", "1e-3"], ["--atom_weight", "0.123"], ["--max_train_samples", "40"]]
)
def test_results_of_other_settings_are_rejected(compared, capsys, monkeypatch, other):
    folder, _ = compared
    started = count_runs(monkeypatch)
    before = (folder / "runs" / "results.jsonl").read_bytes()
    assert main(["compare", *FLAGS, "--output_dir", str(folder / "runs"), "--seeds", "2", *other]) == 2
    assert "holds a comparison with other settings" in capsys.readouterr().err
    assert started == [] and (folder / "runs" / "results.jsonl").read_bytes() == before


def test_a_table_read_again_is_the_same_table(tmp_path):
    (tmp_path / "arms.yaml").write_text("with: {atom: true}\nwithout: {atom: false}\n", encoding="utf-8")
    flags = ["--arms", str(tmp_path / "arms.yaml"), "--max_steps", "2"]
    first = run(tmp_path / "runs", *flags)
    assert run(tmp_path / "runs", *flags).table == first.table


@pytest.mark.promise("Interrupted comparisons and studies resume after the last finished run.")
def test_a_line_cut_short_is_not_a_result(tmp_path, monkeypatch, compared):
    """A machine that stops while a line is written must not cost the runs before it."""
    target = tmp_path / "runs"
    target.mkdir()
    whole = (compared[0] / "runs" / "results.jsonl").read_text(encoding="utf-8")
    (target / "results.jsonl").write_text(whole[:-30], encoding="utf-8")
    started = count_runs(monkeypatch)
    report = run(target)
    assert started == [(8, "atom")]
    assert report.table.rows == compared[1].table.rows


def test_arms_of_ones_own(tmp_path, monkeypatch, capsys):
    arms = tmp_path / "arms.yaml"
    arms.write_text("slow: {learning_rate: 1e-4}\nfast: {learning_rate: 1e-2}\nstrong: {atom: true, atom_weight: 1}\n")
    report = run(tmp_path / "runs", "--arms", str(arms), "--max_steps", "2")
    assert report.table.header[1:] == ["slow", "fast", "fast - slow [95 %]", "strong", "strong - slow [95 %]"]
    results = {(line["seed"], line["arm"]): line for line in lines(tmp_path / "runs")[1:]}
    assert len(results) == 6 and results[7, "slow"]["loss"] != results[7, "fast"]["loss"]


@pytest.mark.parametrize("flags", [["--per_device_train_batch_size", "1"], ["--atom_layer", "9"]])
def test_an_arm_that_cannot_run_is_rejected_before_another_has_run(tmp_path, monkeypatch, capsys, flags):
    started = []
    real = transformers.Trainer.train
    monkeypatch.setattr(
        transformers.Trainer, "train", lambda self, *a, **k: started.append(self.args.seed) or real(self, *a, **k)
    )
    assert main(["compare", *FLAGS, "--output_dir", str(tmp_path / "runs"), "--seeds", "2", *flags]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("atom-hf: error: ")
    assert started == []


def test_command_prints_the_table_and_where_things_are(compared, capsys):
    folder, report = compared
    page = folder / "again.html"
    flags = ["compare", *FLAGS, "--output_dir", str(folder / "runs"), "--seeds", "2"]
    assert main(flags) == 0
    out = capsys.readouterr().out
    header = next(line for line in out.splitlines() if line.startswith("metric"))
    assert "plain" in header and "atom - plain [95 %]" in header
    for row in report.table.rows:
        assert any(all(cell in line for cell in row) for line in out.splitlines())
    assert report.table.note in out and f"\n{report.verdict[0]}\n" in out and f"results   {folder / 'runs'}" in out
    assert not page.exists() and "page  " not in out


def test_default_folder_names_data_and_model(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "runs" / "digits-new-vit-compare"
    assert main(["compare", *FLAGS, "--max_steps", "1", "--seeds", "2"]) == 0
    assert len(lines(folder)) == 5


# Any two settings


def test_committed_results_are_known_by_the_settings_that_they_had(compared):
    """The hash with which results of with and without --atom have always begun, made as it was then."""
    run, args, _ = read_flags([*FLAGS, "--output_dir", "x", "--seeds", "2"])
    never = {"output_dir", "seed", "run_name", "logging_dir", "local_rank", "disable_tqdm"}
    values = {name: value for name, value in as_hashed(args).items() if name not in never}
    values |= {**vars(run), "arms": {"plain": {"atom": False}, "atom": {"atom": True}}}
    text = json.dumps(values, sort_keys=True, default=str)
    assert lines(compared[0] / "runs")[0]["settings"] == hashlib.sha256(text.encode()).hexdigest()[:16]


def recipes(folder, first, second=""):
    """Two recipes with the common flags of these tests, and these lines."""
    keys = dict(zip(*[iter(word.removeprefix("--") for word in FLAGS)] * 2, strict=True))
    files = [folder / "first.yaml", folder / "second.yaml"]
    for file, more in zip(files, (first, second), strict=True):
        file.write_text("\n".join([*(f"{key}: {value}" for key, value in keys.items()), more]), encoding="utf-8")
    return ["--a", str(files[0]), "--b", str(files[1])]


def test_with_and_without_atom_is_one_case_of_two_recipes_and_of_a_changed_flag(tmp_path, compared):
    two = run(tmp_path / "two", *recipes(tmp_path, "atom: false", "atom: true"), given=[])
    one = run(tmp_path / "one", "--change", "atom=true")
    for report, folder in ((two, "two"), (one, "one")):
        assert report.table == compared[1].table and report.verdict == compared[1].verdict
        assert lines(tmp_path / folder)[1:] == lines(compared[0] / "runs")[1:]


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    """A comparison of two learning rates with a page, run once; and what each run was given, step by step."""
    folder = tmp_path_factory.mktemp("changed")
    seen, real = {}, transformers.Trainer.training_step

    def training_step(self, model, inputs, *args):
        batches = seen.setdefault((self.args.seed, self.args.learning_rate), [])
        batches.append((inputs["labels"].tolist(), float(inputs["pixel_values"].double().sum())))
        return real(self, model, inputs, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        patch.setattr(transformers.Trainer, "training_step", training_step)
        report = run(folder / "runs", "--change", "learning_rate=1e-4", "--page", str(folder / "page.html"))
    return folder, report, seen


@pytest.mark.promise(
    "Paired runs share their rows, seeds and order; metrics of other rows, classes or tokens are not compared."
)
def test_both_arms_see_the_same_rows_in_the_same_order(changed):
    _, _, seen = changed
    assert set(seen) == {(seed, rate) for seed in (7, 8) for rate in (5e-3, 1e-4)}
    for seed in (7, 8):
        assert len(seen[seed, 5e-3]) == 6 and seen[seed, 5e-3] == seen[seed, 1e-4]
    assert seen[7, 5e-3] != seen[8, 5e-3]


def test_a_changed_flag_gives_what_train_gives_with_it(changed, tmp_path):
    folder, report, _ = changed
    assert report.table.header == ["metric", "learning_rate 5e-3", "learning_rate 1e-4", "difference [95 %]"]
    head, *results = lines(folder / "runs")
    assert head["arms"] == {
        "learning_rate 5e-3": {"learning_rate": 0.005},
        "learning_rate 1e-4": {"learning_rate": 1e-4},
    }
    seed = ["--seed", "8", "--sample_seed", "8", "--learning_rate", "1e-4", "--output_dir", str(tmp_path / "single")]
    assert main(["train", *FLAGS, *seed]) == 0
    single = json.loads((tmp_path / "single" / "all_results.json").read_text())
    (line,) = [line for line in results if (line["seed"], line["arm"]) == (8, "learning_rate 1e-4")]
    assert {name: line[name] for name in single} == single


def test_the_page_names_the_arms_and_says_what_differs(changed, chromium):
    folder, report, _ = changed
    assert report.pictures == [str(folder / "page.differences.png")]
    with Image.open(report.pictures[0]) as opened:
        assert opened.format == "PNG" and min(opened.size) > 100
    with opened_page(chromium, folder / "page.html") as page:
        assert page.title() == "digits: learning_rate 5e-3 vs learning_rate 1e-4"
        text = page.locator("main").inner_text()
        assert "What differs: learning_rate (5e-3, 1e-4)." in text and report.verdict[0] in text
        assert page.get_by_role("heading", name="learning_rate 1e-4 minus learning_rate 5e-3").is_visible()
        assert page.locator(".paired li").count() == 4 and page.locator(".paired circle").count() == 4 * 2
        assert page.locator("figure[id]").count() == 0  # no arm has importances to show


def test_a_comparison_of_changed_flags_goes_on_and_knows_its_results(changed, tmp_path, monkeypatch, capsys):
    folder, report, _ = changed
    (tmp_path / "runs").mkdir()
    kept = (folder / "runs" / "results.jsonl").read_text(encoding="utf-8").splitlines(True)
    (tmp_path / "runs" / "results.jsonl").write_text("".join(kept[:4]), encoding="utf-8")
    started = count_runs(monkeypatch)
    assert run(tmp_path / "runs", "--change", "learning_rate=1e-4").table == report.table
    assert started == [(8, "plain")]
    flags = ["compare", *FLAGS, "--seeds", "2", "--output_dir", str(tmp_path / "runs")]
    for other in (["--change", "learning_rate=2e-4"], ["--change", "learning_rate=1e-4", "--name_b", "slow"], []):
        assert main([*flags, *other]) == 2
        assert "holds a comparison with other settings" in capsys.readouterr().err


def test_other_models_are_compared_and_that_is_told(tmp_path, caplog):
    caplog.set_level("INFO", "atom_hf")
    flags = [
        "--max_steps",
        "1",
        "--change",
        "config_overrides.hidden_size=32",
        "--name_a",
        "small",
        "--name_b",
        "large",
    ]
    report = run(tmp_path / "runs", *flags)
    assert report.table.header == ["metric", "small", "large", "large - small [95 %]"]
    assert "config_overrides.hidden_size (16, 32), and with that the initial weights. The same" in caplog.text


def test_each_comparison_has_a_folder_of_its_own(tmp_path):
    for more in (["--change", "learning_rate=1e-4"], ["--change", "weight_decay=0.1", "learning_rate=1e-4"]):
        assert main(["compare", *FLAGS, "--max_steps", "1", "--seeds", "2", *more]) == 0
    names = sorted(path.name for path in (tmp_path / "runs").iterdir())
    both = "digits-new-vit-compare-learning_rate-1e-4-weight_decay-0.1"
    assert names == ["digits-new-vit-compare-learning_rate-1e-4", both]


def test_rows_of_the_second_arm_that_changed_are_noticed(tmp_path, capsys):
    rows = [f"{text},{label}\n" for text, label in (("calm sea", "yes"), ("red fire", "no")) for _ in range(6)]
    for name in ("one", "two", "test"):
        (tmp_path / f"{name}.csv").write_text("text,label\n" + "".join(rows), encoding="utf-8")
    sizes = "hidden_size=16,num_hidden_layers=1,num_attention_heads=2,intermediate_size=16"
    flags = ["compare", "--model_type", "bert", "--config_overrides", sizes, "--dataset", "one.csv", "--max_steps", "1"]
    flags += ["--eval_dataset", "test.csv", "--change", "dataset=two.csv", "--output_dir", "runs", "--seeds", "2"]
    assert main(flags) == 0
    (tmp_path / "two.csv").write_text("text,label\n" + "".join(rows[1:]) + "more,no\n", encoding="utf-8")
    assert main(flags) == 2 and "holds a comparison on other rows" in capsys.readouterr().err


# Explaining pairs


def test_importance_of_pairs_covers_both_texts(tmp_path, capsys):
    """Where the second text decides, a prediction from the first alone would be wrong."""
    rows = [
        f"{first},{second},{second}\n" for first in ("calm sea", "red fire", "grey moon") for second in ("yes", "no")
    ]
    (tmp_path / "pairs.csv").write_text("sentence1,sentence2,label\n" + "".join(rows * 8), encoding="utf-8")
    sizes = "hidden_size=32,num_hidden_layers=1,num_attention_heads=2,intermediate_size=32"
    flags = ["--model_type", "bert", "--config_overrides", sizes, "--dataset", "pairs.csv", "--output_dir", "pairs"]
    assert main(["train", *flags, "--atom", "--max_steps", "60", "--learning_rate", "5e-3"]) == 0
    assert json.loads((tmp_path / "pairs" / "all_results.json").read_text())["accuracy"] == 1.0
    assert main(shlex.split("explain --model pairs --dataset pairs.csv --samples 8 --page page.html")) == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "8 of 8 classified correctly" in page
    # Both texts are shown, the second of which is "yes" or "no" as the label is.
    assert "sea" in page and page.count(">yes</") + page.count(">no</") >= 8


@pytest.mark.promise(
    "Bad input ends in one line that names the argument, with exit code 2, before training, and nothing is written."
)
def test_a_rejected_comparison_leaves_its_folder_free(tmp_path, capsys):
    flags = ["compare", *FLAGS, "--output_dir", str(tmp_path / "runs"), "--seeds", "2"]
    assert main([*flags, "--atom_layer", "99"]) == 2
    assert not (tmp_path / "runs" / "results.jsonl").exists()
    assert main(flags) == 0 and len(lines(tmp_path / "runs")) == 5


def test_paired_runs_are_not_pushed(tmp_path):
    args = AtomTrainingArguments(str(tmp_path), push_to_hub=True)
    with (
        pytest.raises(AtomError, match="--push_to_hub: paired runs are measured"),
        unlogged_run(RunArguments(), args, 0),
    ):
        pass
