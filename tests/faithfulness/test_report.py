"""Tables of results whose means, intervals and differences are worked out by hand."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from atom_hf.faithfulness import report

HEAD = {"kind": "head", "settings": "0", "data": "made up", "task": "text-classification", "samples": 4}
LINE = {"kind": "sample", "tokens": 3, "predicted": 0, "probability": 0.9}
CURVE = [0.9, 0.5, 0.3, 0.1]
RNG = np.random.default_rng(0)
# [models, samples] of one measure; the last sample was not measured for the second model.
VALUES = {name: RNG.random((2, 4)) for name in ("importance", "random", "integrated_gradients")}
ATTRIBUTIONS = RNG.normal(size=(2, 4, 3))


@pytest.fixture
def folder(tmp_path):
    lines = [HEAD, {"kind": "weights", "model": "a", "arm": "model", "weights": "0"}]
    for method, values in VALUES.items():
        for row, model in enumerate(["a", "b"]):
            about = {"model": model, "arm": "model", "how": "mask", "method": method}
            for sample in range(4 - row):
                value = float(values[row, sample])
                found = dict.fromkeys(report.MEASURES, value) | {"infidelity": None}
                curves = {"deletion_curve": CURVE, "insertion_curve": CURVE[::-1]}
                attribution = ATTRIBUTIONS[row, sample].tolist()
                lines.append({**about, **LINE, "sample": sample, **found, **curves, "attribution": attribution})
            check = {"kind": "check", "sample": 0, "sensitivity_max": 0.5 + row}
            lines.append({**about, **check, "randomization": {"top": [0.9, 0.9], "embeddings": [0.25, None]}})
            lines.append({**about, "kind": "cost", "forward": 50.0, "backward": 50.0, "time": 40.0 + row})
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def t_interval(values):
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return np.mean(values), np.mean(values) - half, np.mean(values) + half


def test_an_interval_is_students():
    assert report.interval(np.array([1.0, 2.0, 4.0, math.nan])) == pytest.approx(t_interval([1, 2, 4]))
    assert report.interval(np.array([2.0]))[0] == 2 and math.isnan(report.interval(np.array([2.0])).low)
    assert math.isnan(report.interval(np.array([math.nan])).mean)


def cells_of(text, start):
    line = next(line for line in text.splitlines() if line.startswith(f"| {start} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_means_are_over_models_first_and_intervals_over_samples(folder):
    text = report.report(*report.read_blocks(folder))
    both = VALUES["importance"][:, :3]  # what both models have
    mean, low, high = t_interval(both.mean(0))
    spread = np.std(both.mean(1), ddof=1)
    assert cells_of(text, "importance")[1] == f"{mean:.3f} [{low:.3f}, {high:.3f}] ± {spread:.3f}"
    assert cells_of(text, "importance")[6] == "–"


def test_differences_are_paired(folder):
    text = report.report(*report.read_blocks(folder))
    gaps = (VALUES["importance"] - VALUES["integrated_gradients"])[:, :3]
    mean, low, high = t_interval(gaps.mean(0))
    over = t_interval(gaps.mean(1))[1:]
    mark = "" if low <= 0 <= high else " ▲" if mean > 0 else " ▼"
    expected = f"{mean:+.3g} [{low:+.3g}, {high:+.3g}]{mark}; [{over[0]:+.3g}, {over[1]:+.3g}]"
    assert cells_of(text, "importance - integrated gradients")[1] == expected
    means = {name: values[:, :3].mean() for name, values in VALUES.items()}
    share = (means["importance"] - means["random"]) / (means["integrated_gradients"] - means["random"])
    assert cells_of(text, "share of the way: importance")[1] == f"{share:.0%}"


def test_a_mark_goes_by_the_direction_of_the_measure():
    better = np.array([[0.1, 0.11, 0.12]])
    assert "▲" in report.gap(better, True) and "▼" in report.gap(better, False)
    assert "▼" in report.gap(-better, True) and "▲" in report.gap(-better, False)
    assert not {"▲", "▼"} & set(report.gap(np.array([[0.1, -0.1, 0.02]]), True))


def test_checks_and_costs(folder):
    text = report.report(*report.read_blocks(folder))
    cells = cells_of(text[text.index("Checks") :], "importance")
    agreements = [stats.spearmanr(*ATTRIBUTIONS[:, sample]).statistic for sample in range(3)]
    assert cells[1].startswith("1.000 ") and cells[2].startswith(f"{np.mean(agreements):.3f} ")
    assert cells[3].startswith("0.250 ") and cells[4] == "–"
    assert cells[5:] == ["40.5", "50.0", "50.0", "150.0"]


def test_both_files_are_written(folder):
    written = report.write_report(folder)
    assert [path.name for path in written] == ["report.md", "faithfulness.png"]
    assert written[1].read_bytes()[:4] == b"\x89PNG"
