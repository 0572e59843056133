"""Perplexity of edited sentences: that of a loop over single sentences, and what a page says with and without it."""

import importlib
import json
import math
import sys

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from helpers.paths import ROOT

FOLDER = ROOT / "recipes" / "manipulation"
TEXTS = [
    "a dull film",
    "a",
    "the film is a fascinating film about the sea",
    "fascinating sea",
    "a dull film about a film",
]
EDITED = {"seed": 0, "editor": "the editor"}


@pytest.fixture
def fluency(monkeypatch):
    """The module of the recipe."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module("fluency")
    for name in ("fluency", "texts", "embeddings"):
        sys.modules.pop(name, None)


def save_llama(folder, **special):
    """A tiny Llama with random weights, and a tokenizer of the words of the texts."""
    words = ["<|endoftext|>", "<chat>", *sorted({word for text in TEXTS for word in text.split()})]
    words = [word for word in words if word[0] != "<" or word in special.values()]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="a"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **special).save_pretrained(folder)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = transformers.LlamaConfig(vocab_size=len(words), initializer_range=0.5, **sizes)
        transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def judge(fluency, tmp_path):
    return fluency.load_language_model(save_llama(tmp_path / "judge", bos_token="<chat>", unk_token="<|endoftext|>"))


def one_by_one(judge, start):
    """The summed losses of the texts and their tokens, each by a forward pass of its own."""
    losses, counts = [], []
    for text in TEXTS:
        ids = torch.tensor([start + judge.tokenizer(text)["input_ids"]])
        with torch.no_grad():
            logs = judge.model(ids).logits[0].log_softmax(-1)
        losses.append(-sum(float(logs[i, ids[0, i + 1]]) for i in range(ids.shape[1] - 1)))
        counts.append(ids.shape[1] - 1)
    return losses, counts


@pytest.mark.parametrize("batch", [1, 2, 16])
def test_losses_are_those_of_single_sentences(fluency, judge, batch):
    found, counts = fluency.token_losses(judge, TEXTS, batch)
    losses, tokens = one_by_one(judge, [judge.start])
    assert counts.tolist() == tokens == [len(text.split()) for text in TEXTS]
    assert found.tolist() == pytest.approx(losses, rel=1e-5)
    whole = fluency.perplexity(judge, TEXTS)
    assert whole["perplexity"] == pytest.approx(math.exp(sum(losses) / sum(tokens)), rel=1e-5)
    assert {**whole, "perplexity": 0} == {"perplexity": 0, "texts": 5, "tokens": sum(tokens), "model": "judge"}


def test_a_sentence_follows_what_stands_between_documents(fluency, tmp_path):
    """Not the beginning of a chat; and where there is no such token, its first word is not judged."""
    for number, (special, start) in enumerate(
        [
            ({"bos_token": "<chat>", "unk_token": "<|endoftext|>"}, "<|endoftext|>"),
            ({"bos_token": "<chat>"}, "<chat>"),
            ({"eos_token": "<chat>"}, "<chat>"),
        ]
    ):
        judge = fluency.load_language_model(save_llama(tmp_path / str(number), **special))
        assert judge.tokenizer.convert_ids_to_tokens(judge.start) == start
    bare = fluency.load_language_model(save_llama(tmp_path / "bare"))
    assert bare.start is None
    found, counts = fluency.token_losses(bare, TEXTS)
    losses, tokens = one_by_one(bare, [])
    assert counts.tolist() == tokens and tokens[1] == 0 and found[1] == 0
    assert found.tolist() == pytest.approx(losses, rel=1e-5)


def test_runs_of_before_are_judged_by_what_they_kept(fluency, judge):
    rows = [
        {**EDITED, "texts": TEXTS},
        {**EDITED, "seed": 1, "examples": [["a dull film", "negative", "a fascinating film", "positive"]]},
        {**EDITED, "seed": 2},
        {"seed": 0, "editor": "unedited", "texts": TEXTS[:2]},
    ]
    fluency.judge_rows(judge, rows)
    assert rows[0]["fluency"] == fluency.perplexity(judge, TEXTS)
    assert rows[1]["fluency_of_examples"] == [
        fluency.perplexity(judge, [text]) for text in ("a dull film", "a fascinating film")
    ]
    assert "fluency" not in rows[1] and set(rows[2]) == {"seed", "editor"}
    kept = json.dumps(rows)
    other = judge._replace(name="another")
    fluency.judge_rows(judge, rows)
    assert json.dumps(rows) == kept
    fluency.judge_rows(other, rows)
    assert rows[0]["fluency"]["model"] == rows[1]["fluency_of_examples"][0]["model"] == "another"


def test_a_page_says_what_was_not_run(fluency):
    rows = [dict(EDITED), {**EDITED, "seed": 1}]
    assert fluency.cell(rows) == "not run" and "was not run" in fluency.column_note(rows)
    assert fluency.fluency_note(rows, ["the editor"], "unedited") == "No language model judged the edits here."
    rows[1]["fluency"] = {"perplexity": 300.0, "texts": 4, "tokens": 40, "model": "judge"}
    rows.append({"seed": 1, "editor": "unedited", "fluency": {**rows[1]["fluency"], "perplexity": 200.0}})
    assert fluency.cell(rows[:2]) == "300.0 (1 of 2 seeds)"
    assert "`judge`" in fluency.column_note(rows) and "*Not run* are" in fluency.column_note(rows)
    assert "*Not run*" not in fluency.column_note(rows[1:])
    assert "*the editor* is 1.50 times" in fluency.fluency_note(rows, ["the editor"], "unedited")


def test_a_file_of_no_model_is_refused(fluency, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["texts.py", "--report_only", "--judge_lm_gguf", "a.gguf"])
    with pytest.raises(SystemExit, match="2"):
        importlib.import_module("texts").main()
    assert "--judge_lm_gguf is a file of --judge_lm; give that too" in capsys.readouterr().err
