"""The best arm of a study: ranks against counting by hand, and the rule of accuracy."""

import itertools

import numpy as np
import pytest

from atom_hf.experiments.ranking import best_arm, rank_arms
from atom_hf.experiments.study_file import Setting, Study

ARMS = ("plain", "one", "two")


def study_of(settings=2, seeds=4):
    """Random results of three arms: `one` is best in the loss, `two` in the probe and not in accuracy."""
    made = [Setting(f"setting {i}", {}, {100: {}}, "accuracy", {}, False, {"fine": {}}) for i in range(settings)]
    made.append(Setting("without a probe", {}, {100: {}}, "accuracy", {}, False))
    rng = np.random.default_rng(0)
    best = {"scaled loss": {"one": -0.3, "two": -0.2}, "fine probe": {"one": 0.1, "two": 0.3}}
    best["accuracy"] = {"one": 0.01, "two": -0.1}
    lines = []
    for setting, seed, arm in itertools.product(made, range(seeds), ARMS):
        base = {"setting": setting.name, "size": 100, "arm": arm, "seed": seed}
        noise = rng.normal(0, 0.001)
        lines.append({**base, **{name: 0.7 + noise + gain.get(arm, 0.0) for name, gain in best.items()}})
    return Study("A study", seeds, {arm: {} for arm in ARMS}, made), lines


def test_ranks_are_those_counted_by_hand():
    study, lines = study_of()
    found = {rank.arm: rank for rank in rank_arms([(study, lines)])}
    # In each setting `one` is first and second, `two` second and first, plain third twice.
    assert {arm: rank.mean for arm, rank in found.items()} == {"one": 1.5, "two": 1.5, "plain": 3.0}
    assert {rank.places for rank in found.values()} == {4}
    assert found["one"].loses == found["plain"].loses == ()
    assert found["two"].loses == ("setting 0, 100", "setting 1, 100")


def test_ranks_over_several_studies_are_over_all_their_settings():
    first, second = study_of(), study_of(settings=1)
    assert {rank.places for rank in rank_arms([first, second])} == {6}


def test_arms_that_one_study_lacks_are_not_ranked():
    (first, lines), (second, others) = study_of(), study_of(settings=1)
    first = first._replace(arms={**first.arms, "three": {}})
    lines = [*lines, *({**line, "arm": "three", "scaled loss": -9.0} for line in lines if line["arm"] == "one")]
    assert {rank.arm: rank.mean for rank in rank_arms([(first, lines), (second, others)])} == {
        **{"one": 1.5, "two": 1.5, "plain": 3.0},
    }


def test_equal_means_share_a_rank_and_seeds_that_one_arm_lacks_do_not_count():
    study, lines = study_of(settings=1)
    for line in lines:
        line["scaled loss"] = line["fine probe"] = 0.5
    lines = [line for line in lines if not (line["arm"] == "two" and line["seed"] == 3)]
    next(line for line in lines if (line["arm"], line["seed"]) == ("one", 3))["fine probe"] = 9.0
    assert [rank.mean for rank in rank_arms([(study, lines)])] == [2.0, 2.0, 2.0]
    assert rank_arms([(study, [line for line in lines if line["arm"] != "two"])]) == []


def test_the_best_arm_loses_no_accuracy():
    ranks = rank_arms([study_of()])
    assert best_arm(ranks) == "one"
    assert best_arm(ranks, ["two", "plain"]) == "plain"
    assert best_arm(ranks, ["two"]) == "two"


@pytest.mark.parametrize("seeds", [1])
def test_one_seed_has_ranks_and_no_interval(seeds):
    study, lines = study_of(seeds=seeds)
    assert all(rank.loses == () for rank in rank_arms([(study, lines)]))
