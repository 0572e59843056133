"""The report of a study: differences and their tests against SciPy and by hand, and files that can be opened."""

import json
import math
import statistics

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from atom_hf import AtomError
from atom_hf.experiments import study_report
from atom_hf.experiments.differences import cost_ratio, differences, family
from atom_hf.experiments.study_file import Setting, Study
from atom_hf.experiments.study_report import check_packages, tables, write_report
from atom_hf.utils.statistics import holm


def study_of(arms=("plain", "atom"), metric="accuracy", sizes=(100,), names=("digits",)):
    settings = [Setting(name, {}, {size: {} for size in sizes}, metric, {}, False) for name in names]
    return Study("Two digits", 5, {arm: {} for arm in arms}, settings)


def lines_of(arm, seeds=None, setting="digits", size=100, **measures):
    """One line a seed; `measures` are lists of values."""
    count = len(next(iter(measures.values())))
    return [
        {"setting": setting, "size": size, "arm": arm, "seed": seed, "settings": "0", "seconds": 1.0}
        | {name: value for name, values in measures.items() for value in [values[i]]}
        for i, seed in zip(range(count), seeds or range(count), strict=True)
    ]


PLAIN, ATOM = [0.81, 0.84, 0.79, 0.9], [0.83, 0.88, 0.8, 0.89]


# Differences


def test_a_difference_is_that_of_a_paired_t_test():
    lines = lines_of("plain", accuracy=PLAIN) + lines_of("atom", accuracy=ATOM)
    (found,) = differences(study_of(), lines, None)
    test = stats.ttest_rel(ATOM, PLAIN)
    interval = test.confidence_interval(0.95)
    assert (found.setting, found.size, found.arm, found.measure, found.seeds) == ("digits", 100, "atom", "accuracy", 4)
    assert found.first == pytest.approx(statistics.mean(PLAIN))
    assert found.mean == pytest.approx(statistics.mean(ATOM) - statistics.mean(PLAIN))
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.p == found.holm == pytest.approx(test.pvalue)


@pytest.mark.parametrize("seed", range(3))
def test_every_arm_setting_and_size_is_compared_with_the_first_arm(seed):
    rng = np.random.default_rng(seed)
    arms, names, sizes = ("plain", "atom", "other"), ("digits", "verse"), (100, 300)
    values = {(n, s, a): rng.normal(size=5).tolist() for n in names for s in sizes for a in arms}
    lines = [line for (n, s, a), v in values.items() for line in lines_of(a, setting=n, size=s, loss=v)]
    rng.shuffle(lines)
    found = differences(study_of(arms, sizes=sizes, names=names), lines, "loss")
    expected = [(n, s, a) for n in names for s in sizes for a in arms[1:]]
    assert [(d.setting, d.size, d.arm) for d in found] == expected
    ps = [stats.ttest_rel(values[key], values[*key[:2], "plain"]).pvalue for key in expected]
    assert [d.p for d in found] == pytest.approx(ps) and [d.holm for d in found] == pytest.approx(holm(ps))


def test_only_seeds_that_both_arms_have_are_compared():
    lines = lines_of("plain", seeds=[0, 1, 2, 3], loss=[1.0, 2.0, 3.0, 9.0])
    lines += lines_of("atom", seeds=[2, 0, 1, 7], loss=[2.5, 0.5, 2.0, 0.0])
    (found,) = differences(study_of(), lines, "loss")
    assert found.seeds == 3 and found.first == 2.0
    assert found.p == pytest.approx(stats.ttest_rel([0.5, 2.0, 2.5], [1.0, 2.0, 3.0]).pvalue)


def test_what_fewer_than_two_seeds_have_is_left_out():
    lines = lines_of("plain", loss=[1.0, 2.0], accuracy=[0.5, 0.6]) + lines_of("atom", loss=[1.0], accuracy=[0.5])
    assert differences(study_of(), lines, "loss") == differences(study_of(), [], None) == []
    lines += lines_of("atom", seeds=[1], loss=[1.0], accuracy=[0.5])
    assert len(differences(study_of(), lines, None)) == 1 and differences(study_of(), lines, "perplexity") == []


