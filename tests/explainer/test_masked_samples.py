"""The sets that are drawn and what the model says of them: against each set by itself."""

import io
import itertools

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from atom_hf import AtomConfig, attach_atoms
from atom_hf.explainer import collect as collecting
from atom_hf.explainer import masked_samples
from atom_hf.explainer.collect import collect
from atom_hf.explainer.fit import fit_explainer, make_maskers
from atom_hf.explainer.masked_samples import draw_sets, passes_of
from atom_hf.explainer.masking import Masker
from helpers.explained import with_heads
from helpers.linear_words import linear_words
from helpers.models import TEXT, batch_for, make_tokenizer, rows_for


def test_sets_are_drawn_by_the_shapley_kernel():
    tokens = torch.zeros(3, 9, dtype=torch.bool)
    tokens[0, 1:8], tokens[1, 2:4] = True, True  # 7 tokens, 2, and none
    drawn = draw_sets(tokens, 8000, torch.Generator().manual_seed(0))
    assert drawn.shape == (3, 8000, 9) and not (drawn & ~tokens[:, None]).any()
    assert torch.equal(drawn[:, 0::2] ^ drawn[:, 1::2], tokens[:, None].expand(-1, 4000, -1))
    kernel = [1 / (size * (7 - size)) for size in range(1, 7)]
    found = np.bincount(drawn[0, 0::2].sum(1).numpy(), minlength=8)
    expected = [4000 * weight / sum(kernel) for weight in kernel]
    assert found[0] == found[7] == 0
    # 99.9 % of chi-square with five degrees of freedom lies below 20.5.
    assert sum((f - e) ** 2 / e for f, e in zip(found[1:7], expected, strict=True)) < 20.5
    assert (drawn[1].sum(1) == 1).all()
    # Any set of a size is as likely as another: 21 pairs of 7 tokens, and 20 degrees of freedom.
    pairs = drawn[0, 0::2][drawn[0, 0::2].sum(1) == 2]
    counts = [int(pairs[:, list(pair)].all(1).sum()) for pair in itertools.combinations(range(1, 8), 2)]
    assert sum((c - len(pairs) / 21) ** 2 / (len(pairs) / 21) for c in counts) < 45.4


def masked_text(inputs, kept, strategy):
    """One text with the tokens of a list of booleans alone, by lists."""
    ids, attention = inputs["input_ids"][0].tolist(), inputs["attention_mask"][0].tolist()
    if strategy == "mask":
        ids = [number if keep else make_tokenizer().mask_token_id for number, keep in zip(ids, kept, strict=True)]
    else:
        real = [keep and a for keep, a in zip(kept, attention, strict=True)]
        ids = [number for number, keep in zip(ids, real, strict=True) if keep]
        attention = [1] * len(ids)
    return {"input_ids": torch.tensor([ids]), "attention_mask": torch.tensor([attention])}


def masked_image(inputs, kept, strategy, model):
    """One image of 16 patches of 2 x 2 pixels, behind [CLS]."""
    pixels = inputs["pixel_values"].clone()
    ground = pixels.mean().expand_as(pixels)
    if strategy == "blur":
        nothing = torch.zeros(1, 17, dtype=torch.bool)
        ground = Masker(model, None, "blur")(inputs, nothing)["pixel_values"]
    for patch, keep in enumerate(kept[1:]):
        if not keep:
            row, column = divmod(patch, 4)
            place = (..., slice(2 * row, 2 * row + 2), slice(2 * column, 2 * column + 2))
            pixels[place] = ground[place]
    return {"pixel_values": pixels}


