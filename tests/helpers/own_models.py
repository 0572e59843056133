"""Models of one's own around BERT, as Trainer allows them."""

from torch import nn
from torch.nn.functional import cross_entropy
from transformers import BertConfig, BertModel, PreTrainedModel

from helpers.models import tiny


class Around(PreTrainedModel):
    """A classifier around BERT; what `give` makes of loss and logits is returned."""

    config_class, base_model_prefix, _supports_sdpa = BertConfig, "bert", True
    give = staticmethod(lambda loss, logits: (logits,) if loss is None else (loss, logits))

    def __init__(self, config):
        super().__init__(config)
        self.bert = BertModel(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(self, input_ids=None, attention_mask=None, labels=None):
        pooled = self.bert(input_ids, attention_mask=attention_mask).pooler_output
        return self.result(self.classifier(pooled), labels)

    def result(self, logits, labels):
        return self.give(None if labels is None else cross_entropy(logits, labels), logits)


class Dict(Around):
    give = staticmethod(lambda loss, logits: {"logits": logits} if loss is None else {"loss": loss, "logits": logits})


def own(cls):
    """A model of this class with the weights of `tiny("bert")`."""
    reference = tiny("bert")
    model = cls(reference.config)
    prefix = cls.base_model_prefix or "reader"
    model.load_state_dict({name.replace("bert", prefix): value for name, value in reference.state_dict().items()})
    return model.train()