def test_a_difference_without_spread_has_no_interval():
    lines = lines_of("plain", loss=[1.0, 2.0, 3.0]) + lines_of("atom", loss=[0.5, 1.5, 2.5])
    (found,) = differences(study_of(), lines, "loss")
    assert found.mean == -0.5 and found.verdict == 0
    assert all(map(math.isnan, (found.low, found.high, found.p, found.holm)))
    (same,) = differences(study_of(), lines_of("plain", loss=[1.0, 2.0]) + lines_of("atom", loss=[1.0, 2.0]), "loss")
    assert (same.mean, same.p, same.holm, same.verdict) == (0.0, 1.0, 1.0, 0)


def test_a_run_that_diverged_is_no_evidence():
    lines = lines_of("plain", loss=[1.0, 2.0, 3.0]) + lines_of("atom", loss=[0.5, math.nan, 2.4])
    (found,) = differences(study_of(), lines, "loss")
    assert math.isnan(found.mean) and math.isnan(found.holm) and found.verdict == 0


@pytest.mark.parametrize(
    ("measure", "more"),
    [
        *[(name, 1) for name in ("accuracy", "mcc", "corrupted accuracy", "out of domain mcc")],
        *[(name, -1) for name in ("loss", "perplexity", "calibration_error", "self_bleu", "repetition")],
    ],
)
def test_the_verdict_knows_which_measures_are_better_when_less(measure, more):
    low, high = [1.0, 1.1, 0.9, 1.2], [1.5, 1.7, 1.4, 1.6]

    def verdict(first, other):
        lines = lines_of("plain", **{measure: first}) + lines_of("atom", **{measure: other})
        return differences(study_of(), lines, measure)[0].verdict

    assert verdict(low, high) == more and verdict(high, low) == -more
    assert verdict(low, [1.2, 0.9, 1.1, 1.0]) == 0


# Probes


def probed(names=("digits", "verse")):
    """A study of settings with a probe each, and a line for each seed, arm and setting."""
    rng, arms = np.random.default_rng(4), ("plain", "atom", "other")
    study = study_of(arms, names=names)
    settings = [s._replace(probes={f"part of {s.name}": {}, "more": {}}) for s in study.settings]
    lines = []
    for name in names:
        measures = ("accuracy", "loss", "scaled loss", "train accuracy", "more probe")
        measures += tuple(f"part of {name} {end}" for end in ("probe", "neighbors", "untrained probe"))
        lines += [line for arm in arms for line in lines_of(arm, setting=name, **{m: rng.random(5) for m in measures})]
    return study._replace(settings=settings), lines


def test_the_family_is_corrected_over_both_measures_of_all_studies():
    one, two = probed(), probed(("gaussians",))
    scaled, probe = family([one, two])
    names = [(n, a) for n in ("digits", "verse", "gaussians") for a in ("atom", "other")]
    assert [(d.setting, d.arm) for d in scaled] == [(d.setting, d.arm) for d in probe] == names
    assert {d.measure for d in scaled} == {"scaled loss"}
    assert [d.measure for d in probe] == [f"part of {name} probe" for name, _ in names]
    ps = [d.p for d in scaled + probe]
    assert [d.holm for d in scaled + probe] == pytest.approx(holm(ps))
    (alone,) = [d for d in differences(one[0], one[1], "scaled loss") if (d.setting, d.arm) == ("verse", "other")]
    assert scaled[3]._replace(holm=0) == alone._replace(holm=0)


