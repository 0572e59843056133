"""Hotspots of ensembles whose groups are known."""

import math

import pytest
import torch

from atom_hf import AtomError
from atom_hf.fragments import Channel, compare_channels, find_hotspots
from helpers.fragments import ensemble


def groups(hotspots):
    """The names of the channels of each hotspot."""
    return [{hotspots.channels[index].name for index in hotspots.members(number)} for number in range(len(hotspots))]


@pytest.mark.parametrize("distance", ["nmi", "vi"])
@pytest.mark.parametrize("cluster", ["hdbscan", "optics"])
def test_what_all_runs_learn_is_found(cluster, distance):
    for seed in (0, 2):
        channels, _ = ensemble(runs=8, factors=3, own=1, seed=seed)
        found = find_hotspots(channels, distance=distance, cluster=cluster)
        sizes = [len(found.members(number)) for number in range(3)]
        assert len(found) == 3 and sizes == sorted(sizes, reverse=True)
        for factor in range(3):
            (number,) = {int(found.labels[i]) for i in range(32) if channels[i].name == f"factor {factor}"}
            assert number >= 0
        assert sum(sizes) - 24 <= 4  # of the channels that no two runs share, few are taken in
    assert sizes == [8, 8, 8]  # none with this seed
    assert found.kept.tolist() == list(range(32))
    assert sorted(found.ordering.tolist()) == found.kept.tolist()
    assert found.labels.shape == (32,) and found.reachability.shape == (32,)
    # In OPTICS' order the channels of a hotspot stand together, and a new group is far to reach.
    for number in range(3):
        places = [found.ordering.tolist().index(index) for index in found.members(number).tolist()]
        assert max(places) - min(places) < len(places) + 2
    assert found.reachability[found.ordering[0]] == math.inf


def test_a_row_for_each_hotspot():
    channels, (first, _, _) = ensemble(runs=8, factors=3, own=1, seed=2)
    found = find_hotspots(channels)
    rows = found.summary([Channel.hard((first > 0).long(), name="sign"), Channel.hard(torch.arange(80) % 2)])
    assert [row["hotspot"] for row in rows] == [0, 1, 2]
    of_first = next(row for row in rows if row["name"] == "factor 0")
    members = found.members(of_first["hotspot"])
    comparison = compare_channels([channels[index] for index in members])
    assert of_first["size"] == len(members) and of_first["runs"] == 1.0
    assert of_first["bits"] == pytest.approx(comparison.information.mean().item())
    apart = ~torch.eye(len(members), dtype=torch.bool)
    assert of_first["nmi"] == pytest.approx(comparison.nmi[apart].mean().item())
    assert of_first["medoid"] == members[comparison.nmi.mean(1).argmax()]
    to_sign = compare_channels([channels[index] for index in members], [Channel.hard((first > 0).long())])
    assert of_first["nmi sign"] == pytest.approx(to_sign.nmi.mean().item())
    assert of_first["chance"] is None
    by_chance = find_hotspots(channels, comparison=compare_channels(channels, chance=True)).summary()
    assert all(row["nmi"] > 0.4 > row["chance"] > 0 for row in by_chance)
    assert of_first["nmi sign"] > 0.4 > 0.1 > of_first["chance sign"] > 0
    others = [row for row in rows if row is not of_first]
    assert all(row["nmi sign"] < 0.1 for row in others) and all(row["nmi 1"] < 0.1 for row in rows)


def test_noise_has_no_hotspot():
    channels, _ = ensemble(runs=20, factors=0, own=3)
    found = find_hotspots(channels)
    assert len(found) == 0 and (found.labels == -1).all() and found.summary() == []


def test_channels_that_say_nothing_are_in_none():
    channels, _ = ensemble(runs=4, factors=2, own=0)
    silent = Channel.gaussian(torch.zeros(80, 1), torch.zeros(80, 1), run="run 0")
    found = find_hotspots([silent, *channels, silent])
    assert found.labels[[0, -1]].tolist() == [-1, -1] and found.kept.tolist() == list(range(1, 9))
    assert sorted(map(sorted, groups(found))) == [["factor 0"], ["factor 1"]]
    assert found.comparison.nmi.shape == (8, 8)


@pytest.mark.parametrize("cluster", ["hdbscan", "optics"])
def test_few_channels_and_an_nmi_above_1(cluster):
    above = [Channel.soft([[0.0, 1.0], [0.5, 0.5]]), Channel.soft([[0.5, 0.5], [0.0, 1.0]])]
    assert compare_channels(above).nmi.max() > 1
    assert find_hotspots(above, cluster=cluster).labels.tolist() == [-1, -1]
    assert find_hotspots(above * 2, cluster=cluster, distance="vi").labels.shape == (4,)
    assert find_hotspots(above * 2, cluster=cluster, min_size=2).labels.shape == (4,)


def test_the_smallest_group_is_half_the_runs():
    channels, _ = ensemble(runs=8, factors=1, own=1)
    pair = [Channel.deterministic(channels[0].mean[:, 0].flip(0), noise=0.5, run=f"run {run}") for run in range(3)]
    assert len(find_hotspots([*channels, *pair])) == len(find_hotspots([*channels, *pair], min_size=4))
    assert len(find_hotspots([*channels, *pair], min_size=3)) == 2


def test_a_comparison_that_was_made_is_used(monkeypatch):
    channels, _ = ensemble(runs=4, factors=2, own=1)
    made, expected = compare_channels(channels), find_hotspots(channels)
    monkeypatch.setattr("atom_hf.fragments.hotspots.compare_channels", None)
    assert find_hotspots(channels, comparison=made).labels.equal(expected.labels)
    with pytest.raises(AtomError, match=r"comparison must be of the 11 channels, got one of \(12, 12\)"):
        find_hotspots(channels[1:], comparison=made)


def test_bad_input():
    channels, _ = ensemble(runs=3, factors=1, own=0)
    silent = Channel.deterministic(torch.arange(80.0), noise=1e4)
    for given, options, message in (
        (channels[:1], {}, "hotspots need at least 2 channels, got 1"),
        ([], {}, "channels must be one or more of Channel, got none"),
        (
            [silent] * 3,
            {},
            "hotspots need at least 2 channels of 0.01 bits or more; the 3 channels hold at most 1.92e-06 bits",
        ),
        (
            [channels[0], silent],
            {},
            "hotspots need at least 2 channels of 0.01 bits or more; the 2 channels hold at most",
        ),
        (channels, {"distance": "l2"}, "distance must be one of nmi, vi; got 'l2'"),
        (channels, {"cluster": "kmeans"}, "cluster must be one of hdbscan, optics; got 'kmeans'"),
        (channels, {"min_size": 1}, "min_size must be a whole number of at least 2; got 1"),
    ):
        with pytest.raises(AtomError) as error:
            find_hotspots(given, **options)
        assert str(error.value).startswith(message)