@pytest.mark.parametrize("name", ["bert", "gpt2-classifier", "vit"])
def test_the_value_of_a_set_is_that_of_the_input_masked_alone_for_every_class(name):
    model, inputs = with_heads(name).eval(), batch_for(name, 3)
    maskers = make_maskers(model, make_tokenizer())
    with torch.no_grad():
        collected, passes, layers = collect(model, maskers, [inputs], 3, 1, 8, 0)
        assert layers == [0, 1, 2] and collected.tokens.shape[1] == 3
        assert len(collected) == 3 and passes == 3 * passes_of(1, 8, 2) == 3 * (1 + 8 + 2)
        assert (collected.copy == 0).all() and collected.strategy.tolist() == [[0, 0, 1, 1] * 2] * 3
        for row in range(3):
            alone = {key: value[row : row + 1] for key, value in inputs.items()}
            shown = model(**alone).logits.softmax(-1)[0]
            classes = collected.classes[row]
            assert classes.tolist() == shown.argsort(descending=True)[:8].tolist()
            torch.testing.assert_close(collected.values[row], shown, atol=1e-5, rtol=0)

            def value(kept, strategy, alone=alone):
                masked = (
                    masked_text(alone, kept, strategy) if name in TEXT else masked_image(alone, kept, strategy, model)
                )
                return model(**masked).logits.softmax(-1)[0]

            players = collected.mask[row]
            for number in range(8):
                which = number // 2 % 2
                nothing = value((~players).tolist(), maskers[which].strategy)
                kept = (collected.keep[row, number] | ~players).tolist()
                change = (value(kept, maskers[which].strategy) - nothing)[classes]
                torch.testing.assert_close(collected.change[row, number], change, atol=1e-5, rtol=0)
                torch.testing.assert_close(collected.whole[row, which], (shown - nothing)[classes], atol=1e-5, rtol=0)
                torch.testing.assert_close(collected.nothing[row, which], nothing, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["bert", "vit"])