def test_probes_have_tables_of_their_own():
    study, lines = probed()
    text = tables(study, lines)
    scaled, probe = family([(study, lines)])
    found = [row for row in text.splitlines() if row.startswith("| verse, 100") and "part of verse probe" in row]
    assert len(found) == 2 and f"{scaled[3].holm:.3g}" in found[1] and f"{probe[3].holm:.3g}" in found[1]
    means = cells(text.split("**Means over seeds**")[1].split("**Other")[0], "digits, 100", "plain")
    mine = [line for line in lines if (line["setting"], line["arm"]) == ("digits", "plain")]
    by_hand = statistics.mean(line["part of digits untrained probe"] for line in mine)
    assert f"{by_hand:.3f}" in means and means[0] == "5"
    assert means[-1] == f"more probe {statistics.mean(line['more probe'] for line in mine):.3f}"
    assert "part of digits" not in text.split("**Other measures**")[1]


def test_seeds_without_a_measure_that_came_later_are_left_out():
    lines = lines_of("plain", loss=[1.0, 2.0, 3.0], twin=[0.5] * 3) + lines_of("atom", loss=[1.0, 2.0, 3.0])
    assert differences(study_of(), lines, "twin") == [] and len(differences(study_of(), lines, "loss")) == 1


# Cost


def test_the_cost_is_a_median_of_ratios_over_seeds():
    lines = lines_of("plain", loss=[0.0] * 4) + lines_of("atom", loss=[0.0] * 4)
    for line, seconds in zip(lines, [10.0, 20.0, 1.0, 7.0, 11.0, 60.0, 2.0, 7.0], strict=True):
        line["seconds"] = seconds
    lines += lines_of("atom", seeds=[9], loss=[0.0]) + lines_of("plain", size=300, loss=[0.0] * 4)
    (setting,) = study_of().settings
    # 1.1, 3, 2 and 1; a ratio of means or of medians would be another number.
    assert cost_ratio(setting, 100, "atom", "plain", lines) == pytest.approx((1.1 + 2) / 2)
    assert math.isnan(cost_ratio(setting, 300, "atom", "plain", lines))


# What is written


def example(sizes=(100, 300), metric="accuracy", arms=("plain", "atom", "other")):
    rng = np.random.default_rng(0)
    lines = []
    for size in sizes:
        for arm in arms:
            measures = {
                name: rng.uniform(0.2, 0.9, 4).tolist() for name in (metric, "loss", "entropy", "corrupted mcc")
            }
            lines += lines_of(arm, size=size, **measures)
    return study_of(arms, metric, sizes), lines


