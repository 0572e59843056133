"""The benchmark of fragments: the naive forms that it compares with, how memory is counted, and what is written."""

import importlib
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
    names = ("naive", "memory", "benchmark")
    yield tuple(importlib.import_module(name) for name in names)
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