def test_a_copy_keeps_what_it_has_left_and_nothing_else_changes(name, monkeypatch):
    model, given = with_heads(name).eval(), []
    values = masked_samples._values
    monkeypatch.setattr(masked_samples, "_values", lambda *args: given.append(args) or values(*args))
    maskers = make_maskers(model, make_tokenizer())
    with torch.no_grad():
        collected, _, _ = collect(model, maskers, [batch_for(name, 4)], 4, 3, 4, 0)
        assert collected.copy.tolist() == [0] * 4 + [1] * 4 + [2] * 4 and collected.sample.tolist() == [0, 1, 2, 3] * 3
        assert (collected.mask[4:].sum(1) >= 2).all() and collected.mask[4:].sum() < 2 * collected.mask[:4].sum()
        for call, (_, masker, inputs, keep) in enumerate(given):
            rows = slice(4 * (call // 2), 4 * (call // 2) + 4)
            players, classes = collected.mask[rows, : keep.shape[2]], collected.classes[rows]
            whole = masker(inputs, keep[:, 0] | players)
            assert all(torch.equal(whole[key], inputs[key]) for key in ("input_ids", "pixel_values") if key in inputs)
            v_none = model(**masker(inputs, keep[:, 0])).logits.softmax(-1).gather(1, classes)
            v_all = model(**inputs).logits.softmax(-1).gather(1, classes)
            mine = collected.whole[rows][:, maskers.index(masker)]
            torch.testing.assert_close(mine, v_all - v_none, atol=1e-5, rtol=0)


def test_only_the_layer_of_the_atoms_is_read_of_a_model_that_counts_none():
    model = attach_atoms(linear_words(make_tokenizer()), AtomConfig(layer=0, hidden_size=1), make_tokenizer())
    assert masked_samples.find_layers(model, batch_for("bert", 2)) == [0]


def test_of_many_layers_a_few_are_read_the_first_the_last_and_that_of_the_atoms():
    model = with_heads(num_hidden_layers=12).eval()
    assert masked_samples.find_layers(model, batch_for("bert", 2)) == [
        0,
        4,
        8,
        11,
        12,
    ]  # a paper's form reads layer -2: 11 of 12


def test_no_more_is_kept_than_the_padded_texts_may_fill(few_steps, monkeypatch):
    rows = sorted(rows_for("bert", 40), key=lambda row: len(row["input_ids"]))
    short, long = rows[0], rows[-1]
    batches = [make_tokenizer().pad([row] * 8, return_tensors="pt") for row in (long, short, short, short, short)]
    batches = [{key: value for key, value in batch.items() if key != "labels"} for batch in batches]
    # 20 samples of the length of the longest: that of the third batch is the first too many.
    monkeypatch.setattr(collecting, "MAX_BYTES", 20 * len(long["input_ids"]) * 3 * 32 * 2)
    found = fit_explainer(with_heads(), make_tokenizer(), batches, copies=1, sets=4)
    assert found.samples == 24


@pytest.fixture
def bars(monkeypatch):
    """The totals that each progress bar counted to, in their order, and where it ended."""
    seen = []

    class Bar(collecting.tqdm):
        def __init__(self, *args, **options):
            super().__init__(*args, **options, file=io.StringIO())
            seen.append(self)
            self.totals = [self.total]

        def update(self, n=1):
            self.totals.append(self.total)
            return super().update(n)

    monkeypatch.setattr(collecting, "tqdm", Bar)
    return seen


def bert_batches(count):
    rows = [{key: value for key, value in row.items() if key != "labels"} for row in rows_for("bert", count)]
    return DataLoader(rows, 8, collate_fn=lambda part: dict(make_tokenizer().pad(part, return_tensors="pt")))


@pytest.mark.parametrize(
    ("make", "asked", "first", "last"),
    [
        pytest.param(bert_batches, 500, 20, 20, id="fewer rows than samples"),
        pytest.param(bert_batches, 16, 16, 16, id="more rows than samples"),
        pytest.param(lambda count: list(bert_batches(count)), 500, 500, 20, id="batches of unknown number"),
        pytest.param(lambda count: [], 500, 500, 0, id="no batches"),
    ],
)
def test_the_bar_counts_to_what_there_is(bars, make, asked, first, last):
    model = with_heads().eval()
    with torch.no_grad():
        collect(model, make_maskers(model, make_tokenizer()), make(20), asked, 1, 4, 0)
    (bar,) = bars
    assert bar.totals[0] == first and bar.total == bar.n == last


def test_the_bar_counts_to_what_fits_into_memory(bars, monkeypatch):
    model, batches = with_heads().eval(), bert_batches(40)
    longest = max(batch["input_ids"].shape[1] for batch in batches)
    monkeypatch.setattr(collecting, "MAX_BYTES", 12 * longest * 3 * 32 * 2)
    with torch.no_grad():
        collect(model, make_maskers(model, make_tokenizer()), batches, 40, 1, 4, 0)
    (bar,) = bars
    # From the first batch on it is known how many will fit, but for the lengths of the others.
    assert bar.totals[0] == 40 > bar.totals[1] >= 12 and bar.total == bar.n < 40


def test_a_budget_of_seconds_ends_it_at_a_batch_and_the_bar_counts_to_there(bars, monkeypatch, caplog):
    clock = itertools.count(0, 10)  # a batch of 8 takes ten seconds
    monkeypatch.setattr(collecting, "perf_counter", lambda: next(clock))
    model, batches = with_heads().eval(), bert_batches(60)
    with caplog.at_level("INFO"):
        found, passes, _ = collect(model, make_maskers(model, make_tokenizer()), batches, 60, 1, 4, 0, seconds=25)
    (bar,) = bars
    # After the first batch it is known that two and a half fit in; the third ends it.
    assert bar.totals == [60, 20, 20, 24] and bar.total == bar.n == 24 == len(found.sample.unique())
    assert passes == 24 * passes_of(1, 4, 2) == 24 * 7
    assert "masking 20 samples takes 140 forward passes, about 25 s" in caplog.text
    assert "fitted on 24 samples: the time for it is over" in caplog.text


def test_a_budget_too_small_for_a_fit_takes_the_fewest_samples(bars, monkeypatch):
    clock = itertools.count(0, 10)
    monkeypatch.setattr(collecting, "perf_counter", lambda: next(clock))
    model = with_heads().eval()
    found, _, _ = collect(model, make_maskers(model, make_tokenizer()), bert_batches(60), 60, 1, 4, 0, seconds=1)
    assert len(found.sample.unique()) == 16 == bars[0].total


@pytest.mark.parametrize(("seconds", "words"), [(0.2, "1 s"), (89, "89 s"), (600, "10 min"), (9000, "2.5 h")])
def test_a_length_of_time_in_words(seconds, words):
    assert collecting.in_words(seconds) == words