def cells(text, *start):
    """The cells of the one row that begins with `start`, behind those."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    (row,) = [row for row in rows if tuple(row[: len(start)]) == start]
    return row[len(start) :]


def test_tables_by_hand():
    lines = lines_of("plain", accuracy=[0.5, 0.6, 0.7], loss=[1.0, 2.0, 3.0], entropy=[1.0, 2.0, 3.0])
    lines += lines_of("atom", accuracy=[0.6, 0.6, 0.8], loss=[0.9, 1.8, 2.7], entropy=[1.1, 2.1, 3.2])
    for line in lines[3:]:
        line["seconds"] = 1.25
    text = tables(study_of(), lines)
    # Differences 0.1, 0, 0.1: mean 1/15, standard error 1/30; t(2) at 97.5 % is 4.302653.
    half = 4.302652729911275 / 30
    assert cells(text, "digits, 100", "accuracy") == [
        *("atom", "3", "0.6000", f"+0.0667 [{1 / 15 - half:+.4f}, {1 / 15 + half:+.4f}]", "0.184", "0.184")
    ]
    # -0.1, -0.2, -0.3: mean -0.2, standard error 0.1 / sqrt(3), t = -3.4641 on 2 degrees of freedom.
    half = 4.302652729911275 * 0.1 / math.sqrt(3)
    assert cells(text, "digits, 100", "loss") == [
        *("atom", "3", "2.0000", f"-0.2000 [{-0.2 - half:+.4f}, {-0.2 + half:+.4f}]", "0.0742", "0.0742")
    ]
    # 0.1, 0.1, 0.2: mean 2/15, standard error 1/30, an interval down to -0.0101.
    header = next(line for line in text.splitlines() if " cost |" in line)
    shown = dict(
        zip(
            [cell.strip() for cell in header.strip("|").split("|")][2:], cells(text, "digits, 100", "atom"), strict=True
        )
    )
    assert shown["entropy"] == "+0.1333" and shown["cost"] == "1.25"


def test_marks_say_which_way_is_better_where_one_is():
    """Of entropy neither is: its mark says that the interval excludes 0, and no more."""
    low, high = [1.0, 1.1, 1.2], [1.5, 1.61, 1.7]
    lines = lines_of("plain", accuracy=low, loss=low, entropy=low) + lines_of(
        "atom", accuracy=high, loss=high, entropy=high
    )
    text = tables(study_of(), lines)
    assert cells(text, "digits, 100", "accuracy")[3].endswith("] ▲")
    assert cells(text, "digits, 100", "loss")[3].endswith("] ▼")
    (entropy,) = [cell for cell in cells(text, "digits, 100", "atom") if cell.startswith("+0.5") and cell.endswith("●")]
    assert not set("▲▼") & set(entropy)


def test_tables_of_nothing_are_their_heads():
    text = tables(study_of(), [])
    assert "setting, samples" in text and "digits, 100" not in text


def opened(path):
    with Image.open(path) as image:
        image.load()
        return image.format, len(set(image.convert("L").resize((50, 50)).tobytes()))


@pytest.mark.parametrize("metric", ["accuracy", "mcc", "perplexity"])
def test_a_report_is_tables_and_pictures(tmp_path, metric):
    study, lines = example(metric=metric)
    for size in (100, 300):
        for arm in study.arms:
            (tmp_path / "latents").mkdir(exist_ok=True)
            points = np.random.default_rng(size).normal(size=(3, 20, 2)).tolist()
            moments = [{"progress": share, "points": one} for share, one in zip((0, 0.05, 1), points, strict=True)]
            about = {"setting": study.settings[0].name, "size": size, "arm": arm}
            picture = {**about, "labels": [i % 3 for i in range(20)], "moments": moments[: 3 if arm == "atom" else 2]}
            (tmp_path / "latents" / f"digits-{size}-{arm}.json").write_text(json.dumps(picture))
    written = write_report(study, lines, tmp_path)
    # A perplexity is over the vocabulary of its own sample: there is no curve over sizes.
    pictures = ["differences.png", *(["sizes.png"] if metric != "perplexity" else []), "latents.png"]
    assert [path.name for path in written] == ["tables.md", *pictures]
    assert written[0].read_text(encoding="utf-8") == tables(study, lines)
    for picture in written[1:]:
        kind, shades = opened(picture)
        assert kind == "PNG" and shades > 3


def test_pictures_that_would_be_empty_are_not_drawn(tmp_path):
    study, lines = example(sizes=(100,))
    assert [path.name for path in write_report(study, lines, tmp_path / "a")] == ["tables.md", "differences.png"]
    assert [path.name for path in write_report(study, [], tmp_path / "b")] == ["tables.md"]


def test_a_study_of_one_seed_so_far_can_be_reported(tmp_path):
    study, lines = example()
    written = write_report(study, [line for line in lines if line["seed"] == 0], tmp_path)
    assert written[0].name == "tables.md" and all(opened(path)[0] == "PNG" for path in written[1:])


def test_a_package_that_is_missing_is_named(monkeypatch):
    check_packages()
    real = study_report.importlib.util.find_spec
    monkeypatch.setattr(
        study_report.importlib.util, "find_spec", lambda name: None if name == "sacrebleu" else real(name)
    )
    with pytest.raises(AtomError, match="a study needs sacrebleu: pip install"):
        check_packages()
