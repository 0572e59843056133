"""Fixtures of runs from their flags."""

import pytest
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from helpers.task_data import LINES, TINY_GPT2


@pytest.fixture(scope="module")
def without_pad(tmp_path_factory):
    """A folder of a tiny GPT-2 whose tokenizer has, as GPT-2's own, an end-of-text token and no pad token."""
    folder = tmp_path_factory.mktemp("gpt2")
    words = ["<|endoftext|>", *sorted({word for line in LINES for word in line.split()})]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<|endoftext|>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    end = "<|endoftext|>"
    transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=end, unk_token=end).save_pretrained(folder)
    config = transformers.GPT2Config(vocab_size=len(words), eos_token_id=0, bos_token_id=0, **TINY_GPT2)
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    return str(folder)
