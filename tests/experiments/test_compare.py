"""Paired runs: the table by hand, going on where it stopped, and a plain arm that is plain `train`."""

import json
import math
import shlex

import datasets
import pytest
import transformers
from PIL import Image
from scipy import stats

from atom_hf.cli.main import main
from atom_hf.errors import AtomError
from atom_hf.experiments import compare as module
from atom_hf.experiments.compare import CompareArguments, compare_runs, paired_table
from atom_hf.finetune.arguments import RunArguments
from atom_hf.finetune.flags import parse_flags
from atom_hf.finetune.run import unlogged_run
from atom_hf.modeling.attach import add_explainer
from atom_hf.training.arguments import AtomTrainingArguments

pytestmark = pytest.mark.usefixtures("own_folder")

FLAGS = shlex.split(
    "--model_type vit --config_overrides image_size=8,patch_size=4,num_channels=1,hidden_size=16,num_hidden_layers=1,"
    "num_attention_heads=2,intermediate_size=16 --dataset digits --max_train_samples 48 --max_eval_samples 40 "
    "--max_steps 6 --per_device_train_batch_size 8 --learning_rate 5e-3 --seed 7"
)


def run(folder, *flags, seeds=2):
    flags = [*FLAGS, "--output_dir", str(folder), "--seeds", str(seeds), *flags]
    return compare_runs(*parse_flags("compare", flags, [RunArguments, AtomTrainingArguments, CompareArguments]))


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


# The table


def test_table_by_hand():
    done = {
        (5, "plain"): {"loss": 1.0, "accuracy": 0.5},
        (6, "plain"): {"loss": 2.0, "accuracy": 0.7},
        (7, "plain"): {"loss": 3.0, "accuracy": 0.9},
        (5, "atom"): {"loss": 0.5, "accuracy": 0.6},
        (6, "atom"): {"loss": 2.0, "accuracy": 0.7},
        (7, "atom"): {"loss": 2.0, "accuracy": 1.0},
    }
    table = paired_table("digits", ["plain", "atom"], [5, 6, 7], done)
    assert table.header == ["metric", "plain", "atom", "atom - plain [95 %]"]
    # The differences of the loss are -0.5, 0, -1: mean -0.5, standard deviation 0.5. t(2) at 97.5 % is 4.3027.
    half = stats.t(df=2).ppf(0.975) * 0.5 / math.sqrt(3)
    assert half == pytest.approx(4.302652729911275 * 0.5 / math.sqrt(3))
    atom_sd = math.sqrt((1.0**2 + 0.5**2 + 0.5**2) / 2)
    assert table.rows[0] == [
        "loss (less is better)",
        "2.0000 ± 1.0000",
        f"1.5000 ± {atom_sd:.4f}",
        f"-0.5000 [{-0.5 - half:+.4f}, {-0.5 + half:+.4f}]",
    ]
    # Those of the accuracy are 0.1, 0, 0.1.
    half = stats.t(df=2).ppf(0.975) * math.sqrt((0.2 / 3 - 0.1) ** 2 * 2 / 2 + (0.2 / 3) ** 2 / 2) / math.sqrt(3)
    name, plain, _, difference = table.rows[1]
    assert (name, plain) == ("accuracy", "0.7000 ± 0.2000")
    assert difference == f"+0.0667 [{0.2 / 3 - half:+.4f}, {0.2 / 3 + half:+.4f}]"
    assert "3 seeds" in table.note and "paired" in table.note


def test_the_interval_is_that_of_a_paired_t_test():
    first, second = [0.81, 0.84, 0.79, 0.9], [0.83, 0.88, 0.8, 0.89]
    done = {(s, "a"): {"mcc": v} for s, v in enumerate(first)} | {(s, "b"): {"mcc": v} for s, v in enumerate(second)}
    interval = stats.ttest_rel(second, first).confidence_interval(0.95)
    row = paired_table("x", {"a": {}, "b": {}}, [0, 1, 2, 3], done).rows[0]
    assert row[3].endswith(f"[{interval.low:+.4f}, {interval.high:+.4f}]")


def test_each_arm_is_compared_with_the_first():
    done = {(s, arm): {"loss": s + shift} for s in (0, 1) for arm, shift in (("a", 0.0), ("b", 0.25), ("c", -0.5))}
    table = paired_table("x", ["a", "b", "c"], [0, 1], done)
    assert table.header == ["metric", "a", "b", "b - a [95 %]", "c", "c - a [95 %]"]
    assert table.rows[0][3] == "+0.2500 [+0.2500, +0.2500]" and table.rows[0][5] == "-0.5000 [-0.5000, -0.5000]"


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
    pictures = [str(folder / "page" / name) for name in ("digits.png", "digits.atoms.png")]
    assert report.pictures == pictures and len(list((folder / "page").iterdir())) == 3
    for picture in pictures:
        with Image.open(picture) as opened:
            assert opened.format == "PNG" and min(opened.size) > 100


@pytest.mark.parametrize("fitted", [False, True])
def test_a_page_says_whether_importance_is_fitted(tmp_path, monkeypatch, capsys, fitted):
    real = module.fine_tune

    def fine_tune(run, args, *, explainer_samples, **options):
        assert args.atom or not explainer_samples
        result = real(run, args, **options)
        if explainer_samples and fitted:  # as fit_explainer leaves a model, without the minutes of a fit
            add_explainer(result.trainer.model, 10, 8)
        return result

    monkeypatch.setattr(module, "fine_tune", fine_tune)
    page = tmp_path / "digits.html"
    flags = ["compare", *FLAGS, "--output_dir", "runs", "--seeds", "2", "--page", str(page), "--page_samples", "3"]
    assert main(flags) == 0
    assert ("the prediction leans on it" in page.read_text(encoding="utf-8")) == fitted
    pictures = [tmp_path / name for name in ("digits.png", "digits.atoms.png")]
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
    assert report.table.note in out and f"results   {folder / 'runs'}" in out
    assert not page.exists() and "page  " not in out


def test_default_folder_names_data_and_model(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "runs" / "digits-new-vit-compare"
    assert main(["compare", *FLAGS, "--max_steps", "1", "--seeds", "2"]) == 0
    assert len(lines(folder)) == 5


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
