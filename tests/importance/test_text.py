"""Importance of texts: batches against one text at a time, over models that pad, count and see in their own ways."""

import math

import pytest
import torch

from atom_hf.importance.read import read_texts
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
