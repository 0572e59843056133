"""The table of paired runs by hand, and the sentence that says what it shows."""

import math

import pytest
from scipy import stats

from atom_hf.experiments.paired_table import paired_differences, paired_table, verdict


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


def test_a_long_name_does_not_widen_the_last_column():
    names = ["learning_rate 5e-5", "learning_rate 1e-4"]
    done = {(s, name): {"accuracy": s * 0.1 + i} for s in (0, 1) for i, name in enumerate(names)}
    table = paired_table("x", names, [0, 1], done)
    assert table.header == ["metric", *names, "difference [95 %]"]
    assert "the difference is learning_rate 1e-4 minus learning_rate 5e-5, paired by seed" in table.note


def test_a_metric_that_cannot_be_compared_is_left_out_with_the_reason():
    done = {(s, arm): {"loss": 1.0, "accuracy": 0.5} for s in (0, 1) for arm in "ab"}
    table = paired_table("x", ["a", "b"], [0, 1], done, {"loss": "it is smoothed"})
    assert [row[0] for row in table.rows] == ["accuracy"] and table.note.endswith("Without loss: it is smoothed.")


def runs_of(*metrics):
    """Results of arms a and b with these (name, differences over seeds)."""
    seeds = range(len(metrics[0][1]))
    done = {(s, "a"): {name: 1.0 for name, _ in metrics} for s in seeds}
    return list(seeds), done | {(s, "b"): {name: 1.0 + gaps[s] for name, gaps in metrics} for s in seeds}


UP, DOWN, NOISE, NONE = [0.1, 0.11, 0.12], [-0.1, -0.11, -0.12], [0.1, -0.1, 0.02], [0.0, 0.0, 0.0]
SENTENCES = [
    ([("loss", NOISE), ("accuracy", NONE)], "no difference beyond noise. The 95 % interval of every metric holds 0."),
    (
        [("loss", DOWN), ("accuracy", NOISE)],
        "better in loss (-0.1100), with a 95 % interval that excludes 0; within noise in accuracy.",
    ),
    (
        [("perplexity", UP), ("accuracy", UP), ("f1", DOWN)],
        "better in accuracy (+0.1100), with a 95 % interval that excludes 0; worse in perplexity (+0.1100), f1 (-0.1100), "
        "with a 95 % interval that excludes 0.",
    ),
    (
        [("loss", [math.nan, 0.1, 0.1]), ("accuracy", NOISE)],
        "within noise in accuracy; no interval in loss.",
    ),
]


@pytest.mark.parametrize("metrics, says", SENTENCES, ids=["noise", "better", "both", "NaN"])
def test_the_sentence_says_what_is_beyond_noise(metrics, says):
    seeds, done = runs_of(*metrics)
    assert verdict(paired_differences("ab", seeds, done)) == [f"b against a: {says}"]


def test_a_run_that_diverged_costs_no_table():
    seeds, done = runs_of(("loss", [math.nan, 0.1, 0.1]), ("perplexity", [math.inf, 1.0, 1.0]), ("accuracy", NOISE))
    rows = paired_table("x", "ab", seeds, done).rows
    assert rows[0][1:] == ["1.0000 ± 0.0000", "nan", "+nan [+nan, +nan]"] and rows[1][2] == "nan"
    assert rows[2][2].startswith("1.0067 ± ")


def test_each_arm_has_its_sentence():
    done = {(s, arm): {"accuracy": 0.1 * s + shift} for s in (0, 1) for arm, shift in (("a", 0), ("b", 1), ("c", -1))}
    found = verdict(paired_differences("abc", [0, 1], done))
    assert [sentence.split(":")[0] for sentence in found] == ["b against a", "c against a"]
    assert "better" in found[0] and "worse" in found[1]
