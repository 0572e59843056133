"""Gaps in texts and what fills them: importance by differences, hidden words by a loop, gradients through what is written."""

import pytest
import torch

from atom_hf import AtomError
from atom_hf.tasks.boxes import TextModel
from atom_hf.tasks.manipulation.texts.fill import (
    Cover,
    Filler,
    Hide,
    check_embeds,
    hidden_words,
    token_importance,
    token_roles,
    with_gaps,
)
from atom_hf.tasks.manipulation.texts.rows import padded, token_ids
from atom_hf.tasks.wires import Simplex, Tokens
from helpers.models import make_tokenizer, tiny
from helpers.text_manipulators import SAYS, sentences, text_classifier


def batch_of(texts):
    return padded(token_ids(texts, make_tokenizer(), 48))


def hide_of(**options):
    tokenizer = make_tokenizer()
    get = TextModel(text_classifier().model)
    return Hide(get, token_roles(tokenizer), list(tokenizer.all_special_ids), tokenizer.mask_token_id, **options)


def naive_hidden(importance, words, share):
    hidden = [False] * len(words)
    sums = {word: sum(v for v, w in zip(importance, words, strict=True) if w == word) for word in words if word >= 0}
    room, count = share * sum(word >= 0 for word in words), 0
    for place, word in enumerate(sorted(sums, key=lambda word: -sums[word])):
        size = words.count(word)
        if place and count + size > room:
            break
        count += size
        hidden = [was or w == word for was, w in zip(hidden, words, strict=True)]
    return hidden


@pytest.mark.parametrize("share", [0.01, 0.25, 0.5])
def test_whole_words_are_hidden_by_their_importance(share):
    torch.manual_seed(0)
    words = torch.tensor([[-1, 0, 1, 1, 2, 3, 3, 4, -1], [-1, 0, 0, 0, 0, 1, -1, -1, -1], [-1] * 9])
    importance = torch.randn(3, 9)
    found = hidden_words(importance, words, share)
    for row in range(2):
        assert found[row].tolist() == naive_hidden(importance[row].tolist(), words[row].tolist(), share)
    assert not found[2].any()


def test_importance_adds_up_to_the_log_odds():
    tokenizer, rows = make_tokenizer(), sentences(6, 3)
    model, text, hide = text_classifier().model, batch_of(rows.texts), hide_of()
    real = hide.words(text) >= 0
    found = token_importance(hide.get, text, tokenizer.mask_token_id, real, points=60)
    assert not found[~real].any()

    def log_odds(ids):
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=text.mask).logits
        return logits[torch.arange(6), rows.labels] - logits[torch.arange(6), 1 - rows.labels]

    gained = log_odds(text.ids) - log_odds(text.ids.masked_fill(real, tokenizer.mask_token_id))
    torch.testing.assert_close(found.sum(1), gained, rtol=0.02, atol=0.02)


def test_what_the_classifier_leans_on_is_hidden_and_kept_for_the_next_time():
    rows, tokenizer = sentences(40, 3), make_tokenizer()
    hide, calls = hide_of(keeps=True), []
    text = batch_of(rows.texts)
    gone = hide(text)
    said = torch.tensor(tokenizer.convert_tokens_to_ids([*SAYS[0], *SAYS[1]]))
    told = torch.isin(text.ids, said)
    assert (gone.ids[told] == tokenizer.mask_token_id).float().mean() > 0.8
    assert torch.equal(gone.ids == tokenizer.mask_token_id, hide_of().places(text))
    hide.get = lambda *_: calls.append(1)
    assert torch.equal(hide(text).ids, gone.ids) and not calls
    longer = Tokens(torch.nn.functional.pad(text.ids, (0, 3)), torch.nn.functional.pad(text.mask, (0, 3)))
    assert torch.equal(hide(longer).ids[:, :-3], gone.ids)


def test_chance_covers_a_share_of_the_words():
    text = batch_of(sentences(40, 3).texts)
    hide = hide_of()
    torch.manual_seed(0)
    covered = Cover(hide, 0.5)(text).ids == hide.mask_id
    assert covered.sum(1).tolist() == [4] * 40
    assert not torch.equal(covered, Cover(hide, 0.5)(text).ids == hide.mask_id)


def test_pieces_belong_to_the_word_that_they_go_on_with():
    tokenizer, hide = make_tokenizer(), hide_of()
    text = batch_of(["the zq, bliss"])
    assert tokenizer.convert_ids_to_tokens(text.ids[0].tolist()) == [
        "[CLS]", "the", "z", "##q", ",", "bliss", "[SEP]",
    ]  # fmt: skip
    assert hide.words(text).tolist() == [[-1, 0, 1, 1, -1, 2, -1]]
    joined = batch_of(["bliss'q - day", "'the day-'", "zq's"])
    assert hide.words(joined).tolist() == [
        [-1, 0, 0, 0, 0, 0, -1], [-1, -1, 0, 1, -1, -1, -1], [-1, 0, 0, 0, 0, -1, -1],
    ]  # fmt: skip


def test_a_hidden_word_has_one_gap():
    tokenizer, hide = make_tokenizer(), hide_of()
    text = batch_of(["the zq, bliss'q of", "the day"])
    words = hide.words(text)
    gone = with_gaps(text, (words == 1) | (words == 2), words, hide.mask_id)
    left = [row[mask.bool()].tolist() for row, mask in zip(gone.ids, gone.mask, strict=True)]
    assert [tokenizer.decode(row) for row in left] == ["[CLS] the [MASK], [MASK] of [SEP]", "[CLS] the [MASK] [SEP]"]


def test_written_tokens_are_read_by_their_rows_and_have_the_gradient_of_the_mean():
    torch.manual_seed(0)
    model, tokenizer = text_classifier().model, make_tokenizer()
    filler = Filler(tiny("bert").base_model, 2, tokenizer.mask_token_id, torch.tensor([40, 50, 60, 70]))
    text = batch_of(["the day of bliss", "when they"])
    text.ids[0, 2] = text.ids[0, 4] = text.ids[1, 1] = tokenizer.mask_token_id
    filled = filler(text, Simplex(ids=torch.tensor([0, 1]), classes=2))
    assert filled.places.sum() == 3 and torch.equal(filled.ids[~filled.places], text.ids[~filled.places])
    assert torch.equal(filled.ids[filled.places], filler.vocabulary[filled.scores.argmax(1)])
    table = model.get_input_embeddings()
    rows = filled.embedded(table)
    torch.testing.assert_close(rows, table(filled.ids))
    scores = filled.scores.detach().requires_grad_(True)
    mean = scores.softmax(1) @ table.weight[filler.vocabulary].detach()
    weights = torch.randn(3, mean.shape[1])
    (expected,) = torch.autograd.grad((weights * mean).sum(), scores)
    (found,) = torch.autograd.grad((weights * rows[filled.places]).sum(), filled.scores)
    torch.testing.assert_close(found, expected)
    other = filler(text, Simplex(ids=torch.tensor([1, 1]), classes=2))
    assert not torch.equal(other.scores[:2], filled.scores[:2]) and torch.equal(other.scores[2], filled.scores[2])


def test_a_model_without_embeddings_is_refused():
    with pytest.raises(AtomError, match="the filler: Linear takes no inputs_embeds"):
        check_embeds(torch.nn.Linear(2, 2), "the filler")
