"""Texts cut into runs: joined, they are the text as it was written."""

from dataclasses import replace

import pytest
from hypothesis import given, strategies

from atom_hf.importance.results import TextImportance, WordImportance
from atom_hf.visualization.words import runs
from helpers.importances import HOSTILE, NAN, text


def spans(source, cuts, which=0):
    return [WordImportance(source[a:b], a, b, 0.5, which) for a, b in cuts]


@pytest.mark.parametrize("source", ["", " ", "a", "  two\n\n words\t", HOSTILE])
def test_runs_join_to_the_text(source):
    result = text(source, [0.1] * len(source.split()))
    (found,) = runs(result)
    assert "".join(run.text for run in found) == source
    assert [run.text for run in found if run.word] == source.split()
    assert not any(run.text.strip() for run in found if run.word is None)


@pytest.mark.parametrize("truncated", [True, False])
def test_what_follows_the_last_word_of_a_book_is_cut_short(truncated):
    source = "sea" + " the" * 10_000
    (found,) = runs(TextImportance(source, spans(source, [(0, 3)]), truncated=truncated))
    assert [run.text for run in found[:1]] == ["sea"] and found[-1].cut == truncated
    if truncated:
        assert found[1].text == " the" * 500 + " ... and 38,000 more characters"
    else:
        assert found[1].text == " the" * 10_000
    words = [*spans(source, [(0, 3)]), *(WordImportance("the", i, i + 3, NAN) for i in range(4, len(source), 4))]
    (found,) = runs(TextImportance(source, words, truncated=truncated))
    assert len([run for run in found if run.word]) == (501 if truncated else 10_001)
    assert (found[-1].text == " ... and 38,000 more characters") == truncated


@given(strategies.text(max_size=20), strategies.lists(strategies.tuples(*[strategies.integers(0, 20)] * 2), max_size=6))
def test_any_spans_in_any_order_join_to_the_text(source, cuts):
    cuts = [tuple(sorted(min(place, len(source)) for place in cut)) for cut in cuts]
    (found,) = runs(TextImportance(source, spans(source, cuts), spans(source, cuts)))
    assert "".join(run.text for run in found) == source and all(run.text for run in found)
    covered = {place for a, b in cuts for place in range(a, b)}
    assert sum(len(run.text) for run in found if run.word) == len(covered)


def test_a_pair_is_cut_by_itself():
    result = TextImportance("one two", spans("one two", [(0, 3), (4, 7)]) + spans("three", [(0, 5)], 1), pair="three")
    first, second = runs(result)
    assert [run.text for run in first] == ["one", " ", "two"] and [run.text for run in second] == ["three"]


def test_a_word_of_several_pieces_names_them():
    pieces = [WordImportance("un", 0, 2, 0.5), WordImportance("able", 2, 6, -0.25), WordImportance("so", 7, 9, 0.1)]
    result = TextImportance(
        "unable so", [WordImportance("unable", 0, 6, 0.125), WordImportance("so", 7, 9, 0.1)], pieces
    )
    one, _, other = runs(result)[0]
    assert one.says == "+0.12, mean of un +0.50, able −0.25" and other.says == "+0.10"


def test_what_was_cut_off_is_told_from_what_is_no_token():
    result = text("[a] b c d", [NAN, 0.5, NAN, NAN])
    assert not any(run.cut for run in runs(result)[0])
    assert [run.text for run in runs(replace(result, truncated=True))[0] if run.cut] == [" ", "c", " ", "d"]
    assert all(run.cut for run in runs(text("a b", [NAN, NAN], truncated=True))[0])
