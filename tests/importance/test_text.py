"""Importance of texts: batches against one text at a time, over models that pad, count and see in their own ways."""

import copy
import dataclasses
import math

import pytest
import torch

from atom_hf.importance.read import read_texts
from atom_hf.importance.text import TextScorer
from atom_hf.importance.word_spans import UNREAD
from helpers.models import make_tokenizer, tiny
from helpers.scored import MODELS, TEXTS, ready


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("kind", MODELS)
def test_a_batch_is_read_as_its_texts_alone(kind, side):
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    model = ready(MODELS[kind](), tokenizer)
    before = tokenizer.padding_side, model.config.pad_token_id
    tokenizer.padding_side = side
    try:
        results = read_texts(model, tokenizer, TEXTS)
    finally:
        tokenizer.padding_side = before[0]
    assert model.config.pad_token_id == before[1]
    for text, result in zip(TEXTS, results, strict=True):
        encoded = tokenizer(text, return_tensors="pt")
        values = model.atom_importance(**encoded)[0]
        found = [piece.importance for piece in result.pieces]
        assert found == pytest.approx(values[~values.isnan()].tolist(), abs=1e-5) and len(found) == len(values) - 2
        with torch.no_grad():
            outputs = model(
                **encoded, **({"decoder_input_ids": torch.zeros(1, 1, dtype=torch.long)} if kind == "T5" else {})
            )
        if kind == "T5":
            assert result.predicted is None and result.confidence is None
        else:
            scores = outputs.logits.softmax(-1)[0]
            assert result.confidence == pytest.approx(float(scores.max()), abs=1e-5)
            assert result.predicted == model.config.id2label[int(scores.argmax())]


def test_a_text_without_tokens_is_no_atom():
    model = ready(tiny("bert"), make_tokenizer())
    (result,) = read_texts(model, make_tokenizer(), [""])
    assert result.words == [] and result.atom is None and result.predicted


def test_a_language_model_is_not_asked_for_the_logits_of_every_token():
    model = ready(tiny("gpt2"), make_tokenizer())
    shapes = []
    model.lm_head.register_forward_hook(lambda _, __, logits: shapes.append(tuple(logits.shape)))
    read_texts(model, make_tokenizer(), TEXTS[:3])
    assert [shape[:2] for shape in shapes] == [(3, 1)]


def test_roberta_counts_its_places_from_behind_the_padding():
    """Of 50 places it has 49: with padding at 0 the first token is at 1."""
    tokenizer = make_tokenizer()
    model = ready(tiny("roberta"), tokenizer)
    tokenizer.model_max_length, before = int(1e30), tokenizer.model_max_length
    try:
        (result,) = read_texts(model, tokenizer, [" ".join(["the"] * 100)])
    finally:
        tokenizer.model_max_length = before
    assert sum(not math.isnan(word.importance) for word in result.words) == 47 and result.truncated


# Texts far longer than the model

BOOKS = {
    "words": "the and of the " * 300,
    "one word": "great" * 2000,
    "a script without spaces": "海は広いな" * 850,
    "spaces": "the" + " " * 10_000 + "sea",
    "accents": "sea" + "\u0301" * 10_000 + " the",
    "lines": "the of\n" * 650,
}


@pytest.mark.parametrize("second", [None, "the sea", "the " * 1050], ids=["alone", "short", "long"])
@pytest.mark.parametrize("text", BOOKS.values(), ids=BOOKS)
def test_a_book_gives_the_inputs_that_all_of_it_would(text, second, monkeypatch):
    scorer = TextScorer(ready(tiny("bert"), make_tokenizer()), make_tokenizer())
    scorer.limit = 47  # half of 44 tokens for each of two long ones: an odd one goes to the longer
    encoded = scorer.encode(text, second)
    monkeypatch.setattr("atom_hf.importance.text.readable", lambda text, *_: text)
    whole = scorer.encode(text, second)
    same = [getattr(encoded, field.name) == getattr(whole, field.name) for field in dataclasses.fields(whole)]
    assert all(same), same  # nobody wants to read how two books differ


def test_a_book_is_not_tokenized_whole(monkeypatch):
    tokenizer, read = make_tokenizer(), []
    whole = type(tokenizer).__call__
    monkeypatch.setattr(
        type(tokenizer),
        "__call__",
        lambda self, *texts, **options: read.append(texts) or whole(self, *texts, **options),
    )
    (result,) = read_texts(ready(tiny("bert"), tokenizer), tokenizer, ["the sea " * 100_000])
    assert read and max(len(text or "") for texts in read for text in texts) < 10_000
    assert result.truncated and len(result.text) == 800_000


def test_of_a_book_the_first_words_behind_the_last_that_was_read_are_told():
    (result,) = read_texts(ready(tiny("bert"), make_tokenizer()), make_tokenizer(), ["the " * 200_000])
    known = [not math.isnan(word.importance) for word in result.words]
    assert sum(known) == 46 and all(known[:46]) and len(known) == 46 + UNREAD
    assert {word.text for word in result.words} == {"the"}


def test_a_tokenizer_that_cuts_in_front_reads_all_of_it():
    tokenizer = copy.deepcopy(make_tokenizer())
    tokenizer.truncation_side = "left"
    (result,) = read_texts(ready(tiny("bert"), tokenizer), tokenizer, ["the " * 5000 + "sea"])
    assert not math.isnan(result.words[-1].importance) and result.words[-1].text == "sea"
