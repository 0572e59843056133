"""Words and pieces by their characters: each stands in its source as it says, whatever the tokenizer makes of the text."""

import itertools
import math
import random

import numpy as np
import pytest
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import trainers as bpe_trainers

from atom_hf.importance.word_spans import find_pieces, score_words

CORPUS = ["the sea is calm and the moon is bright", "don't call it café, naïve as it is", "rivers\nof the north"] * 3
HARD = [
    "The sea — calm?  \n\n\tmoon 😀 bright",
    "👩‍👩‍👧 family, 👍🏽 e\u0301te\u0301 naïve İstanbul ﬁne",
    "  leading and trailing  ",
    "東京は海 the שלום sea\u202emoon\u200b",
    "\r\nthe\x00sea\x1b[31m calm\x7f",
    "a" * 300 + " " + "é" * 50,
    " \n\t ",
    "",
]


def byte_level(trim_offsets, add_prefix_space=False):
    """GPT-2's way of cutting: any byte is a token, and the space before a word is part of it."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = bpe_trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(CORPUS, trainer)
    backend.post_processor = processors.ByteLevel(trim_offsets=trim_offsets, add_prefix_space=add_prefix_space)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend)


def word_piece():
    """BERT's: lower case and without accents, by canonical decomposition."""
    letters = [chr(code) for code in range(33, 127)]
    words = ["the", "sea", "cafe", "naive", "##n", "un", "##calm", *letters, *("##" + letter for letter in letters)]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words]))}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    marks = [("[CLS]", 2), ("[SEP]", 3)]
    backend.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", marks)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]")


def sentence_piece():
    """Llama's: no words at all, spaces made into letters, and bytes for what is not in the vocabulary."""
    backend = Tokenizer(models.BPE(byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    bytes_ = [f"<0x{value:02X}>" for value in range(256)]
    trainer = bpe_trainers.BpeTrainer(vocab_size=500, special_tokens=bytes_, show_progress=False)
    backend.train_from_iterator([word for line in CORPUS for word in line.split()], trainer)
    backend.decoder = decoders.ByteFallback()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend)


KINDS = {
    "bytes": byte_level(False),
    "bytes, trimmed": byte_level(True),
    "bytes, prefixed": byte_level(True, add_prefix_space=True),
    "word pieces": word_piece(),
    "sentence pieces": sentence_piece(),
}


def spans(tokenizer, *sources, **options):
    encoding = tokenizer(*sources, **options).encodings[0]
    pieces = find_pieces(encoding, list(sources))
    rng = np.random.default_rng(0)
    importance = rng.uniform(-1, 1, len(encoding))
    words, pieces = score_words(pieces, list(sources), importance, bool(encoding.overflowing))
    return words, pieces, importance, encoding


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", HARD)
def test_spans_stand_in_the_text_as_they_say(kind, text):
    words, pieces, _, encoding = spans(KINDS[kind], text)
    for found in (words, pieces):
        assert all(span.text == text[span.start : span.end] == span.text.strip() != "" for span in found)
        assert all(before.end <= after.start for before, after in itertools.pairwise(found))
    for word in words:
        inside = [piece for piece in pieces if word.start <= piece.start < word.end]
        assert (inside[0].start, inside[-1].end) == (word.start, word.end)
    # Nothing that the tokenizer placed is lost, but for white space.
    placed = {i for start, end in encoding.offsets for i in range(start, end) if text[i].strip()}
    assert placed <= {i for word in words for i in range(word.start, word.end)}


@pytest.mark.parametrize("kind", ["bytes", "bytes, trimmed", "bytes, prefixed", "sentence pieces"])
def test_bytes_of_one_character_are_one_piece(kind):
    text = "sea 😀 é"
    words, pieces, importance, encoding = spans(KINDS[kind], text)
    (face,) = [piece for piece in pieces if piece.text == "😀"]
    tokens = [i for i, (start, end) in enumerate(encoding.offsets) if text[start:end].strip() == "😀"]
    assert len(tokens) > 1 and face.importance == pytest.approx(importance[tokens].mean())
    assert [word.text for word in words] == ["sea", "😀", "é"]


def test_words_where_the_tokenizer_knows_none_end_at_white_space():
    encoding = KINDS["sentence pieces"]("the calm sea\n is bright").encodings[0]
    assert set(encoding.word_ids) == {0}
    words, *_ = spans(KINDS["sentence pieces"], "the calm sea\n is bright")
    assert [word.text for word in words] == ["the", "calm", "sea", "is", "bright"]


def test_accents_that_a_normalizer_takes_away_stay_with_their_letter():
    text = "Cafe\u0301, NAÏVE İ nai\u0308ve\u0301"
    words, *_ = spans(KINDS["word pieces"], text)
    assert [word.text for word in words] == ["Cafe\u0301", ",", "NAÏVE", "İ", "nai\u0308ve\u0301"]


def test_a_word_is_the_mean_over_its_tokens_that_belong_to_the_atom():
    tokenizer = KINDS["word pieces"]
    encoding = tokenizer("uncalm sea").encodings[0]
    assert encoding.tokens == ["[CLS]", "un", "##calm", "sea", "[SEP]"]
    pieces = find_pieces(encoding, ["uncalm sea"])
    importance = np.array([np.nan, 0.5, -0.1, np.nan, np.nan])
    words, cut = score_words(pieces, ["uncalm sea"], importance)
    assert words[0].importance == pytest.approx(0.2) and math.isnan(words[1].importance)
    assert [piece.importance for piece in cut[:2]] == pytest.approx([0.5, -0.1])
    words, _ = score_words(pieces, ["uncalm sea"], np.array([np.nan, 0.5, np.nan, 0.1, np.nan]))
    assert [word.importance for word in words] == pytest.approx([0.5, 0.1])


def test_pairs_count_each_in_its_own_source():
    words, *_ = spans(KINDS["word pieces"], "the sea", "cafe\u0301 the")
    assert [(word.text, word.source, word.start) for word in words] == [
        ("the", 0, 0),
        ("sea", 0, 4),
        ("cafe\u0301", 1, 0),
        ("the", 1, 6),
    ]


@pytest.mark.parametrize("side", ["right", "left"])
def test_what_was_cut_off_is_there_without_a_value(side):
    tokenizer = word_piece()
    tokenizer.truncation_side = side
    text = "  ".join(random.Random(0).choices(["the", "sea", "naïve", "uncalm!"], k=40))
    words, pieces, *_ = spans(tokenizer, text, truncation=True, max_length=12)
    # The rest of a word that was read in part is told by white space too.
    assert "".join(word.text for word in words) == "".join(text.split())
    known = [not math.isnan(word.importance) for word in words]
    assert sum(known) > 4 and not any(math.isnan(piece.importance) for piece in pieces)
    assert known == sorted(known, reverse=side == "right")


def test_both_of_a_pair_may_be_cut():
    sources = [" ".join(["sea"] * 20), " ".join(["the"] * 30)]
    words, *_ = spans(KINDS["word pieces"], *sources, truncation=True, max_length=13)
    for source, text in enumerate(sources):
        own = [word for word in words if word.source == source]
        assert [word.text for word in own] == text.split()
        assert [not math.isnan(word.importance) for word in own] == [True] * 5 + [False] * (len(own) - 5)


def test_ten_thousand_words():
    text = " ".join(f"sea{number} 😀" for number in range(10_000))
    words, *_ = spans(KINDS["bytes"], text)
    assert len(words) >= 20_000 and words[-1].end == len(text)
