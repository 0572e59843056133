"""The benchmark of fragments: the naive forms that it compares with, how memory is counted, and what is written."""

import importlib
import json
import sys

import pytest
import torch

from atom_hf.fragments import compare_channels
from helpers.paths import ROOT

FOLDER = ROOT / "recipes" / "fragments"


@pytest.fixture
def benchmark(monkeypatch):
    """The modules of the benchmark; they find each other as scripts of one folder do."""
    monkeypatch.syspath_prepend(str(FOLDER))
    names, threads = ("naive", "memory", "benchmark"), torch.get_num_threads()
    yield tuple(importlib.import_module(name) for name in names)
    torch.set_num_threads(threads)
    for name in names:
        sys.modules.pop(name)


def test_all_forms_find_the_same(benchmark):
    naive, _, bench = benchmark
    for kind in bench.KINDS:
        channels = bench.make_channels(kind, 4, 30)
        streamed = compare_channels(channels)
        assert 0.5 < streamed.information.mean() < 2
        for form in (naive.in_pairs, naive.once):
            found = form(channels)
            assert sorted(found) == ["information", "nmi", "shared", "vi"]
            for name, value in found.items():
                torch.testing.assert_close(value, getattr(streamed, name), rtol=1e-9, atol=1e-12)


def test_memory_is_that_of_what_is_in_use(benchmark):
    _, memory, _ = benchmark

    def act():
        first = torch.zeros(1000, dtype=torch.float64)
        second = first + 1  # 16,000 bytes
        del first
        third = second.view(10, 100).mul_(2)  # no copy
        fourth = torch.cat([third, third])  # 24,000
        del second, third
        return fourth[0] + 1  # 16,800

    assert memory.peak_bytes(act) == 24_000


def test_forms_are_timed_by_turns(benchmark, monkeypatch):
    _, _, bench = benchmark
    calls = []
    forms = {name: lambda _, name=name: calls.append(name) for name in bench.FORMS}
    monkeypatch.setattr(bench, "forms_of", lambda *_: forms)
    seconds = bench.time_forms(bench.make_channels("units", 2, 5), rounds=2)
    names = list(bench.FORMS)
    assert calls == [*names, *names, *names[::-1]] and set(seconds) == set(names)


def test_the_report_is_that_of_the_results(benchmark, tmp_path):
    _, _, bench = benchmark
    found = json.loads((FOLDER / "results" / "benchmark.json").read_text(encoding="utf-8"))
    assert (FOLDER / "benchmark.md").read_text(encoding="utf-8") == bench.report(found), (
        "run benchmark.py --report_only"
    )
    assert bench.draw(found, tmp_path / "drawn.png").read_bytes()[:4] == b"\x89PNG"
    sizes = {(one["kind"], one["channels"], one["points"]) for one in found["sizes"]}
    assert sizes == {(kind, *size) for kind in bench.KINDS for size in bench.SIZES}


def test_a_part_that_is_measured_again_leaves_the_others(benchmark, monkeypatch, tmp_path):
    _, _, bench = benchmark
    monkeypatch.setattr(bench, "RESULTS", tmp_path / "results" / "benchmark.json")
    monkeypatch.setattr(bench, "POINTS", [10, 20])
    monkeypatch.setattr(bench, "CHANNELS", [2])
    bench.measure(["by_points", "by_channels"])
    first = json.loads(bench.RESULTS.read_text(encoding="utf-8"))
    assert [one["points"] for one in first["by_points"]] == [10, 20]
    assert set(first["by_points"][0]["seconds"]) == set(bench.FORMS)
    bench.measure(["by_channels"])
    again = json.loads(bench.RESULTS.read_text(encoding="utf-8"))
    assert again["by_points"] == first["by_points"] and again["by_channels"] != first["by_channels"]


def test_the_large_size_is_measured_in_this_process(benchmark, monkeypatch):
    _, _, bench = benchmark
    monkeypatch.setattr(bench, "LARGE", (3, 40))
    found = bench.measure_large()
    assert (found["channels"], found["points"]) == (3, 40)
    assert 0 < found["bytes_before"] <= found["bytes_of_process"]


def test_the_page_of_the_circle_is_that_of_its_results(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(FOLDER))
    circle = importlib.import_module("circle")
    try:
        rows = json.loads((FOLDER / "results" / "circle.json").read_text(encoding="utf-8"))
        assert (FOLDER / "circle.md").read_text(encoding="utf-8") == circle.report(rows), "run circle.py --report_only"
        assert circle.draw(rows, tmp_path / "drawn.png").read_bytes()[:4] == b"\x89PNG"
        angle, learners = circle.make_learners(3, seed=0)
        assert circle.tear(torch.stack([angle.cos(), angle.sin()], 1)) == pytest.approx(1)
        assert compare_channels(learners).information.tolist() == pytest.approx([circle.BITS] * 3, abs=1e-6)
    finally:
        sys.modules.pop("circle")
