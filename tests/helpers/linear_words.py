"""A classifier whose truth is known: each word adds its own number to the logit of the first class."""

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput


class WordsConfig(PreTrainedConfig):
    model_type = "words"

    def __init__(self, vocab_size=10, pad_token_id=0, **options):
        super().__init__(pad_token_id=pad_token_id, **options)
        self.vocab_size = vocab_size


class WordsForSequenceClassification(PreTrainedModel):
    """logit = sum of the numbers of the words, against its negative. Marks and the mask token add nothing."""

    config_class = WordsConfig

    def __init__(self, config):
        super().__init__(config)
        self.words = nn.Embedding(config.vocab_size, 1)
        self.post_init()

    def get_input_embeddings(self):
        return self.words

    def forward(self, input_ids=None, attention_mask=None, output_hidden_states=None, **options):
        hidden = self.words(input_ids)
        total = (hidden[..., 0] * attention_mask).sum(1)
        states = (hidden,) if output_hidden_states else None
        return SequenceClassifierOutput(logits=torch.stack([total, -total], 1), hidden_states=states)


def linear_words(tokenizer, seed=0):
    """The model for a tokenizer's words, of normal numbers, in evaluation."""
    model = WordsForSequenceClassification(WordsConfig(vocab_size=len(tokenizer)))
    with torch.no_grad():
        numbers = torch.randn(len(tokenizer), 1, generator=torch.Generator().manual_seed(seed)) * 0.2
        numbers[tokenizer.all_special_ids] = 0
        model.words.weight.copy_(numbers)
    return model.eval()
